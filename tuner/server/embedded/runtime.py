"""TensorFlow's eager runtime, reached without TensorFlow's Python layer.

The only module that touches the runtime's bindings. `tuner.protos.install` must have run before
it is imported: then the bindings load in about a second, `import tensorflow` in many.
"""

import re
import threading
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray
from tensorflow.core.protobuf import config_pb2
from tensorflow.python import pywrap_tfe
from tensorflow.python.eager import context
from tensorflow.python.framework import errors_impl, ops

from tuner.server.embedded.status import Code, ServingError

_CPU = "/job:localhost/replica:0/task:0/device:CPU:0"
_ANNOTATION = re.compile(r"\{\{(?:function_)?node .*?\}\}\s*|\s*\[Op:[^\]]*\](?: name: .*)?$|^\s+")
_TRACE = re.compile(r"\n?\s*\[\[\{\{node .*", re.DOTALL)


class Runtime:
    """The process's one eager context: functions are added by name, then executed.

    `intra_op` and `inter_op` are thread counts of TensorFlow's own pools; 0 is one per CPU.
    """

    def __init__(self, *, intra_op: int = 0, inter_op: int = 0) -> None:
        # Idle threads of TensorFlow's pools would spin for the next kernel. Beside a small model
        # that is a large part of all processor time, and it is taken from the batch threads.
        config = config_pb2.ConfigProto()
        config.experimental.disable_thread_spinning = True
        self._context = context.context()
        self._context._config = config  # noqa: SLF001 - no public way to set this field
        self._context.intra_op_parallelism_threads = intra_op
        self._context.inter_op_parallelism_threads = inter_op
        self._context.ensure_initialized()
        self._handle = self._context._handle  # noqa: SLF001 - what TFE_Py_Execute takes
        self._lock = threading.Lock()

    def add_functions(self, definitions: Sequence[Any]) -> None:
        """Register FunctionDefs. Raises ServingError where TensorFlow refuses one."""
        try:
            with self._lock:
                for definition in definitions:
                    self._context.add_function_def(definition)
        except Exception as error:  # noqa: BLE001 - bindings raise several kinds, all translated
            raise _translate(error) from None

    def remove_functions(self, names: Sequence[str]) -> None:
        """Forget functions, and the kernels that were made of them."""
        with self._lock:
            for name in names:
                self._context.remove_function(name)
            self._context.clear_kernel_cache()

    def execute(
        self, op: str, inputs: Sequence[Any], outputs: int, attributes: tuple[Any, ...] = ()
    ) -> list[Any]:
        """Run an op or a function and wait. `attributes` alternates names and values.

        Any number of threads may call this at once; the interpreter lock is released meanwhile.
        Raises ServingError with TensorFlow's code and its text, without node annotations.
        """
        try:
            return pywrap_tfe.TFE_Py_Execute(  # type: ignore[no-any-return]
                self._handle, _CPU, op, inputs, attributes, outputs
            )
        except Exception as error:  # noqa: BLE001 - bindings raise several kinds, all translated
            raise _translate(error) from None


def tensor(array: Any) -> Any:
    """Hand an array to TensorFlow. Strings are arrays of dtype object holding bytes."""
    return ops.EagerTensor(array, _CPU, None)


def array(value: Any) -> NDArray[Any]:
    """View a tensor as an array, which lives as long as the array does."""
    return value._numpy_internal()  # type: ignore[no-any-return]  # noqa: SLF001


def _translate(error: Exception) -> ServingError:
    if not isinstance(error, errors_impl.OpError):
        return ServingError(Code.INVALID_ARGUMENT, str(error))
    text = _ANNOTATION.sub("", _TRACE.sub("", str(error.message)))
    return ServingError(Code(error.error_code), text)
