"""Texts as operators meet them; doctor/test_live_checks.py meets those of a running server."""

import pytest

from tuner.server.known import recognise


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
        ("Unknown runtime specified nvidia: unknown or invalid runtime name: nvidia", "runtime"),
        ("bind source path does not exist: /no/such", "mount"),
        ("Requested CPUs are not available - requested 7, available: 0-1", "cpus"),
        ("Minimum memory limit allowed is 6MB", "memory-limit"),
        ("write /var/lib/docker/tmp/x: no space left on device", "disk"),
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


def test_what_is_not_known_is_none_of_these():
    assert recognise("the moon is full") is None


def test_an_engine_that_refuses_a_file_is_not_an_engine_that_may_not_be_used():
    text = "Docker refuses: error mounting /srv/model: permission denied"
    assert recognise(text) is None
