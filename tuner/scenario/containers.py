"""Keys of `[server]` that speak of containers, and the texts an engine understands."""

import os

DOCKER_KEYS = ("image", "gpus", "runtime", "memory", "env", "mounts", "root", "user")
"""Keys of `[server]` that mean something for containers alone."""

CONTAINER_WORDS = {
    "image": (r"[a-z0-9][A-Za-z0-9._/:@-]*", "an image such as tensorflow/serving:2.20.0"),
    "gpus": (
        r"all|[1-9][0-9]*|device=[A-Za-z0-9-]+(,[A-Za-z0-9-]+)*",
        'all, a number of GPUs, or "device=0,1"',
    ),
    "memory": (r"([1-9][0-9]*[kmg])?", "a limit such as 512m or 4g"),
    "user": (r"([A-Za-z0-9_.-]+(:[A-Za-z0-9_.-]+)?)?", "a user such as 1000:1000"),
}
"""What the texts that the engine is given look like, and how to say it."""


def parse_mount(text: str) -> tuple[str, str, bool]:
    """Split `HOST:CONTAINER[:ro|rw]` into source, target and whether it may be written."""
    parts = text.split(":")
    source, target, mode = (*parts, "ro")[:3] if len(parts) in {2, 3} else ("", "", "")
    if not (source.startswith(("/", "~")) and target.startswith("/") and mode in {"ro", "rw"}):
        raise ValueError(
            f'"{text}" is no mount; write "/on/this/host:/in/the/container", and ":rw" behind it '
            "where the server may write"
        )
    return os.path.expanduser(source), target, mode == "rw"  # noqa: PTH111 - never raises
