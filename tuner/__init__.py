"""Finds TensorFlow Serving's batching parameters: the most load within a latency promise."""

__version__ = "0.1.0"
