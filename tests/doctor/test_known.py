"""Texts as operators meet them; those of a running server are met in test_live_checks.py."""

import pytest

from tuner.doctor.finding import of_error, worst
from tuner.doctor.known import recognise
from tuner.errors import CandidateError, HostError


@pytest.mark.parametrize(
    ("text", "check"),
    [
        (
            "permission denied while trying to connect to the Docker daemon socket at "
            "unix:///var/run/docker.sock",
            "engine-permission",
        ),
        (
            "Error while fetching server API version: ('Connection aborted.', "
            "PermissionError(13, 'Permission denied')) docker",
            "engine-permission",
        ),
        (
            "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker "
            "daemon running?",
            "engine",
        ),
        (
            'docker: Error response from daemon: could not select device driver "" with '
            "capabilities: [[gpu]].",
            "gpu-toolkit",
        ),
        (
            "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.5, please "
            "update your driver to a newer version",
            "gpu-driver",
        ),
        ("CUDA driver version is insufficient for CUDA runtime version", "gpu-driver"),
        ("kernel driver does not appear to be running: No /dev/nvidia* exist", "gpu-devices"),
        ("pull access denied for tensorflow/servng, repository does not exist", "image"),
        (
            'server.image: "x:1" is not on this engine and cannot be pulled: Docker refuses: Get '
            '"https://registry.invalid/v2/": dial tcp: lookup registry.invalid: no such host',
            "registry",
        ),
        ('server.image: "x" is not on this engine and cannot be pulled: denied', "image"),
        ("manifest for tensorflow/serving:9.9.9 not found: manifest unknown", "image"),
        ("Bind for 127.0.0.1:8500 failed: port is already allocated", "port"),
        (
            "FileSystemStoragePathSource ... Could not find base path /m for servable m",
            "model-path",
        ),
        ("NOT_FOUND: Servable not found for request: Latest(mask)", "model-name"),
        ("received message larger than max (4195017 vs. 4194304)", "message-size"),
        ("RESOURCE_EXHAUSTED: Server Threadpool Exhausted", "thread-cap"),
        ("Task size 33 is larger than maximum input batch size 32", "batch-too-small"),
        ("unknown argument: --enable_batchin=true", "flag"),
        ("CUDA_ERROR_OUT_OF_MEMORY: out of memory", "memory"),
        ("failed to connect to all addresses", "unavailable"),
        (
            "UNAVAILABLE: The batch scheduling queue to which this task was submitted is full; "
            "currently 1 batches enqueued",
            "queue-full",
        ),
    ],
)
def test_errors_are_recognised_and_have_a_remedy(text, check):
    known = recognise(text)
    assert known.check == check
    assert known.what
    assert known.remedy


def test_what_is_not_known_is_left_as_it_is():
    assert recognise("the moon is full") is None
    found = of_error("x", HostError("the moon is full", hint="wait"))
    assert (found.check, found.what, found.remedy) == ("x", "the moon is full", "wait")


def test_a_servers_log_tells_what_its_error_does_not():
    error = CandidateError("it died", log_tail="... Could not find base path /m ...")
    found = of_error("server", error)
    assert (found.check, found.light) == ("model-path", "red")
    assert found.what.endswith(": it died")
    assert "/m" in found.detail


def test_the_worst_light_of_many():
    assert worst([]) == "green"
    red = of_error("x", HostError("y"))
    assert worst([red]) == "red"
