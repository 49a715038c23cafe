import pytest
from trials import DEFAULT, OFF, batched

from tuner.batching import BatchingParameters
from tuner.records import Config
from tuner.scenario import parse
from tuner.search.space import (
    SPLITTING,
    UNBOUNDED_QUEUE,
    Space,
    baselines,
    config_of,
    device_of,
    guide_points,
    linear,
    point_of,
    powers_of_two,
)

SPACE = Space(
    {
        "max_batch_size": (8, 32, 128),
        "batch_timeout_micros": (0, 1000, 5000),
        "num_batch_threads": (1, 2, 4),
        "allowed_batch_sizes": ("any", "powers_of_two"),
        "flag.tensorflow_intra_op_parallelism": (1, 2),
    }
)


def read(search, rows="1"):
    text = (
        f'name = "s"\n[model]\npath = "m"\nrows = {rows}\n[slo]\np99_ms = 50\n[search]\n{search}'
    )
    from pathlib import Path  # noqa: PLC0415

    return parse(text, Path("/s.toml"))


def test_the_space_is_the_scenarios():
    space = Space.of(
        read(
            "[search.space]\nmax_batch_size = [4, 8]\nbatch_timeout_micros = [0]\n"
            "num_batch_threads = [2]\nflags = { grpc_x = [true, false] }\n"
        )
    )
    assert space.size == 4
    assert space.choices["flag.grpc_x"] == (True, False)
    texts = {config_of(point).flags for point in space.points()}
    assert texts == {(("grpc_x", "true"),), (("grpc_x", "false"),)}


def test_points_and_configurations_are_one_to_one():
    points = list(SPACE.points())
    configs = [config_of(point) for point in points]
    assert len(points) == SPACE.size == len({config.id for config in configs})
    assert [point_of(config, SPACE) for config in configs] == points


def test_every_point_is_a_file_the_server_accepts():
    for point in SPACE.points():
        batching = config_of(point).batching
        batching.check()
        assert batching.max_enqueued_batches == UNBOUNDED_QUEUE


def test_what_lies_outside_has_no_point():
    assert point_of(OFF, SPACE) is None
    assert point_of(DEFAULT, SPACE) is None
    assert point_of(batched(8), SPACE) is None  # it says nothing of the flag


@pytest.mark.parametrize(
    ("limit", "sizes"),
    [(1, (1,)), (2, (1, 2)), (6, (1, 2, 4, 6)), (8, (1, 2, 4, 8)), (9, (1, 2, 4, 8, 9))],
)
def test_powers_of_two_end_with_the_limit(limit, sizes):
    assert powers_of_two(limit) == sizes
    BatchingParameters(max_batch_size=limit, allowed_batch_sizes=sizes).check()


@pytest.mark.parametrize(
    ("limit", "sizes"),
    [(1, (1,)), (3, (1, 2, 3)), (8, tuple(range(1, 9))), (64, tuple(range(8, 65, 8)))],
)
def test_a_linear_ladder_ends_with_the_limit(limit, sizes):
    assert linear(limit) == sizes
    BatchingParameters(max_batch_size=limit, allowed_batch_sizes=sizes).check()


def test_requests_larger_than_a_batch_are_split():
    text = "[search.space]\nmax_batch_size = [4, 32]\nbatch_timeout_micros = [0]\n"
    text += 'num_batch_threads = [1]\nallowed_batch_sizes = ["any", "powers_of_two", "linear"]\n'
    text += "enable_large_batch_splitting = [false, true]\n"
    space = Space.of(read(text, rows='{ "1" = 0.5, "10" = 0.5 }'))
    configs = [config_of(point) for point in space.points()]
    assert len({config.id for config in configs}) == space.size == 12
    assert [point_of(config, space) for config in configs] == list(space.points())
    for config in configs:
        config.batching.check()
        assert config.batching.row_limit in {4, 32}
    split = [config.batching for config in configs if config.batching.enable_large_batch_splitting]
    small = [item for item in split if item.max_execution_batch_size == 4]
    assert {item.max_batch_size for item in small} == {10}
    assert {item.allowed_batch_sizes for item in small} == {(), (1, 2, 4, 10), (1, 2, 3, 4, 10)}
    assert {item.max_batch_size for item in split if item not in small} == {32}


def test_nothing_is_split_unless_asked_for():
    assert SPLITTING not in Space.of(read("")).choices


def test_numbers_are_compared_by_ratio():
    near = SPACE.nearest({"max_batch_size": 70, "batch_timeout_micros": 2500})
    assert near["max_batch_size"] == 128  # 70 is 1.8 times below it and 2.2 times above 32
    assert near["batch_timeout_micros"] == 5000
    assert near["num_batch_threads"] == 1
    assert near["allowed_batch_sizes"] == "any"


def test_baselines_are_off_and_the_servers_own_defaults():
    (off, off_config), (default, default_config) = baselines(4)
    assert (off, off_config) == ("off", Config(None))
    assert default == "default"
    assert default_config.batching.to_dict() == {
        "max_batch_size": 1000,
        "batch_timeout_micros": 0,
        "max_enqueued_batches": 10,
        "num_batch_threads": 4,
    }


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_the_guides_points_lie_in_the_space_and_differ(device):
    points = guide_points(SPACE, device=device, cpus=2)
    assert len({config_of(point).id for point in points}) == len(points) >= 3
    assert all(point in list(SPACE.points()) for point in points)


def test_a_space_of_one_point_has_one_guide_point():
    one = Space({name: values[:1] for name, values in SPACE.choices.items()})
    assert guide_points(one, device="cpu", cpus=2) == tuple(one.points())


def test_a_gpu_starts_with_a_timeout_and_a_cpu_without():
    cpu, gpu = (guide_points(SPACE, device=device, cpus=2)[0] for device in ("cpu", "gpu"))
    assert (cpu["batch_timeout_micros"], gpu["batch_timeout_micros"]) == (0, 0)
    largest = [
        next(
            point["batch_timeout_micros"]
            for point in guide_points(SPACE, device=device, cpus=2)
            if point["num_batch_threads"] == 2
        )
        for device in ("cpu", "gpu")
    ]
    assert largest == [0, 5000]


def test_the_scenario_may_name_the_device():
    assert device_of(read('device = "gpu"\n')) == "gpu"
    assert device_of(read('device = "cpu"\n')) == "cpu"
