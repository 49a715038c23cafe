import pytest

from tuner.errors import UsageError
from tuner.server.embedded.flags import CPUS, Flags, parse


def test_values_booleans_and_what_nobody_knows():
    flags, unknown = parse(
        ["--port=9000", "--enable_batching", "--enable_model_warmup=false", "--x=1", "--port", "y"]
    )
    assert (flags.port, flags.enable_batching, flags.enable_model_warmup) == (9000, True, False)
    assert unknown == ["--x=1", "--port", "y"]
    assert flags.grpc_max_threads == 4 * CPUS


@pytest.mark.parametrize("argument", ["--port=x", "--enable_batching=maybe"])
def test_values_that_cannot_be_read(argument):
    with pytest.raises(UsageError, match=argument):
        parse([argument])


@pytest.mark.parametrize(
    ("both", "intra", "inter", "expected"),
    [(0, 0, 0, (0, 0)), (2, 0, 0, (2, 2)), (2, 1, 0, (1, 0)), (0, 1, 3, (1, 3))],
)
def test_op_parallelism(both, intra, inter, expected):
    flags = Flags(
        tensorflow_session_parallelism=both,
        tensorflow_intra_op_parallelism=intra,
        tensorflow_inter_op_parallelism=inter,
    )
    assert flags.op_parallelism == expected


def test_all_three_parallelism_flags():
    flags = Flags(
        tensorflow_session_parallelism=1,
        tensorflow_intra_op_parallelism=1,
        tensorflow_inter_op_parallelism=1,
    )
    with pytest.raises(UsageError, match="You cannot configure all"):
        _ = flags.op_parallelism
