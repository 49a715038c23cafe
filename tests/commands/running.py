"""Running `tuner` as a user does, judged by what it prints and leaves."""

import subprocess
import sys
from pathlib import Path

import click.testing
import psutil

from tuner.cli import main

FAST = """
name = "fast"
[model]
path = "{model}"
[slo]
p90_ms = {limit_ms}
max_error_rate = 0.01
[server.flags]
tensorflow_intra_op_parallelism = 1
tensorflow_inter_op_parallelism = 1
[load]
concurrency = 16
[measure]
window_s = 0.6
max_window_s = 1.0
warmup_s = 0.4
max_warmup_s = 0.8
resolution = 0.4
repeats = 0
[search]
trials = {trials}
guide_points = 1
final_blocks = {blocks}
final_contenders = 2
[search.space]
max_batch_size = [16, 32]
batch_timeout_micros = [0]
num_batch_threads = [1]
"""


def scenario(
    folder: Path, model: Path, *, trials: int = 3, blocks: int = 0, limit_ms: float = 400
) -> Path:
    """Write a scenario whose trials take seconds."""
    path = folder / "fast.toml"
    text = FAST.format(model=model, trials=trials, blocks=blocks, limit_ms=limit_ms)
    path.write_text(text)
    return path


def tuner(*argv: object, timeout_s: float = 170) -> subprocess.CompletedProcess[str]:
    """Run a command to its end. No traceback is ever an answer, and no process outlives it."""
    process = started(*argv)
    family = psutil.Process(process.pid)
    out, err = process.communicate(timeout=timeout_s)
    assert "Traceback" not in err, err
    assert not left_behind(family)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def invoked(*argv: object) -> click.testing.Result:
    """Run a command that starts nothing inside this process, where it need not be imported anew.

    What a process of its own would print as a traceback is raised here.
    """
    before = psutil.Process().children(recursive=True)
    done = click.testing.CliRunner().invoke(main, [*map(str, argv)], catch_exceptions=False)
    assert psutil.Process().children(recursive=True) == before
    return done


def refused(*argv: object) -> str:
    """Give a command bad input, which it says on standard error alone: returns that."""
    done = invoked(*argv)
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    return done.stderr


def started(*argv: object) -> subprocess.Popen[str]:
    """Start a command and let it run."""
    return subprocess.Popen(
        [sys.executable, "-m", "tuner", *map(str, argv)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def left_behind(parent: psutil.Process) -> list[psutil.Process]:
    """Children that outlived their parent."""
    try:
        return parent.children(recursive=True)
    except psutil.NoSuchProcess:
        return []
