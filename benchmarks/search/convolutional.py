"""A small convolutional network, exported for the recorder: nobody needs it but these benchmarks.

    python benchmarks/search/convolutional.py VERSION_DIR

`image` float32 [?, 32, 32, 3] in, `y` float32 [?, 10] out; three layers of 3 x 3 kernels, about
45 million multiplications a row, seeded weights. Its work grows with the rows, unlike that of the
built-in dense network, whose batches share the reading of the weights: batching gains little.
"""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

NAME = "convolutional-32"
CHANNELS = (3, 48, 96, 192)
CLASSES = 10
SEED = 32


def ensure(path: Path) -> None:
    """Export the network where a scenario asks for it by its folder's name and it is not there."""
    if path.name == NAME and not path.exists():
        command = [sys.executable, __file__, str(path / "1")]
        subprocess.run(command, check=True, capture_output=True)


def export(version_dir: Path) -> None:
    """Write the SavedModel with TensorFlow."""
    import numpy as np  # noqa: PLC0415 - with TensorFlow, in a process of its own
    import tensorflow as tf  # noqa: PLC0415

    rng = np.random.default_rng(SEED)
    network = tf.Module()
    network.kernels = [
        tf.Variable(rng.standard_normal((3, 3, a, b), dtype=np.float32) * (2 / (9 * a)) ** 0.5)
        for a, b in pairwise(CHANNELS)
    ]
    head = rng.standard_normal((CHANNELS[-1], CLASSES), dtype=np.float32)
    network.head = tf.Variable(head)

    @tf.function(input_signature=[tf.TensorSpec([None, 32, 32, 3], tf.float32, name="image")])
    def serve(image: "tf.Tensor") -> dict[str, "tf.Tensor"]:
        for number, kernel in enumerate(network.kernels):
            image = tf.nn.relu(tf.nn.conv2d(image, kernel, 2 if number else 1, "SAME"))
        return {"y": tf.matmul(tf.reduce_mean(image, [1, 2]), network.head)}

    tf.saved_model.save(network, str(version_dir), signatures={"serving_default": serve})


if __name__ == "__main__":
    export(Path(sys.argv[1]))
