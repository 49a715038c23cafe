"""Images for tests, made here in a moment: nothing is pulled, and nothing is copied.

An image holds one file, `tensorflow_model_server`, which is the embedded server (or the fake one
of `server/fake_server.py`); Python and its packages are this host's own, mounted read-only with
`server.mounts`. So a container's whole path is real: flags, mounts, limits, ports and its end.
"""

import gc
import hashlib
import io
import sys
import tarfile
import warnings
from pathlib import Path

from tuner.errors import HostError
from tuner.server.containers.engine import Engine, connect

REPOSITORY = Path(__file__).parents[1]
FAKE = REPOSITORY / "tests" / "server" / "fake_server.py"
VERSION = "TensorFlow ModelServer: 2.19.0"

EMBEDDED = f"""\
import sys
if "--version" in sys.argv:
    print("{VERSION} (the embedded server)")
    sys.exit()
from tuner.server.embedded.__main__ import main
main(sys.argv[1:])
"""
FAKED = f"exec(compile(open({str(FAKE)!r}).read(), {str(FAKE)!r}, 'exec'))\n"


def _image(kind: str, script: str | None) -> str:
    """A name that follows from the content, so that other checkouts' tests have other images."""
    text = f"{sys.executable} {script}"
    return f"tuner-test/{kind}:{hashlib.sha256(text.encode()).hexdigest()[:12]}"


EMBEDDED_IMAGE = _image("embedded", EMBEDDED)
FAKE_IMAGE = _image("fake", FAKED)
EMPTY_IMAGE = _image("empty", None)

SCRIPTS = {EMBEDDED_IMAGE: EMBEDDED, FAKE_IMAGE: FAKED, EMPTY_IMAGE: None}


def mounts() -> list[str]:
    """What an image's Python needs of this host."""
    folders = dict.fromkeys([Path("/usr"), Path(sys.base_prefix), Path(sys.prefix), REPOSITORY])
    inner = [folder for folder in folders if not any(other in folder.parents for other in folders)]
    return [f"{folder}:{folder}" for folder in inner]


def engine_or_why_not() -> Engine | str:
    """An engine with the images, or why there is none."""
    with warnings.catch_warnings():
        # Where nothing listens, docker's transport forgets the socket that it tried with.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            engine = connect()
        except HostError as error:
            why = f"{error.message}; {error.hint}"
        else:
            why = ""
        gc.collect()
    if why:
        return why
    build(engine)
    return engine


def build(engine: Engine) -> None:
    """Put the images onto an engine that lacks them.

    An image of a tag is never made twice: another run of the tests may be using it.
    """
    for name, script in SCRIPTS.items():
        if engine.image(name) is not None:
            continue
        repository, _, tag = name.partition(":")
        engine.client.api.import_image_from_data(
            _root(script), repository, tag, changes=["ENV PATH=/opt/serving/bin:/usr/bin"]
        )


def scenario_lines(image: str, *more: str) -> str:
    """The `[server]` section for an image."""
    return "\n".join(
        ['launcher = "docker"', f'image = "{image}"', f"mounts = {mounts()!r}", *more]
    )


def _root(script: str | None) -> bytes:
    """A root file system of links into /usr, and the server."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name in ("bin", "lib", "lib64"):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, f"usr/{name}"
            tar.addfile(link)
        if script is not None:
            content = f"#!{sys.executable}\n{script}".encode()
            file = tarfile.TarInfo("opt/serving/bin/tensorflow_model_server")
            file.size, file.mode = len(content), 0o755
            tar.addfile(file, io.BytesIO(content))
    return data.getvalue()
