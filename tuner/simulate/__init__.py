"""The server's batch scheduler as a discrete-event model; knows no server and sends no request."""
