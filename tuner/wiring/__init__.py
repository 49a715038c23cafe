"""The parts of a scenario put together: models, processors, launcher, requests, the client."""
