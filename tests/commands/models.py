"""SavedModels written by hand: enough to be read, not to be served."""

from pathlib import Path

from tuner import protos


def saved_model(version_dir: Path, *, first: int = -1) -> None:
    """Write a model with one signature whose input has `first` as its first dimension."""
    protos.install()
    from tensorflow.core.protobuf import saved_model_pb2  # noqa: PLC0415

    message = saved_model_pb2.SavedModel(saved_model_schema_version=1)
    graph = message.meta_graphs.add()
    graph.meta_info_def.tags.append("serve")
    signature = graph.signature_def["serving_default"]
    signature.method_name = "tensorflow/serving/predict"
    for tensors, name, width in ((signature.inputs, "x", 4), (signature.outputs, "y", 4)):
        tensors[name].name = f"{name}:0"
        tensors[name].dtype = 1
        for size in (first, width):
            tensors[name].tensor_shape.dim.add(size=size)
    version_dir.mkdir(parents=True)
    (version_dir / "saved_model.pb").write_bytes(message.SerializeToString())
