"""Checks of the models: where they lie, what they take, whether they can be batched."""

from collections.abc import Iterator
from pathlib import Path

from tuner import builtin, model, protos
from tuner.doctor.finding import Finding, Report, of_error
from tuner.errors import TunerError
from tuner.load.tfrecord import read_records
from tuner.model import ModelInfo, Signature, TensorSpec
from tuner.scenario import ModelSection, Scenario
from tuner.wiring.bench import asked_version

WARMUP_FILE = Path("assets.extra") / "tf_serving_warmup_requests"
MAX_WARMUP_RECORDS = 1000
"""The server refuses to load a model with more."""

Models = list[tuple[ModelSection, ModelInfo]]


def check_models(scenario: Scenario, report: Report) -> Models:
    """Read every model of the mix. Returns those that can be served and batched."""
    usable = []
    for section in scenario.models:
        try:
            if section.builtin is not None:
                builtin.ensure(section.builtin, section.path, lambda _text: None)
            info = model.inspect(section.path, version=asked_version(scenario, section))
            signature = info.signature(section.signature)
        except TunerError as error:
            report(of_error("model", error))
            continue
        report(_described(section, info, signature))
        if obstacle := _batchable(section, signature):
            report(obstacle)
            continue
        for finding in _warmup(scenario, section, info):
            report(finding)
        usable.append((section, info))
    for finding in _named_versions(scenario):
        report(finding)
    for finding in _rows(scenario):
        report(finding)
    return usable


def _described(section: ModelSection, info: ModelInfo, signature: Signature) -> Finding:
    versions = ", ".join(map(str, info.versions))
    return Finding(
        "model",
        "green",
        f"{section.servable}: version {info.version} of {versions} under {section.path}, "
        f"signature {signature.name}",
        detail=shown(signature),
    )


def shown(signature: Signature) -> str:
    """A signature as `saved_model_cli show` prints it."""
    lines = [f"signature_def['{signature.name}']:"]
    for kind, tensors in (("input", signature.inputs), ("output", signature.outputs)):
        lines.append(f"  The given SavedModel SignatureDef contains the following {kind}(s):")
        for name, spec in tensors.items():
            lines += [
                f"    {kind}s['{name}'] tensor_info:",
                f"        dtype: {spec.dtype}",
                f"        shape: {_shape(spec)}",
                f"        name: {spec.tensor}",
            ]
    lines.append(f"  Method name is: {signature.method}")
    return "\n".join(lines)


def _shape(spec: TensorSpec) -> str:
    if spec.shape is None:
        return "unknown_rank"
    return f"({', '.join('-1' if size is None else str(size) for size in spec.shape)})"


def _batchable(section: ModelSection, signature: Signature) -> Finding | None:
    try:
        model.require_batchable(section.path, signature)
    except TunerError as error:
        return Finding("not-batchable", "red", error.message, error.hint)
    return None


def _named_versions(scenario: Scenario) -> Iterator[Finding]:
    """Every version that the server is told to hold must be there."""
    for served in scenario.served:
        for version in served.named_versions:
            try:
                model.inspect(served.path, version=version)
            except TunerError as error:
                labels = [name for name, named in served.labels.items() if named == version]
                whose = f" (label {labels[0]!r})" if labels else ""
                yield Finding("model", "red", f"{error.message}{whose}", error.hint)


def _rows(scenario: Scenario) -> Iterator[Finding]:
    """A request of more rows than max_batch_size is refused, unless requests are split."""
    space = scenario.search.space
    largest = max(rows for section in scenario.models for rows in section.row_weights)
    small = [size for size in space.max_batch_size if size < largest]
    if not small or all(space.enable_large_batch_splitting):
        yield Finding("rows", "green", f"requests of up to {largest} rows fit every batch size")
        return
    every = len(small) == len(space.max_batch_size)
    yield Finding(
        "rows",
        "red" if every and not any(space.enable_large_batch_splitting) else "yellow",
        f"requests of {largest} rows are refused where max_batch_size is "
        f"{', '.join(map(str, small))}",
        "take these out of search.space.max_batch_size, or set "
        "search.space.enable_large_batch_splitting = [true]",
    )


def _warmup(scenario: Scenario, section: ModelSection, info: ModelInfo) -> Iterator[Finding]:
    """Look at the requests that a model replays before it is available."""
    path = section.path / str(info.version) / WARMUP_FILE
    if not path.is_file():
        return
    try:
        rows = [_record_rows(record) for record in read_records(path)]
    except TunerError as error:
        yield of_error("warmup", error)
        return
    space = scenario.search.space
    largest, smallest_batch = max(rows, default=0), min(space.max_batch_size)
    if len(rows) > MAX_WARMUP_RECORDS:
        yield Finding(
            "warmup",
            "red",
            f"{path}: holds {len(rows):,} records; the server loads no model with more than "
            f"{MAX_WARMUP_RECORDS:,}",
            "keep one record for every batch size",
        )
        return
    if largest > smallest_batch and not all(space.enable_large_batch_splitting):
        yield Finding(
            "warmup",
            "yellow",
            f"{path}: has a request of {largest} rows, and the model does not load where "
            f"max_batch_size is smaller, such as {smallest_batch}",
            "take such sizes out of search.space.max_batch_size, or record smaller requests",
        )
        return
    wait_s = len(rows) * max(space.batch_timeout_micros) / 1e6
    if wait_s > scenario.server.start_timeout_s / 2:
        yield Finding(
            "warmup",
            "yellow",
            f"{path}: {len(rows)} records wait the batch timeout one after another, up to "
            f"{wait_s:.0f} s of server.start_timeout_s = {scenario.server.start_timeout_s:g}",
            "raise server.start_timeout_s, or keep fewer records",
        )
        return
    yield Finding("warmup", "green", f"{len(rows)} warm-up requests of up to {largest} rows")


def _record_rows(record: bytes) -> int:
    """Rows of one record's largest input; 0 for a record that is no Predict request."""
    protos.install()
    from google.protobuf.message import DecodeError  # noqa: PLC0415  see tuner.protos
    from tensorflow_serving.apis import prediction_log_pb2  # noqa: PLC0415

    try:
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
    except DecodeError:
        return 0
    sizes = [proto.tensor_shape.dim[0].size for proto in request.inputs.values()
             if proto.tensor_shape.dim]  # fmt: skip
    return max(sizes, default=0)
