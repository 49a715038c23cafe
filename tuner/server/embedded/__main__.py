"""`python -m tuner.server.embedded --port=8500 --model_name=m --model_base_path=/models/m`."""

import os
import signal
import sys
from collections.abc import Sequence

from tuner import protos
from tuner.errors import TunerError
from tuner.server.embedded.flags import parse


def main(arguments: Sequence[str]) -> None:
    """Run the server with these command-line arguments; does not return."""
    for number in (signal.SIGTERM, signal.SIGINT):  # no traceback while modules load
        signal.signal(number, signal.SIG_DFL)
    # TensorFlow would log every refused request, at a cost the server under test does not have.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        flags, unknown = parse(arguments)
        protos.install()
    except TunerError as error:
        sys.stdout.write(f"{error}\n")
        sys.exit(255)
    if unknown:
        sys.stdout.write(f"unknown argument: {unknown[0]}\n")
        sys.stdout.flush()
    from tuner.server.embedded.process import run  # noqa: PLC0415 - after protos.install

    run(flags)


if __name__ == "__main__":
    main(sys.argv[1:])
