"""TensorFlow Serving's protocol messages, without importing TensorFlow.

The generated modules import `tensorflow.core.framework.*_pb2`, and with them all of TensorFlow:
seconds and hundreds of megabytes. Only the package's `__init__` is heavy, so `install` puts a
light module of that name in its place whose `__path__` is the installed folder. A process that
calls it must not import the real `tensorflow` package afterwards.
"""

import importlib.util
import sys
import types

from tuner.errors import HostError


def install() -> None:
    """Make `tensorflow.*` submodules importable without running TensorFlow's own `__init__`.

    Does nothing where a module named `tensorflow` is loaded already. Raises HostError where
    TensorFlow is not installed.
    """
    if "tensorflow" in sys.modules:
        return
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or not spec.submodule_search_locations:
        raise HostError(
            "TensorFlow is not installed",
            hint="run `make quickstart` in the checkout, or `pip install tensorflow-cpu`",
        )
    module = types.ModuleType("tensorflow", "A stand-in that lets submodules be imported alone.")
    module.__path__ = list(spec.submodule_search_locations)
    module.__spec__ = spec
    sys.modules["tensorflow"] = module
