"""HTTP/2 and gRPC on the wire, cheap enough in pure Python for a server and a load test."""
