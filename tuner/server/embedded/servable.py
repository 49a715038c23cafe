"""One version of a model, loaded: its variables are restored and its signatures can be run."""

import threading
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from tensorflow.core.framework import types_pb2

from tuner.server.embedded.batch_function import BatchInput, batch_function
from tuner.server.embedded.graph import LOADER_SIGNATURES, Feed, Graph, isolate, read_meta_graph
from tuner.server.embedded.metrics import Metrics
from tuner.server.embedded.queue_options import QueueOptions
from tuner.server.embedded.run_target import BatchedTarget, DirectTarget, RunTarget
from tuner.server.embedded.runtime import Runtime, tensor
from tuner.server.embedded.signature import Signature, SignatureTensor
from tuner.server.embedded.status import Code, ServingError
from tuner.server.embedded.wire import Output, PredictRequest

DEFAULT_SIGNATURE = "serving_default"

_numbers = count(1)


class Servable:
    """A loaded version. Requests hold it while they run; it is unloaded after the last one."""

    def __init__(
        self,
        runtime: Runtime,
        metrics: Metrics,
        graph: Graph,
        prefix: str,
        name: str,
        version: int,
        options: QueueOptions | None,
    ) -> None:
        self.name = name
        self.version = version
        self.signature_defs = graph.signatures
        self._runtime = runtime
        self._metrics = metrics
        self._graph = graph
        self._prefix = prefix
        self._options = options
        self._functions: list[str] = []
        self._targets: dict[tuple[Any, ...], RunTarget] = {}
        self._serial = count()
        self._lock = threading.Lock()
        self._users = 0
        self._idle = threading.Condition(self._lock)
        self._signatures = {
            key: Signature.of(name, version, key, definition)
            for key, definition in self.signature_defs.items()
            if not key.startswith(LOADER_SIGNATURES)
        }

    @classmethod
    def load(
        cls,
        runtime: Runtime,
        metrics: Metrics,
        name: str,
        version: int,
        directory: Path,
        tags: frozenset[str],
        options: QueueOptions | None,
    ) -> "Servable":
        """Load a version directory. Raises ServingError where it cannot be loaded."""
        prefix = f"servable{next(_numbers)}"
        meta_graph = read_meta_graph(directory, tags)
        isolate(meta_graph, prefix)
        graph = Graph(meta_graph)
        servable = cls(runtime, metrics, graph, prefix, name, version, options)
        try:
            servable._initialise(directory)
        except ServingError:
            servable.unload()
            raise
        except (LookupError, TypeError, ValueError) as error:
            text = f"The graph of {directory} is inconsistent: {type(error).__name__}: {error}"
            raise ServingError(Code.INVALID_ARGUMENT, text) from None
        return servable

    def _initialise(self, directory: Path) -> None:
        self._add(self._graph.library)
        self._restore(directory)
        self._run_init_op(directory)
        if not self._pads:
            for signature in self._signatures.values():
                self._target(signature, signature.outputs, ())

    def _restore(self, directory: Path) -> None:
        saver = self._graph.saver
        if saver is None or not (directory / "variables" / "variables.index").exists():
            return
        restore_op, filename = saver
        checkpoint = str(directory / "variables" / "variables")
        self._run_once("restore", restore_op, {filename: checkpoint})

    def _run_init_op(self, directory: Path) -> None:
        init_op = self._graph.init_op
        if init_op is None:
            return
        needed = self._graph.reaches([init_op])
        self._run_once(
            "init",
            init_op,
            {
                name: str(directory / "assets" / filename)
                for name, filename in self._graph.assets.items()
                if name.partition(":")[0] in needed
            },
        )

    def _run_once(self, label: str, op: str, paths: dict[str, str]) -> None:
        feeds = [Feed(name, types_pb2.DT_STRING) for name in paths]
        name = f"{self._prefix}_{label}"
        self._add([self._graph.cut(name, feeds, targets=[op])])
        values = [tensor(np.array(path.encode(), dtype=object)) for path in paths.values()]
        self._runtime.execute(name, values, 0)

    def hold(self) -> bool:
        """Keep the version loaded for one request; False where it is being unloaded."""
        with self._lock:
            if self._users < 0:
                return False
            self._users += 1
            return True

    def release(self) -> None:
        """End what `hold` began."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._idle.notify_all()

    def unload(self) -> None:
        """Wait for the last request, then free variables, tables and functions."""
        with self._idle:
            self._idle.wait_for(lambda: self._users == 0)
            self._users = -1
        name = f"{self._prefix}_unload"
        self._add([self._graph.unload(name)])
        self._runtime.execute(name, [], 0)
        self._runtime.remove_functions(self._functions)
        self._functions.clear()
        self._targets.clear()

    def predict(
        self, request: PredictRequest, deadline_ns: int | None
    ) -> tuple[Signature, list[Output]]:
        """Run a request's signature. Raises ServingError with the server's code and text."""
        assert request.spec is not None
        key = request.spec.signature or DEFAULT_SIGNATURE
        signature = self._signatures.get(key)
        if signature is None:
            raise ServingError(
                Code.FAILED_PRECONDITION, f'Serving signature key "{key}" not found.'
            )
        values = signature.values(request.inputs)
        outputs = signature.wanted(request.output_filter)
        ranks: tuple[int, ...] = ()
        if self._pads:
            ranks = tuple(value.ndim for value in values)
        tensors = tuple(sorted({item.tensor for item in outputs}))
        results = self._target(signature, outputs, ranks).run(values, deadline_ns)
        by_tensor = dict(zip(tensors, results, strict=True))
        return signature, [(item.alias, item.dtype, by_tensor[item.tensor]) for item in outputs]

    @property
    def _pads(self) -> bool:
        return self._options is not None and self._options.pad_variable_length

    def _target(
        self, signature: Signature, outputs: Sequence[SignatureTensor], ranks: tuple[int, ...]
    ) -> RunTarget:
        """Find or make what runs these tensors.

        Signatures of equal tensors share it, and with it their queue, as in the server.
        """
        fetched = {item.tensor: item.dtype for item in outputs}
        key = tuple(item.tensor for item in signature.inputs), frozenset(fetched), ranks
        target = self._targets.get(key)
        if target is not None:
            return target
        with self._lock:
            if key not in self._targets:
                fetches = [Feed(name, dtype) for name, dtype in sorted(fetched.items())]
                self._targets[key] = self._new_target(signature, fetches, ranks)
            return self._targets[key]

    def _new_target(
        self, signature: Signature, fetches: Sequence[Feed], ranks: tuple[int, ...]
    ) -> RunTarget:
        name = f"{self._prefix}_run{next(self._serial)}"
        feeds = [Feed(item.tensor, item.dtype) for item in signature.inputs]
        self._add([self._graph.cut(name, feeds, fetches)])
        if self._options is None:
            return DirectTarget(self._runtime, name, len(fetches))
        inputs = [
            BatchInput(item.dtype, ranks[index] if ranks else None)
            for index, item in enumerate(signature.inputs)
        ]
        batched = f"{name}_batch"
        types = [item.dtype for item in fetches]
        self._add([batch_function(batched, name, inputs, types, self._options.allowed_sizes)])
        return BatchedTarget(
            self._runtime, self._metrics, batched, signature.inputs, inputs, types, self._options
        )

    def _add(self, definitions: Sequence[Any]) -> None:
        self._runtime.add_functions(definitions)
        self._functions += [item.signature.name for item in definitions]
