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


def test_channel_arguments_by_name():
    flags = Flags(grpc_channel_arguments="grpc.so_reuseport=0,grpc.x=5,grpc.x=-1,grpc.y=text")
    assert flags.channel_argument("grpc.x", 9) == -1
    assert flags.channel_argument("grpc.y", 9) == 9
    assert flags.channel_argument("grpc.z", 9) == 9
    assert Flags().channel_argument("grpc.x", 9) == 9


def test_a_channel_argument_without_a_value():
    with pytest.raises(UsageError, match=r"'grpc\.x' is not name=value"):
        Flags(grpc_channel_arguments="grpc.a=1,grpc.x").channel_argument("grpc.a", 0)
