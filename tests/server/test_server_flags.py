from dataclasses import replace
from pathlib import Path

import pytest

from tuner.batching import BatchingParameters
from tuner.deploy import Mount
from tuner.errors import BatchingError
from tuner.records import Config, ServerIdentity
from tuner.scenario import parse
from tuner.server.deployed import deployed_models_text, deployment
from tuner.server.flags import (
    GRPC_THREAD_MARGIN,
    argv,
    deployed_flags,
    model_config_text,
    server_flags,
    write_files,
)

BATCHED = Config(BatchingParameters(max_batch_size=8, num_batch_threads=1), (("z_flag", "2"),))
ONE = '[model]\npath = "/models/m"\n'
TWO = '[[models]]\npath = "/models/a"\nversion = 3\n[[models]]\npath = "/models/b"\n'
AGAIN = '[[models]]\npath = "/models/a"\nversion = 1\n'


def scenario(models=ONE, rest=""):
    return parse(f'name = "s"\n{models}[slo]\np99_ms = 50\n{rest}', Path("/s.toml"))


def flags_of(asked, config, folder):
    files = write_files(asked, config, folder)
    return server_flags(asked, config, files, port=1111, rest_port=2222)


def test_the_flags_of_one_model(tmp_path):
    flags = flags_of(scenario(), BATCHED, tmp_path)
    assert flags == {
        "port": "1111",
        "rest_api_port": "2222",
        "model_name": "m",
        "model_base_path": "/models/m",
        "monitoring_config_file": str(tmp_path / "monitoring.txt"),
        "enable_batching": "true",
        "batching_parameters_file": str(tmp_path / "batching_parameters.txt"),
        "max_num_load_retries": "0",
        "file_system_poll_wait_seconds": "0",
        "grpc_max_threads": str(1024 + 64 + GRPC_THREAD_MARGIN),
        "grpc_channel_arguments": "grpc.so_reuseport=0",
        "z_flag": "2",
    }
    path = tmp_path / "batching_parameters.txt"
    assert BatchingParameters.from_file(path) == BATCHED.batching


def test_batching_off_names_no_file(tmp_path):
    flags = flags_of(scenario(), Config(None), tmp_path)
    assert not {"enable_batching", "batching_parameters_file"} & set(flags)
    assert not (tmp_path / "batching_parameters.txt").exists()


def test_several_models_go_through_a_file(tmp_path):
    from google.protobuf import text_format  # noqa: PLC0415  after tuner.protos, as in the code

    asked = scenario(TWO + AGAIN)
    flags = flags_of(asked, Config(None), tmp_path)
    assert "model_name" not in flags
    text = Path(flags["model_config_file"]).read_text()
    assert text == model_config_text(asked.served)

    from tensorflow_serving.config import model_server_config_pb2  # noqa: PLC0415

    message = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    found = {
        (item.name, item.base_path, tuple(item.model_version_policy.specific.versions))
        for item in message.model_config_list.config
    }
    assert found == {("a", "/models/a", (1, 3)), ("b", "/models/b", ())}


def test_a_version_goes_through_a_file_too(tmp_path):
    assert "model_config_file" in flags_of(scenario(ONE + "version = 2\n"), Config(None), tmp_path)


def model_configs(text):
    from google.protobuf import text_format  # noqa: PLC0415  after tuner.protos, as in the code
    from tensorflow_serving.config import model_server_config_pb2  # noqa: PLC0415

    message = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    return {item.name: item for item in message.model_config_list.config}


def test_version_policies_and_labels_go_through_the_file(tmp_path):
    models = (
        '[[models]]\npath = "/models/a"\nversions = "all"\nversion_labels = { stable = 1 }\n'
        'version_label = "stable"\n[[models]]\npath = "/models/a"\nversion = 2\n'
        '[[models]]\npath = "/models/b"\nversions = [7, 5]\n'
    )
    asked = scenario(models)
    flags = flags_of(asked, Config(None), tmp_path)
    found = model_configs(Path(flags["model_config_file"]).read_text())
    assert found["a"].model_version_policy.WhichOneof("policy_choice") == "all"
    assert dict(found["a"].version_labels) == {"stable": 1}
    assert list(found["b"].model_version_policy.specific.versions) == [5, 7]
    assert flags["allow_version_labels_for_unavailable_models"] == "true"
    deployed = deployed_flags(asked, Config(None))
    assert deployed["model_config_file"] == "models.config"
    assert deployed["allow_version_labels_for_unavailable_models"] == "true"


def test_a_container_sees_models_at_its_own_paths():
    found = model_configs(deployed_models_text(scenario(TWO)))
    assert {name: item.base_path for name, item in found.items()} == {
        "a": "/models/a",
        "b": "/models/b",
    }
    elsewhere = scenario(TWO.replace("/models/", "/srv/"))
    assert deployed_models_text(elsewhere) == deployed_models_text(scenario(TWO))
    assert deployed_models_text(scenario()) is None


def test_grpc_max_threads_may_be_the_users():
    rest = "[server.flags]\ngrpc_max_threads = 64\n"
    assert deployed_flags(scenario(rest=rest), BATCHED)["grpc_max_threads"] == "64"


@pytest.mark.parametrize(
    ("server", "image", "measured"),
    [
        (ServerIdentity("embedded", "tuner 0.1.0"), "tensorflow/serving:2.20.0", False),
        (
            ServerIdentity("binary", "TensorFlow ModelServer: 2.19.1-rc0+dev.sha.no_git"),
            "tensorflow/serving:2.19.1",
            False,
        ),
        (ServerIdentity("docker", "2.19.0", "my/image:1", "sha256:1"), "my/image:1", True),
    ],
)
def test_the_deployed_image_is_the_measured_one_or_its_like(server, image, measured):
    found = deployment(scenario(), BATCHED, server, Path("/runs/1"), cpus=(3, 1))
    assert (found.image, found.measured_image) == (image, measured)
    assert found.cpus == (1, 3)
    assert [(model.name, model.path) for model in found.models] == [("m", "/models/m")]


def test_what_a_container_was_given_is_deployed_too():
    rest = (
        '[server]\nlauncher = "docker"\nimage = "my/image:1"\ngpus = 2\nruntime = "nvidia"\n'
        'memory = "4g"\nenv = { A = "b" }\nmounts = ["/data:/data", "/cache:/c:rw"]\n'
    )
    server = ServerIdentity("docker", "2.19.0", "my/image:1", "sha256:1")
    found = deployment(scenario(rest=rest), BATCHED, server, Path("/runs/1"))
    assert (found.image, found.measured_image) == ("my/image:1", True)
    assert (found.gpus, found.runtime, found.memory) == ("2", "nvidia", "4g")
    assert found.environment == {"A": "b"}
    assert found.mounts == (Mount("/data", "/data"), Mount("/cache", "/c", writable=True))


def test_a_model_of_our_own_is_named_from_the_run():
    asked = scenario('[model]\npath = "/here/models/d"\nbuiltin = "dense-2048x4"\n')
    server = ServerIdentity("embedded", "tuner 0.1.0")
    found = deployment(asked, BATCHED, server, Path("/here/results/1"))
    assert [model.path for model in found.models] == ["../../models/d"]


def test_the_users_flags_come_last_and_join_our_channel_arguments(tmp_path):
    rest = (
        "[server.flags]\ngrpc_channel_arguments = 'grpc.max_concurrent_streams=9'\n"
        "max_num_load_retries = 3\nprefer_tflite_model = false\n"
    )
    flags = flags_of(scenario(rest=rest), BATCHED, tmp_path)
    joined = "grpc.so_reuseport=0,grpc.max_concurrent_streams=9"
    assert flags["grpc_channel_arguments"] == joined
    assert flags["max_num_load_retries"] == "3"
    assert flags["prefer_tflite_model"] == "false"


def test_what_must_be_deployed_names_no_path_and_no_port():
    rest = "[server.flags]\ntensorflow_intra_op_parallelism = 1\n"
    flags = deployed_flags(scenario(rest=rest), BATCHED)
    assert flags == {
        "enable_batching": "true",
        "batching_parameters_file": "batching_parameters.txt",
        "grpc_max_threads": str(1024 + 64 + GRPC_THREAD_MARGIN),
        "tensorflow_intra_op_parallelism": "1",
        "z_flag": "2",
    }
    assert deployed_flags(scenario(rest=rest), Config(None)) == {
        "enable_batching": "false",
        "grpc_max_threads": str(1024 + 64 + GRPC_THREAD_MARGIN),
        "tensorflow_intra_op_parallelism": "1",
    }


def test_values_follow_an_equals_sign():
    assert argv({"port": "1", "enable_batching": "true"}) == ["--port=1", "--enable_batching=true"]


def test_a_file_the_server_would_punish_is_not_written(tmp_path):
    bad = Config(replace(BATCHED.batching, num_batch_threads=0))
    with pytest.raises(BatchingError, match="num_batch_threads = 0"):
        write_files(scenario(), bad, tmp_path)
    assert list(tmp_path.iterdir()) == []
