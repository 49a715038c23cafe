"""Configurations taken up by a running server: what changes, what does not, and what ends it."""

import os
import signal
import sys
from dataclasses import replace

import pytest
from containers import EMBEDDED_IMAGE, FAKE, scenario_lines
from server.test_launchers import BATCHED, nothing_is_left_behind, scenario  # noqa: F401

from tuner.errors import CandidateError, HostError
from tuner.load.payload import MixPart, build_pool
from tuner.load.pool import RequestPool
from tuner.load.probe import ask
from tuner.model import inspect
from tuner.records import Config
from tuner.server.containers.launcher import open_docker
from tuner.server.keeper import ServerKeeper, kept_scenario, restart_key
from tuner.server.process import ProcessLauncher, embedded
from tuner.server.versions import VersionFolders
from tuner.wiring.bench import elsewhere

WIDE = Config(replace(BATCHED.batching, max_batch_size=16))
TWO_THREADS = Config(replace(BATCHED.batching, num_batch_threads=2))
SERVING = ["embedded", pytest.param("docker", marks=pytest.mark.docker)]
CPUS = frozenset({max(os.sched_getaffinity(0))})


def keeper_of(launcher, folder, told=None):
    folders = VersionFolders(folder / "versions", launcher.scenario.served)
    return ServerKeeper(
        cold=launcher,
        warm=replace(
            launcher,
            scenario=kept_scenario(launcher.scenario, folders, elsewhere=elsewhere(launcher)),
        ),
        folders=folders,
        timeout_s=30.0,
        notify=(told if told is not None else []).append,
    )


@pytest.fixture
def affine(exported, tmp_path):
    """A model of one version, linked to what was exported, as a directory of models may be."""
    base = tmp_path / "models" / "affine"
    base.mkdir(parents=True)
    (base / "1").symlink_to(exported / "affine" / "1")
    return base


@pytest.fixture(params=SERVING)
def keeper(request, affine, tmp_path):
    if request.param == "docker":
        request.getfixturevalue("docker_engine")
        lines = scenario_lines(EMBEDDED_IMAGE)
        launcher = open_docker(scenario(affine, lines), CPUS, lambda _text: None)
    else:
        launcher = embedded(scenario(affine), CPUS)
    keeper = keeper_of(launcher, tmp_path)
    yield keeper
    keeper.close()


@pytest.fixture
def messages(affine, tmp_path):
    """Requests of 1 and of 16 rows."""
    part = MixPart(
        model="affine",
        signature=inspect(affine).signature("serving_default"),
        version=None,
        version_label=None,
        weight=1.0,
        rows={1: 0.5, 16: 0.5},
        inputs=None,
        dims={},
    )
    path = tmp_path / "requests.pool"
    build_pool([part], seed=1).save(path)
    pool = RequestPool.load(path)
    return {rows: pool.of_rows(rows)[0] for rows in (1, 16)}


@pytest.mark.slow
def test_a_configuration_is_swapped_in_and_the_old_one_is_gone(keeper, messages, tmp_path):
    keeper.starts_s.append(600.0)  # as a GPU server's; a start here may cost less than a swap
    with keeper.launch(BATCHED, tmp_path / "0") as server:
        first = server.endpoint
        assert not first.swapped
        assert ask(first.address, messages[1]).version == 1
        assert (
            "larger than maximum input batch size 8"
            in ask(first.address, messages[16]).status.text
        )
    with keeper.launch(WIDE, tmp_path / "1") as server:
        second = server.endpoint
        assert second.swapped
        assert second.pid == first.pid
        assert second.start_s < 10
        answer = ask(second.address, messages[16])
        assert (answer.status.code, answer.version, second.version) == ("OK", 2, 2)
        assert not (tmp_path / "versions" / "affine" / "1").exists()
        assert server.scrape() is not None
    log = (tmp_path / "1" / "server.log").read_text()
    assert "Successfully loaded servable version {name: affine version: 2}" in log
    assert "version: 1} successfully" not in log
    with keeper.launch(TWO_THREADS, tmp_path / "2") as server:
        assert not server.endpoint.swapped
        assert server.endpoint.pid != first.pid
    assert (len(keeper.starts_s[1:]), len(keeper.swaps_s)) == (2, 1)
    keeper.close()
    assert not (tmp_path / "versions").exists()


@pytest.mark.slow
def test_a_version_that_cannot_be_loaded_is_the_candidates_and_the_next_starts_afresh(
    affine, exported, tmp_path
):
    keeper = keeper_of(embedded(scenario(affine), CPUS), tmp_path)
    try:
        with keeper.launch(BATCHED, tmp_path / "0"):
            pass
        (affine / "2").mkdir()  # what links to it is no SavedModel
        with (
            pytest.raises(CandidateError, match="refused the configuration"),
            keeper.launch(WIDE, tmp_path / "1"),
        ):
            pytest.fail("it was taken for ready")
        (affine / "2").rmdir()
        with keeper.launch(WIDE, tmp_path / "2") as server:
            assert not server.endpoint.swapped
        os.kill(server.endpoint.pid, signal.SIGKILL)
        with (
            pytest.raises(CandidateError, match="died while it served"),
            keeper.launch(BATCHED, tmp_path / "3"),
        ):
            pytest.fail("it was taken for ready")
        with keeper.launch(BATCHED, tmp_path / "4") as server:
            server.check()
    finally:
        keeper.close()


def fake_keeper(how, tmp_path, told):
    (tmp_path / "m" / "1").mkdir(parents=True)
    command = (sys.executable, str(FAKE), how)
    return keeper_of(ProcessLauncher(scenario(tmp_path / "m"), "binary", command), tmp_path, told)


def test_a_server_too_old_for_it_is_started_for_every_trial(tmp_path):
    told = []
    keeper = fake_keeper("is-older", tmp_path, told)
    for trial in ("0", "1"):
        with keeper.launch(BATCHED, tmp_path / trial) as server:
            assert not server.endpoint.swapped
            flags = dict(server.endpoint.flags)
            assert "enable_per_model_batching_parameters" not in flags
    assert told == ["this server is older than 2.11: every trial starts its own"]


def test_another_refusal_is_not_hidden(tmp_path):
    keeper = fake_keeper("knows-not-a-flag", tmp_path, [])
    with pytest.raises(HostError, match="grpc_z"), keeper.launch(BATCHED, tmp_path / "0"):
        pytest.fail("it was taken for ready")


def test_swaps_end_where_they_cost_more_than_starts(tmp_path):
    keeper = fake_keeper("serves", tmp_path, [])
    assert keeper.worth_it
    keeper.starts_s, keeper.swaps_s = [1.0, 1.2], [0.9]
    assert keeper.worth_it
    keeper.swaps_s = [0.9, 1.3, 1.4]
    assert not keeper.worth_it
    with keeper.launch(BATCHED, tmp_path / "0") as server:
        assert dict(server.endpoint.flags)["model_base_path"] == str(tmp_path / "m")


def test_batching_off_starts_cold_and_ends_what_was_kept(tmp_path):
    keeper = fake_keeper("serves", tmp_path, [])
    with keeper.launch(BATCHED, tmp_path / "0") as kept:
        pass
    kept.check()
    with keeper.launch(Config(None), tmp_path / "1") as server:
        assert "enable_batching" not in dict(server.endpoint.flags)
        with pytest.raises(CandidateError):
            kept.check()


def test_what_fails_in_a_trial_ends_the_server(tmp_path):
    keeper = fake_keeper("serves", tmp_path, [])
    with pytest.raises(ZeroDivisionError), keeper.launch(BATCHED, tmp_path / "0") as kept:
        _ = 1 / 0
    with pytest.raises(CandidateError):
        kept.check()


def test_only_threads_and_flags_need_a_restart():
    assert restart_key(BATCHED) == restart_key(WIDE)
    assert restart_key(BATCHED) != restart_key(TWO_THREADS)
    assert restart_key(BATCHED) != restart_key(replace(BATCHED, flags=(("a", "1"),)))


def test_a_version_is_links_and_its_own_file(tmp_path):
    source = tmp_path / "m" / "3"
    (source / "variables").mkdir(parents=True)
    (source / "saved_model.pb").write_text("x")
    (tmp_path / "m" / "2").mkdir()
    folders = VersionFolders(tmp_path / "versions", scenario(tmp_path / "m").served)
    folders.publish(7, "max_batch_size { value: 8 }")
    made = tmp_path / "versions" / "m" / "7"
    assert {entry.name for entry in made.iterdir()} == {
        "batching_params.pbtxt",
        "saved_model.pb",
        "variables",
    }
    assert (made / "variables").readlink() == source / "variables"
    assert [entry.name for entry in (tmp_path / "versions" / "m").iterdir()] == ["7"]
    folders.remove(7)
    assert not made.exists()
    assert source.exists()
