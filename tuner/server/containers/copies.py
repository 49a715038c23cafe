"""Files for containers of an engine on another host, which sees none of this host's folders.

What does not change is copied once, into the volumes of a container that never runs; servers
mount them read-only. What belongs to one server is put into volumes of its own before it starts.
"""

import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from docker.models.containers import Container
from docker.types import Mount

from tuner.errors import HostError, ModelError
from tuner.served import ServedModel
from tuner.server.containers.engine import Engine, mapped
from tuner.server.containers.images import Image, bar_line

CHUNK = 1 << 20
BLOCK = 512
"""Of a tar file: everything in it fills whole ones."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, directory or link of an archive, by its name in there.

    `link` is where it points to, for a link; `source` the file on this host, for a file.
    """

    name: str
    link: str = ""
    source: Path | None = None
    size: int = 0


@dataclass(frozen=True, slots=True)
class Copies:
    """The container that never runs, and the folders that its volumes hold."""

    container: Container
    folders: frozenset[Path]

    def close(self, engine: Engine) -> None:
        """Remove it, and what it holds."""
        with suppress(HostError), mapped(engine.where):
            self.container.remove(force=True, v=True)


def copy_models(
    engine: Engine,
    image: Image,
    models: Iterable[ServedModel],
    labels: Mapping[str, str],
    notify: Callable[[str], None],
) -> Copies:
    """Copy the versions that are served to the engine's host, once. Raises HostError."""
    found = {model.path: list(_versions(model)) for model in models}
    with mapped(engine.where):
        container = engine.client.containers.create(
            image.id,
            entrypoint=["never started"],
            labels=dict(labels),
            mounts=[volume(path) for path in found],
        )
    copies = Copies(container, frozenset(found))
    total = sum(entry.size for entries in found.values() for entry in entries)
    done = 0

    def told(count: int) -> None:
        nonlocal done
        done += count
        notify(bar_line(f"copying to {engine.where}", done, total))

    try:
        for path, entries in found.items():
            put(engine, container, path, entries, told)
    except BaseException:
        copies.close(engine)
        raise
    return copies


def volume(path: Path) -> Mount:
    """A volume that lives as long as its container."""
    return Mount(str(path), None, type="volume")


def put(
    engine: Engine,
    container: Container,
    path: Path,
    entries: Iterable[Entry],
    told: Callable[[int], None] = lambda _count: None,
) -> None:
    """Put entries into a container's folder, in order. Raises HostError."""
    with mapped(engine.where):
        container.put_archive(str(path), archive(entries, told))


def tree(folder: Path, prefix: str = "", *, follow: bool) -> Iterator[Entry]:
    """All that lies in a folder; links as what they lead to with `follow`, else as links."""
    for path in sorted(folder.iterdir()):
        name = f"{prefix}{path.name}"
        if path.is_symlink() and not follow:
            yield Entry(name, link=os.readlink(path))  # noqa: PTH115 - verbatim
        elif path.is_dir():
            yield Entry(name)
            yield from tree(path, f"{name}/", follow=follow)
        elif path.is_file():
            yield Entry(name, source=path, size=path.stat().st_size)


def as_version(folder: Path) -> Iterator[Entry]:
    """A version for a server that looks already: it appears whole, since a link to it comes last.

    The server takes a name for a version's where it is a number; what the link leads to is none.
    """
    hidden = f".{folder.name}"
    yield Entry(hidden)
    yield from tree(folder, f"{hidden}/", follow=False)
    yield Entry(folder.name, link=hidden)


def archive(entries: Iterable[Entry], told: Callable[[int], None]) -> Iterator[bytes]:
    """A tar file of entries, as a stream: everybody may read them, and root owns them."""
    for entry in entries:
        header = tarfile.TarInfo(entry.name)
        header.mode = 0o755 if entry.source is None else 0o644
        header.size = entry.size
        header.type, header.linkname = _kind(entry), entry.link
        yield header.tobuf(tarfile.PAX_FORMAT)
        if entry.source is not None:
            yield from _content(entry.source, entry.size, told)
            yield bytes(-entry.size % BLOCK)
    yield bytes(2 * BLOCK)


def _kind(entry: Entry) -> bytes:
    if entry.link:
        return tarfile.SYMTYPE
    return tarfile.DIRTYPE if entry.source is None else tarfile.REGTYPE


def _content(source: Path, size: int, told: Callable[[int], None]) -> Iterator[bytes]:
    left = size
    try:
        with source.open("rb") as file:
            while left and (chunk := file.read(min(CHUNK, left))):
                left -= len(chunk)
                told(len(chunk))
                yield chunk
    except OSError as error:
        raise ModelError(f"{source}: cannot be read: {error.strerror}") from None
    if left:
        raise ModelError(f"{source}: became shorter while it was copied")


def _versions(model: ServedModel) -> Iterator[Entry]:
    """The versions of a model that its server loads."""
    there = sorted(
        int(entry.name) for entry in model.path.iterdir()
         if entry.name.isascii() and entry.name.isdigit() and entry.is_dir()
    )  # fmt: skip
    wanted = there[-1:] if model.versions == "latest" else there
    for version in wanted:
        if isinstance(model.versions, tuple) and version not in model.versions:
            continue
        yield Entry(str(version))
        yield from tree(model.path / str(version), f"{version}/", follow=True)
