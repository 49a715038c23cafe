"""Flags of the server in a scenario: which are the tuner's own, which values it would die of."""

import re
from collections.abc import Iterable, Mapping

Flag = str | bool | int | float
FLAG_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")

OWN_FLAGS = {
    "port": "every start gets a fresh port",
    "rest_api_port": "every start gets a fresh port",
    "grpc_socket_path": "the server is asked through its port",
    "model_name": "set model.name",
    "model_base_path": "set model.path",
    "model_config_file": "list the models as [[models]]",
    "enable_batching": "the tuner decides on it",
    "batching_parameters_file": "the tuner writes it",
    "monitoring_config_file": "the tuner writes it",
}
"""Server flags that the tuner sets itself, and where a user says the same thing."""


OP_THREADS = (
    "tensorflow_session_parallelism",
    "tensorflow_intra_op_parallelism",
    "tensorflow_inter_op_parallelism",
)
"""Flags that size TensorFlow's thread pools; the first sets both of the others."""


def check_flags(flags: Mapping[str, Iterable[Flag]]) -> None:
    """Refuse flags that are ours to set, and values that the server would die of."""
    for name, values in flags.items():
        if name.startswith("-"):
            raise ValueError(f"{name}: write the flag's name without dashes")
        if not FLAG_NAME.fullmatch(name):
            raise ValueError(f"{name!r}: not the name of a flag")
        if name in OWN_FLAGS:
            raise ValueError(f"{name}: {OWN_FLAGS[name]}")
        if name == "grpc_channel_arguments":
            for value in values:
                _check_channel_arguments(str(value))


def _check_channel_arguments(text: str) -> None:
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not (key.strip() and equals and value.strip()):
            raise ValueError(
                f'grpc_channel_arguments: "{part}" is no argument, and the server dies of it; '
                'write "grpc.max_concurrent_streams=1000", several joined by commas'
            )


def check_thread_pools(flags: Mapping[str, Iterable[Flag]]) -> None:
    """Refuse all flags of TensorFlow's thread pools together, as the server does."""
    if all(any(_is_positive(value) for value in flags.get(name, ())) for name in OP_THREADS):
        raise ValueError(
            f"the server refuses {', '.join(OP_THREADS)} together; leave out the first, or "
            "the other two"
        )


def _is_positive(value: Flag) -> bool:
    try:
        return float(value) > 0
    except ValueError:
        return False
