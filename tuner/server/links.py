"""Where links lead: what a container needs beside a folder for the links in it to hold."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path


def beyond(folders: Iterable[Path], mounted: Iterable[Path] = ()) -> tuple[Path, ...]:
    """What links in `folders` lead to outside of them and of what is `mounted` already.

    Each target is given where its link says it is, even where that is a link again, since it is
    there that a container looks. Links that lead nowhere are left out.
    """
    waiting = list(folders)
    seen, found = [*waiting, *mounted], []
    while waiting:
        for target in _targets(waiting.pop()):
            if not any(target == known or known in target.parents for known in seen):
                found.append(target)
                seen.append(target)
                waiting.append(target)
    return tuple(found)


def _targets(folder: Path) -> Iterator[Path]:
    """Where every link below a folder leads, one step of the way."""
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            if path.is_symlink() and path.exists():
                yield Path(os.path.normpath(path.parent / path.readlink()))
