"""Samples in, Measurement and Verdict out. Knows neither the server nor the load generator."""
