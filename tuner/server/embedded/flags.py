"""The command line of `tensorflow_model_server` (model_servers/main.cc)."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from tuner.errors import UsageError

CPUS = len(os.sched_getaffinity(0))
"""Schedulable processors. Like TensorFlow, this honours cpusets and ignores CPU quotas."""

_TRUE = frozenset({"true", "1", "yes", "on", ""})
_FALSE = frozenset({"false", "0", "no", "off"})


@dataclass(frozen=True, slots=True)
class Flags:
    """Every flag the server knows, with the server's own default.

    Flags in the last group are accepted and change nothing here.
    """

    port: int = 8500
    grpc_socket_path: str = ""
    rest_api_port: int = 0
    grpc_max_threads: int = 4 * CPUS
    model_name: str = "default"
    model_base_path: str = ""
    model_config_file: str = ""
    file_system_poll_wait_seconds: int = 1
    max_num_load_retries: int = 5
    load_retry_interval_micros: int = 60_000_000
    allow_version_labels_for_unavailable_models: bool = False
    saved_model_tags: str = "serve"
    enable_model_warmup: bool = True
    num_request_iterations_for_warmup: int = 0
    enable_batching: bool = False
    batching_parameters_file: str = ""
    enable_per_model_batching_parameters: bool = False
    tensorflow_session_parallelism: int = 0
    tensorflow_intra_op_parallelism: int = 0
    tensorflow_inter_op_parallelism: int = 0
    monitoring_config_file: str = ""
    grpc_channel_arguments: str = ""

    rest_api_num_threads: int = 4 * CPUS
    rest_api_timeout_in_ms: int = 30_000
    model_config_file_poll_wait_seconds: int = 0
    num_load_threads: int = 0
    num_unload_threads: int = 0
    flush_filesystem_caches: bool = True
    enable_profiler: bool = True
    enable_grpc_healthcheck_service: bool = False
    per_process_gpu_memory_fraction: float = 0.0
    remove_unused_fields_from_bundle_metagraph: bool = True
    prefer_tflite_model: bool = False
    num_tflite_pools: int = CPUS
    num_tflite_interpreters_per_pool: int = 1
    ssl_config_file: str = ""
    platform_config_file: str = ""
    tensorflow_session_config_file: str = ""
    thread_pool_factory_config_file: str = ""
    mixed_precision: str = ""
    xla_cpu_compilation_enabled: bool = False
    xla_gpu_compilation_enabled: bool = False
    enable_signature_method_name_check: bool = False

    @property
    def op_parallelism(self) -> tuple[int, int]:
        """Threads of the intra-op and inter-op pools; 0 is one per processor.

        Raises UsageError where all three flags are set, as the server does.
        """
        both = self.tensorflow_session_parallelism
        intra, inter = self.tensorflow_intra_op_parallelism, self.tensorflow_inter_op_parallelism
        if both > 0 and intra > 0 and inter > 0:
            raise UsageError(
                "Tensorflow session parallelism is configured by tensorflow_session_parallelism "
                "or by tensorflow_intra_op_parallelism and tensorflow_inter_op_parallelism. "
                "You cannot configure all."
            )
        return (intra, inter) if intra > 0 or inter > 0 else (both, both)

    def channel_argument(self, name: str, default: int) -> int:
        """One number of `grpc_channel_arguments`; of several of one name the last holds.

        Arguments that this server has no use for are passed over. Raises UsageError for an entry
        without a value, which TensorFlow Serving dies of.
        """
        found = default
        for entry in filter(None, self.grpc_channel_arguments.split(",")):
            key, equals, value = entry.partition("=")
            if not equals:
                raise UsageError(f"grpc_channel_arguments: {entry!r} is not name=value")
            if key == name and value.lstrip("-").isdigit():
                found = int(value)
        return found


def parse(arguments: Sequence[str]) -> tuple[Flags, list[str]]:
    """Read `--name=value` arguments; returns the flags and the arguments nobody knows.

    Raises UsageError where a known flag's value cannot be read.
    """
    kinds = {item.name: type(item.default) for item in fields(Flags)}
    values: dict[str, Any] = {}
    unknown = []
    for argument in arguments:
        name, equals, text = argument.removeprefix("--").partition("=")
        kind = kinds.get(name)
        if not argument.startswith("--") or kind is None or not (equals or kind is bool):
            unknown.append(argument)
            continue
        values[name] = _value(argument, kind, text)
    return Flags(**values), unknown


def _value(argument: str, kind: type, text: str) -> Any:
    try:
        if kind is bool:
            lowered = text.lower()
            return {**dict.fromkeys(_TRUE, True), **dict.fromkeys(_FALSE, False)}[lowered]
        return kind(text)
    except (ValueError, KeyError):
        raise UsageError(
            f"Couldn't interpret value of flag {argument}: not a {kind.__name__}"
        ) from None
