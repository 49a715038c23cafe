"""Writes the SavedModels of these tests below the folder given. Runs in a process of its own."""

import sys
from pathlib import Path

import tensorflow as tf


class Affine(tf.Module):
    """y = 2 x + 1, from variables, and what tells the batch: its rows, and its last row."""

    def __init__(self, scale=2.0):
        self.scale = tf.Variable(scale)
        self.offset = tf.Variable(1.0)

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def serve(self, x):
        rows = tf.shape(x)[0]
        last = tf.repeat(x[-1:], rows, axis=0)
        return {"y": x * self.scale + self.offset, "rows": tf.fill([rows], rows), "last": last}

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def first(self, x):
        return {"first": x[0, 0]}

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def halves(self, x):
        return {"half": x[: tf.shape(x)[0] // 2]}

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def slow(self, x):
        """Take about 10 ms for every 1 in the first number."""
        total = tf.zeros([], tf.float32)
        for _ in tf.range(tf.cast(x[0, 0] * 1000, tf.int32)):
            total += tf.reduce_sum(x)
        return {"y": x + 0.0 * total}


class Lengths(tf.Module):
    """Inputs of variable length: the padded batch's row as it is, and its sum."""

    @tf.function(input_signature=[tf.TensorSpec([None, None, None], tf.float32, name="x")])
    def serve(self, x):
        return {"x": x, "sum": tf.reduce_sum(x, axis=[1, 2])}


class Vocabulary(tf.Module):
    """A table made from an asset, and strings in and out."""

    def __init__(self, file):
        words = tf.lookup.TextFileInitializer(
            str(file),
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        )
        self.table = tf.lookup.StaticHashTable(words, -1)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="word")])
    def serve(self, word):
        return {"id": self.table.lookup(word), "word": tf.strings.upper(word)}


def main(folder):
    for version, scale in ((1, 2.0), (2, 3.0)):
        model = Affine(scale)
        signatures = {
            "serving_default": model.serve,
            "first": model.first,
            "halves": model.halves,
            "slow": model.slow,
        }
        tf.saved_model.save(model, folder / "affine" / str(version), signatures=signatures)
    lengths = Lengths()
    tf.saved_model.save(lengths, folder / "lengths" / "1", signatures=lengths.serve)
    words = folder / "words.txt"
    words.write_text("one\ntwo\nthree\n")
    vocabulary = Vocabulary(words)
    tf.saved_model.save(vocabulary, folder / "vocabulary" / "1", signatures=vocabulary.serve)
    words.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
