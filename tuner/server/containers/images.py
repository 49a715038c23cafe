"""The server's image: found, pulled where it is absent, and known by its digest."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from docker.utils import parse_repository_tag

from tuner.errors import HostError
from tuner.server.containers.engine import Engine, mapped

BAR = 24
"""Characters of the bar that shows a pull's progress."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image the engine has. `digest` is the registry's, or the image's own id."""

    name: str
    id: str
    digest: str


def find(engine: Engine, name: str, notify: Callable[[str], None]) -> Image:
    """Find an image, pulling it where the engine lacks it.

    `notify` is told how far a pull is. Raises HostError where it cannot be had.
    """
    found = engine.image(name)
    if found is None:
        _pull(engine, name, notify)
        found = engine.image(name)
    if found is None:
        raise _absent(name, "the engine pulled something else")
    digests = found.attrs.get("RepoDigests") or ()
    own = str(found.id)
    return Image(name=name, id=own, digest=digest_of(digests, name, own))


def digest_of(digests: Sequence[str], name: str, own: str) -> str:
    """The digest that an image has where it was pulled by `name`; its `own` id without any."""
    repository, _ = parse_repository_tag(name)
    known = dict(text.partition("@")[::2] for text in digests)
    return known.get(repository) or next(iter(known.values()), own)


def _pull(engine: Engine, name: str, notify: Callable[[str], None]) -> None:
    repository, tag = parse_repository_tag(name)
    progress = Progress(name)
    notify(f"pulling {name}")
    refusal = None
    try:
        with mapped(engine.where):
            for message in engine.client.api.pull(
                repository, tag=tag or "latest", stream=True, decode=True
            ):
                refusal = message.get("error", refusal)
                notify(progress.told(message))
    except HostError as error:
        refusal = error.message
    if refusal is not None:
        raise _absent(name, refusal)


def _absent(name: str, why: str) -> HostError:
    return HostError(
        f'server.image: "{name}" is not on this engine and cannot be pulled: '
        f"{' '.join(why.split())}",
        hint="correct the name, log in (docker login), or where no registry is reached bring the "
        "image by `docker save` there and `docker load` here",
    )


class Progress:
    """How far a pull is, over all layers the registry has told of."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._layers: dict[str, tuple[int, int]] = {}

    def told(self, message: Mapping[str, Any]) -> str:
        """Take in one message of the engine; returns a line with a bar."""
        detail = message.get("progressDetail") or {}
        layer = str(message.get("id", ""))
        if message.get("status") == "Downloading" and detail.get("total"):
            self._layers[layer] = (int(detail["current"]), int(detail["total"]))
        elif message.get("status") == "Download complete" and layer in self._layers:
            total = self._layers[layer][1]
            self._layers[layer] = (total, total)
        done = sum(current for current, _ in self._layers.values())
        total = sum(total for _, total in self._layers.values())
        return bar_line(f"pulling {self._name}", done, total)


def bar_line(what: str, done: int, total: int) -> str:
    """A line with a bar: how many of how many bytes have moved."""
    bar = "#" * round(BAR * done / max(total, 1))
    return f"{what} [{bar:<{BAR}}] {done / 1e6:.0f} of {total / 1e6:.0f} MB"
