"""The snippets, read back by what will read them: a shell, a CSV reader, YAML."""

import csv
import json
import subprocess
from dataclasses import replace

import pytest
import yaml

from tuner.deploy import (
    DeployedModel,
    Deployment,
    Mount,
    compose,
    docker_run,
    kubernetes,
    snippets,
)

FLAGS = {
    "enable_batching": "true",
    "batching_parameters_file": "batching_parameters.txt",
    "grpc_max_threads": "1096",
}
PLAIN = Deployment(
    name="my model",
    image="tensorflow/serving:2.20.0-gpu",
    flags=FLAGS,
    models=(DeployedModel("resnet", "/srv/models/resnet"),),
)
NASTY = """/srv/it's "a", $HOME `id` $(id) #x: ü\\"""


def words(deployment):
    """The options and the server's arguments, as a real shell passes them to `docker`."""
    script = 'docker() { printf "%s\\0" "$@"; }\n' + docker_run(deployment)
    done = subprocess.run(["sh", "-eu", "-c", script], cwd="/usr", capture_output=True, check=True)
    split = done.stdout.decode().split("\0")[:-1]
    assert split[:2] == ["run", "--detach"]
    at = split.index(deployment.image)
    options = [word.partition("=") for word in split[2:at]]
    return [(name, value) for name, _, value in options], split[at + 1 :]


def mounts(deployment):
    found = {}
    for name, value in words(deployment)[0]:
        if name == "--mount":
            (fields,) = csv.reader([value])
            parts = dict(field.partition("=")[::2] for field in fields)
            assert parts["type"] == "bind"
            assert "readonly" in parts
            found[parts["target"]] = parts["source"]
    return found


def service(deployment):
    read = yaml.safe_load(compose(deployment))
    return read["services"]["tensorflow-serving"]


def pod(deployment):
    read = yaml.safe_load(kubernetes(deployment))
    (container,) = read["containers"]
    return container, {volume["name"]: volume for volume in read["volumes"]}


ARGUMENTS = [
    "--port=8500",
    "--rest_api_port=8501",
    "--model_name=resnet",
    "--model_base_path=/models/resnet",
    "--enable_batching=true",
    "--batching_parameters_file=/config/batching_parameters.txt",
    "--grpc_max_threads=1096",
]


def test_docker_run_starts_the_server_itself_with_every_flag():
    options, argv = words(PLAIN)
    assert argv == ARGUMENTS
    assert ("--entrypoint", "tensorflow_model_server") in options
    assert ("--publish", "8500:8500") in options
    assert ("--name", "my-model") in options
    assert mounts(PLAIN) == {"/models/resnet": "/srv/models/resnet", "/config": "/usr"}


def test_compose_says_the_same():
    read = service(PLAIN)
    assert read["image"] == PLAIN.image
    assert read["entrypoint"] == ["tensorflow_model_server"]
    assert read["command"] == ARGUMENTS
    assert read["ports"] == ["8500:8500", "8501:8501"]
    assert [(item["source"], item["target"], item["read_only"]) for item in read["volumes"]] == [
        ("/srv/models/resnet", "/models/resnet", True),
        (".", "/config", True),
    ]


def test_kubernetes_says_the_same():
    container, volumes = pod(PLAIN)
    assert container["command"] == ["tensorflow_model_server"]
    assert container["args"] == ARGUMENTS
    assert container["readinessProbe"] == {"tcpSocket": {"port": "grpc"}}
    mounted = {item["mountPath"]: volumes[item["name"]] for item in container["volumeMounts"]}
    assert mounted["/models/resnet"]["hostPath"]["path"] == "/srv/models/resnet"
    assert mounted["/config"]["configMap"]["name"] == "my-model-config"
    assert "kubectl create configmap my-model-config --from-file=batching_parameters.txt\n" in (
        kubernetes(PLAIN)
    )


def test_batching_off_reads_no_file():
    off = replace(PLAIN, flags={"enable_batching": "false", "grpc_max_threads": "1096"})
    assert mounts(off) == {"/models/resnet": "/srv/models/resnet"}
    assert [item["target"] for item in service(off)["volumes"]] == ["/models/resnet"]
    container, volumes = pod(off)
    assert list(volumes) == ["volume-0"]
    assert "--enable_batching=false" in container["args"]
    assert "configmap" not in kubernetes(off)


def test_several_models_go_through_their_file():
    both = replace(
        PLAIN,
        flags={**FLAGS, "model_config_file": "models.config"},
        models=(DeployedModel("a", "/srv/a"), DeployedModel("b", "/srv/b")),
    )
    for argv in (words(both)[1], service(both)["command"], pod(both)[0]["args"]):
        assert "--model_config_file=/config/models.config" in argv
        assert not [item for item in argv if item.startswith(("--model_name", "--model_base"))]
    assert mounts(both) == {
        "/models/a": "/srv/a",
        "/models/b": "/srv/b",
        "/config": "/usr",
    }
    assert "--from-file=models.config" in kubernetes(both)


@pytest.mark.parametrize(
    ("gpus", "option", "request_", "count"),
    [
        ("device=0", "device=0", {"device_ids": ["0"]}, 1),
        ("device=0,2", '"device=0,2"', {"device_ids": ["0", "2"]}, 2),
        ("all", "all", {"count": "all"}, 1),
        ("2", "2", {"count": 2}, 2),
    ],
)
def test_gpus_are_asked_for_as_each_tool_does(gpus, option, request_, count):
    asked = replace(PLAIN, gpus=gpus, runtime="nvidia")
    assert ("--gpus", option) in words(asked)[0]
    assert ("--runtime", "nvidia") in words(asked)[0]
    (device,) = service(asked)["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "capabilities": ["gpu"], **request_}
    assert service(asked)["runtime"] == "nvidia"
    assert pod(asked)[0]["resources"]["limits"] == {"nvidia.com/gpu": count}
    assert yaml.safe_load(kubernetes(asked))["runtimeClassName"] == "nvidia"


def test_the_processors_are_those_it_was_measured_on():
    some = replace(PLAIN, cpus=(1, 2, 3, 6))
    assert ("--cpuset-cpus", "1-3,6") in words(some)[0]
    assert service(some)["cpuset"] == "1-3,6"
    assert pod(some)[0]["resources"] == {"requests": {"cpu": 4}, "limits": {"cpu": 4}}


def test_a_pods_quota_is_said_in_threads_unless_flags_say_it():
    some = replace(PLAIN, cpus=(1, 2, 3))
    assert "--tensorflow_session_parallelism=3" in pod(some)[0]["args"]
    fixed = replace(some, flags={**FLAGS, "tensorflow_intra_op_parallelism": "1"})
    assert not [item for item in pod(fixed)[0]["args"] if "session_parallelism" in item]
    assert "--tensorflow_intra_op_parallelism=1" in pod(fixed)[0]["args"]


@pytest.mark.parametrize(
    ("docker", "kubernetes_"), [("4g", "4Gi"), ("512MB", "512Mi"), ("1024", "1024"), ("8b", "8")]
)
def test_memory_in_each_tools_units(docker, kubernetes_):
    limited = replace(PLAIN, memory=docker)
    assert ("--memory", docker) in words(limited)[0]
    assert service(limited)["mem_limit"] == docker
    assert pod(limited)[0]["resources"]["limits"]["memory"] == kubernetes_


def test_the_environment_is_passed_on():
    with_env = replace(PLAIN, environment={"TF_CPP_MIN_LOG_LEVEL": "1", "X": "a b"})
    assert ("--env", "X=a b") in words(with_env)[0]
    assert service(with_env)["environment"] == {"TF_CPP_MIN_LOG_LEVEL": "1", "X": "a b"}
    assert {"name": "X", "value": "a b"} in pod(with_env)[0]["env"]


def test_whatever_a_path_or_a_flag_holds_comes_out_as_it_went_in():
    nasty = replace(
        PLAIN,
        models=(DeployedModel("m", NASTY),),
        flags={**FLAGS, "grpc_channel_arguments": f"grpc.a={NASTY}"},
        environment={"X": NASTY},
    )
    argument = f"--grpc_channel_arguments=grpc.a={NASTY}"
    options, argv = words(nasty)
    assert argument in argv
    assert ("--env", f"X={NASTY}") in options
    assert mounts(nasty)["/models/m"] == NASTY

    read = service(nasty)  # Compose reads `$$` as one dollar
    assert argument in [item.replace("$$", "$") for item in read["command"]]
    assert "$H" not in "".join(read["command"]).replace("$$", "")
    assert read["volumes"][0]["source"].replace("$$", "$") == NASTY

    container, volumes = pod(nasty)  # Kubernetes reads `$$(` as `$(`
    assert argument in [item.replace("$$(", "$(") for item in container["args"]]
    assert volumes["volume-0"]["hostPath"]["path"] == NASTY


def test_a_model_beside_the_run_is_found_from_it():
    beside = replace(PLAIN, models=(DeployedModel("m", "../../models/it's m"),))
    assert mounts(beside)["/models/m"] == "/usr/../../models/it's m"
    assert service(beside)["volumes"][0]["source"] == "../../models/it's m"
    assert pod(beside)[1]["volume-0"]["hostPath"]["path"] == "/models/m"


def test_further_mounts_come_along():
    more = replace(PLAIN, mounts=(Mount("/srv/vocabulary", "/data"), Mount("/var/c", "/c", True)))
    found = [value for name, value in words(more)[0] if name == "--mount"]
    assert "type=bind,source=/srv/vocabulary,target=/data,readonly" in found
    assert "type=bind,source=/var/c,target=/c" in found
    assert {item["target"]: item["read_only"] for item in service(more)["volumes"]} == {
        "/models/resnet": True,
        "/data": True,
        "/c": False,
        "/config": True,
    }
    container, volumes = pod(more)
    assert {item["mountPath"]: item["readOnly"] for item in container["volumeMounts"]}[
        "/c"
    ] is False
    assert volumes["volume-2"]["hostPath"]["path"] == "/var/c"


def test_the_recommendation_says_all_that_the_snippets_need():
    whole = replace(PLAIN, cpus=(1,), gpus="all", mounts=(Mount("/a", "/b"),))
    described = json.loads(json.dumps(whole.to_dict()))
    found = snippets({"deployment": described})
    assert [snippet.name for snippet in found] == ["docker", "compose", "kubernetes"]
    assert found[0].text == docker_run(whole)
    assert all("batching_parameters.txt lies: in the run's directory" in s.note for s in found)


def test_an_image_that_was_not_measured_is_said_to_be_none():
    described = replace(PLAIN, measured_image=False).to_dict()
    assert all("was not what was measured" in s.note for s in snippets({"deployment": described}))


def test_a_recommendation_of_an_older_tuner_has_no_snippets():
    assert snippets({"flags": FLAGS}) == ()
    assert snippets({}) == ()
