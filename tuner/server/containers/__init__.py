"""TensorFlow Serving in a container, on whichever Docker Engine the docker command would use."""
