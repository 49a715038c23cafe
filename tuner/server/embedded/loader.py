"""From a version directory to a servable, with the batching that the flags ask for."""

from pathlib import Path

from tuner.batching import BatchingParameters
from tuner.errors import BatchingError
from tuner.server.embedded import log
from tuner.server.embedded.flags import CPUS, Flags
from tuner.server.embedded.metrics import Metrics
from tuner.server.embedded.queue_options import QueueOptions, queue_options
from tuner.server.embedded.runtime import Runtime
from tuner.server.embedded.servable import Servable
from tuner.server.embedded.served_models import ServedModel, invalid_file, read_text
from tuner.server.embedded.status import Code, ServingError
from tuner.server.embedded.warmup import warm_up

PER_MODEL_FILE = "batching_params.pbtxt"


class Loader:
    """Loads versions. Raises ServingError where the server would refuse to start."""

    def __init__(self, flags: Flags, metrics: Metrics) -> None:
        self._flags = flags
        self._metrics = metrics
        self._parameters = _global_parameters(flags)
        self._threads = CPUS
        if self._parameters is not None:
            self._threads = _threads(self._parameters)
        intra_op, inter_op = flags.op_parallelism
        self._runtime = Runtime(intra_op=intra_op, inter_op=inter_op)

    def load(self, model: ServedModel, version: int, directory: Path) -> Servable:
        """Load and warm up one version. Raises ServingError, or ServerDiesError."""
        options = self._options(directory)
        if options is not None:
            log.info("Wrapping session to perform batch processing")
        servable = Servable.load(
            self._runtime,
            self._metrics,
            model.name,
            version,
            directory,
            frozenset(self._flags.saved_model_tags.split(",")),
            options,
        )
        if self._flags.enable_model_warmup:
            try:
                warm_up(servable, directory, self._flags.num_request_iterations_for_warmup or 1)
            except ServingError:
                servable.unload()
                raise
        return servable

    def _options(self, directory: Path) -> QueueOptions | None:
        if self._parameters is None:
            return None
        if not self._flags.enable_per_model_batching_parameters:
            return queue_options(self._parameters, self._threads)
        path = directory / PER_MODEL_FILE
        if not path.exists():
            return None  # the server serves such a version unbatched, without a word
        return queue_options(_parameters(path), self._threads)


def _global_parameters(flags: Flags) -> BatchingParameters | None:
    path = flags.batching_parameters_file
    if not flags.enable_batching:
        if path:
            raise ServingError(
                Code.INVALID_ARGUMENT,
                "server_options.batching_parameters_file is set without setting "
                "server_options.enable_batching to true.",
            )
        return None
    return _parameters(Path(path)) if path else BatchingParameters()


def _parameters(path: Path) -> BatchingParameters:
    text = read_text(str(path))
    if not text:
        raise ServingError(Code.INVALID_ARGUMENT, f"{path}; Invalid argument")
    try:
        return BatchingParameters.from_text(text, source=str(path))
    except BatchingError as error:
        raise invalid_file(str(path), error) from None


def _threads(parameters: BatchingParameters) -> int:
    threads = parameters.num_batch_threads
    if threads is None:
        return CPUS
    if threads < 1:
        raise ServingError(
            Code.INVALID_ARGUMENT, f"num_batch_threads must be positive; was {threads}"
        )
    return threads
