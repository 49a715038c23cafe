"""A stand-in for TensorFlow Serving that needs neither Docker nor its binary.

`python -m tuner.server.embedded` takes the flags of `tensorflow_model_server`, speaks its gRPC
services and batches with TensorFlow's own scheduler. It is a program, not a library: the tuner
starts it as a process, since it must never share one with the real `tensorflow` package.
"""
