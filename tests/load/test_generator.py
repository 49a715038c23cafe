import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent import futures
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest

from tuner import protos
from tuner.clock import now_ns
from tuner.errors import InputError, LoadError
from tuner.load.client import PREDICT
from tuner.load.generator import Generator, OpenLoop
from tuner.load.payload import MixPart, RequestPool, build_pool
from tuner.model import Signature, TensorSpec
from tuner.records import Status

protos.install()

from tensorflow_serving.apis import predict_pb2  # noqa: E402

pytestmark = [pytest.mark.alone, pytest.mark.slow]

SMALL = Signature("serving_default", {"x": TensorSpec("DT_FLOAT", (None, 4))}, {})
BIG = Signature("serving_default", {"x": TensorSpec("DT_FLOAT", (None, 2 << 20))}, {})


def rows_of(request):
    proto = predict_pb2.PredictRequest.FromString(request)
    return proto.inputs["x"].tensor_shape.dim[0].size


@contextlib.contextmanager
def serving(answer, *, threads=8):
    """A real gRPC server that answers Predict with `answer(request bytes, context)`."""
    handler = grpc.method_handlers_generic_handler(
        PREDICT.split("/")[1], {"Predict": grpc.unary_unary_rpc_method_handler(answer)}
    )
    server = grpc.server(
        futures.ThreadPoolExecutor(threads),
        options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
    )
    server.add_generic_rpc_handlers([handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}", server
    finally:
        server.stop(None).wait()


@pytest.fixture
def echo():
    with serving(lambda request, _: request) as (address, _):
        yield address


@pytest.fixture
def free_address():
    with serving(lambda request, _: request) as (address, _):
        pass
    return address


@pytest.fixture
def pool(tmp_path):
    return saved(tmp_path, MixPart("m", SMALL, rows={1: 0.5, 3: 0.5}))


def saved(tmp_path, *parts):
    path = tmp_path / "pool"
    build_pool(parts, seed=1).save(path)
    return path


def by_status(samples):
    counts = np.bincount(samples.status, minlength=len(samples.statuses))
    found = Counter()
    for status, count in zip(samples.statuses, counts, strict=True):
        found[status.code] += int(count)
    return {code: count for code, count in found.items() if count}


# --- open loop ---


@pytest.mark.parametrize("arrivals", ["poisson", "constant"])
def test_every_scheduled_request_is_one_sample(echo, pool, arrivals):
    load = OpenLoop(rate_rps=100, duration_s=0.6, seed=4, arrivals=arrivals)
    with Generator(echo, pool) as generator:
        samples = generator.open_loop(load)
    assert np.array_equal(samples.intended_ns - samples.started_ns, load.offsets_ns())
    assert np.all(samples.lateness_ns >= 0)
    assert np.all(samples.done_ns > samples.sent_ns)
    assert by_status(samples) == {"OK": len(samples)}
    assert samples.statuses[0] == Status("OK")
    assert samples.ended_ns - samples.started_ns == 600_000_000
    assert samples.concurrency is None
    assert set(samples.rows) == {1, 3}
    assert 0 < samples.cpu_s < 10


def test_a_bare_loop_sends_nothing_and_is_as_long(pool):
    received = []
    load = OpenLoop(rate_rps=200, duration_s=0.5, seed=4)
    with (
        serving(lambda request, _: received.append(request) or request) as (address, _),
        Generator(address, pool) as generator,
    ):
        began = now_ns()
        late_ns = generator.bare_loop(load)
        assert now_ns() - began >= load.offsets_ns()[-1]
        assert not received
        generator.open_loop(load)
    assert len(late_ns) == len(load.offsets_ns()) == len(received)
    assert np.all(late_ns >= 0)


def test_equal_seeds_send_equal_requests_at_equal_times(pool):
    received = []

    def keep(request, _):
        received.append(request)
        return request

    # One server thread, and gaps far above the answer time, so that arrival order is kept.
    with serving(keep, threads=1) as (address, _), Generator(address, pool) as generator:
        load = OpenLoop(rate_rps=20, duration_s=1.0, seed=9, arrivals="constant")
        first, second = generator.open_loop(load), generator.open_loop(load)
        other = generator.open_loop(OpenLoop(20, 1.0, seed=10, arrivals="constant"))
    count = len(first)
    assert np.array_equal(first.rows, second.rows)
    assert sorted(received[:count]) == sorted(received[count : 2 * count])
    assert sorted(received[:count]) != sorted(received[2 * count :])
    assert len(other) == count


def test_a_stalled_server_does_not_stop_the_arrivals(pool):
    """Coordinated omission: requests due during a stall are sent, and wait, and count."""
    began = now_ns()
    stall = threading.Lock()
    window = {}

    def stalling(request, _):
        with stall:
            if not window and now_ns() - began > 500_000_000:
                window["start"] = now_ns()
                time.sleep(1.0)
                window["end"] = now_ns()
        return request

    with serving(stalling) as (address, _), Generator(address, pool) as generator:
        began = now_ns()
        samples = generator.open_loop(OpenLoop(rate_rps=100, duration_s=2.0, seed=1))
    start, end = window["start"], window["end"]
    stalled = (samples.intended_ns >= start) & (samples.intended_ns < start + 500_000_000)
    assert np.sum(stalled) > 20  # 50 expected
    assert by_status(samples) == {"OK": len(samples)}
    # All of them waited for the end of the stall, measured from when they were due ...
    assert np.all(samples.latency_ns[stalled] >= end - samples.intended_ns[stalled])
    assert np.all(samples.latency_ns[stalled] > 400_000_000)
    # ... though they had been sent while it went on: the loop never waited for an answer.
    assert np.mean(samples.sent_ns[stalled] < end) > 0.9


def test_gives_up_truthfully_where_too_many_are_unanswered(pool):
    release = threading.Event()

    def hold(request, _):
        release.wait(5)
        return request

    load = OpenLoop(rate_rps=200, duration_s=5.0, seed=1, give_up_outstanding=20)
    with serving(hold) as (address, _), Generator(address, pool, deadline_s=1.0) as generator:
        samples = generator.open_loop(load)
        release.set()
    assert 20 < len(samples) < 200  # the rest of 1000 was never sent, and is not made up
    assert samples.ended_ns - samples.started_ns < 4e9
    assert np.all(samples.intended_ns <= samples.ended_ns)
    assert by_status(samples) == {"DEADLINE_EXCEEDED": len(samples)}


def test_a_trace_is_replayed(echo, pool, tmp_path):
    trace = tmp_path / "trace.txt"
    trace.write_text("0.1\n0.15\n0.4\n7\n")
    with Generator(echo, pool) as generator:
        samples = generator.open_loop(OpenLoop(None, 0.5, 1, arrivals="trace", trace=trace))
        trace.write_text("soon\n")
        with pytest.raises(InputError, match=r"trace.txt:1"):
            generator.open_loop(OpenLoop(None, 0.5, 1, arrivals="trace", trace=trace))
        again = generator.open_loop(OpenLoop(10, 0.2, 1))  # bad input does no harm
    assert ((samples.intended_ns - samples.started_ns) // 1_000_000).tolist() == [100, 150, 400]
    assert by_status(again).keys() <= {"OK"}


def test_a_schedule_without_arrivals(echo, pool):
    with Generator(echo, pool) as generator:
        samples = generator.open_loop(OpenLoop(rate_rps=1e-6, duration_s=0.1, seed=1))
    assert len(samples) == 0
    assert samples.ended_ns - samples.started_ns == 100_000_000


def test_several_processes_are_one_generator(echo, pool):
    load = OpenLoop(rate_rps=300, duration_s=0.5, seed=4)
    with Generator(echo, pool, processes=3) as generator, Generator(echo, pool) as single:
        assert len(set(generator.pids)) == 3
        samples, alone = generator.open_loop(load), single.open_loop(load)
        closed = generator.closed_loop(concurrency=8, duration_s=0.3, seed=1)
        assert generator.exercise([1]) == (Status("OK"),)
        few = generator.closed_loop(concurrency=2, duration_s=0.1, seed=1)
    # The same requests at the same times, whoever sends them.
    assert np.array_equal(samples.intended_ns - samples.started_ns, load.offsets_ns())
    assert np.array_equal(samples.rows, alone.rows)
    assert np.all(samples.lateness_ns >= 0)
    assert by_status(samples) == {"OK": len(samples)}
    assert by_status(closed) == {"OK": len(closed)}
    assert closed.concurrency == 8
    assert few.concurrency == 2
    # Never more outstanding than asked for, by everybody's sends and ends on the common clock.
    moments = np.concatenate([closed.sent_ns, closed.done_ns])
    steps = np.repeat([1, -1], len(closed))[np.argsort(moments, kind="stable")]
    assert np.cumsum(steps).max() <= 8 + 2  # a send is stamped after an end it follows


@pytest.mark.parametrize("processes", [1, 2])
def test_a_long_run_is_kept_on_disk_as_it_goes(pool, tmp_path, processes):
    """Requests that are outstanding between two pieces are no seam: none waits or is lost."""

    def slow(request, _):
        time.sleep(0.05)
        return request

    load = OpenLoop(rate_rps=100, duration_s=1.0, seed=2, arrivals="constant")
    with (
        serving(slow, threads=32) as (address, _),
        Generator(address, pool, processes=processes) as generator,
    ):
        spool = generator.long_run(load, tmp_path / "samples", piece_s=0.1)
        pieces = list(spool.samples(rows=16))
        again = generator.open_loop(load)
    assert len(spool) == sum(map(len, pieces)) == 100
    assert spool.ended_ns - spool.started_ns == 1_000_000_000
    offsets = np.sort(np.concatenate([p.intended_ns for p in pieces])) - spool.started_ns
    assert np.allclose(offsets, load.offsets_ns(), atol=1)
    latency_ms = np.concatenate([p.latency_ns for p in pieces]) / 1e6
    assert latency_ms.min() >= 50
    late_ms = np.concatenate([p.sent_ns - p.intended_ns for p in pieces]) / 1e6
    assert np.mean(late_ms > 10) < 0.25  # a drain would make late what is due in its 50 ms
    assert {tuple(by_status(p)) for p in pieces} == {("OK",)}
    assert set(pieces[0].rows) <= {1, 3}
    assert by_status(again) == {"OK": 100}


def test_a_long_run_stays_small(echo, pool, tmp_path):
    """Samples and schedule of a run do not pile up: its later half takes no more memory."""
    sizes = []

    def watch(process, stop):
        while not stop.wait(0.1):
            sizes.append(process.memory_info().rss)

    with Generator(echo, pool) as generator:
        generator.long_run(OpenLoop(500, 0.5, seed=1), tmp_path / "first", piece_s=0.1)
        stop = threading.Event()
        watcher = threading.Thread(target=watch, args=(psutil.Process(generator.pid), stop))
        watcher.start()
        spool = generator.long_run(OpenLoop(500, 4.0, seed=1), tmp_path / "samples", piece_s=0.1)
        stop.set()
        watcher.join()
    assert len(spool) > 1500
    half = len(sizes) // 2
    assert max(sizes[half:]) - max(sizes[:half]) < 1 << 20
    assert max(sizes) < 300 << 20


@pytest.mark.parametrize("processes", [1, 2])
def test_a_long_run_ends_early_where_it_is_asked_to(echo, pool, tmp_path, processes):
    seen, until, settled = [], [], []

    def watch(samples, until_ns, settled_ns):
        assert samples.intended_ns.min() >= max(settled, default=0)  # as was promised before
        seen.append(samples)
        until.append(until_ns)
        settled.append(settled_ns)

    load = OpenLoop(200, 3600.0, seed=1)
    with Generator(echo, pool, processes=processes) as generator:
        spool = generator.long_run(
            load,
            tmp_path / "samples",
            piece_s=0.2,
            keep=False,
            watch=watch,
            stopping=lambda: len(seen) >= 4,
        )
        again = generator.open_loop(OpenLoop(200, 0.2, seed=1))
    length_s = (spool.ended_ns - spool.started_ns) / 1e9
    assert 0.6 <= length_s <= 3.0
    assert sum(map(len, seen)) == spool.rows > 0
    assert sorted(until) == until
    assert all(late <= early for late, early in zip(settled, until, strict=True))
    assert settled[-1] > settled[0]
    intended = np.sort(np.concatenate([part.intended_ns for part in seen]))
    pieces = [
        offsets + spool.started_ns
        for end_s, offsets in itertools.takewhile(
            lambda piece: piece[0] <= length_s + 1e-6, load.pieces(0.2)
        )
    ]
    assert np.array_equal(intended, np.concatenate(pieces))  # nothing is lost, nothing made up
    assert list(tmp_path.glob("samples*")) == []
    assert by_status(again).keys() <= {"OK"}


def test_a_long_run_keeps_its_samples_in_files_of_bounded_size(echo, pool, tmp_path, monkeypatch):
    sitecustomize = tmp_path / "site"
    sitecustomize.mkdir()
    (sitecustomize / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'tuner.load.worker' in ' '.join(sys.orig_argv):\n"
        "    import tuner.load.spool\n"
        "    tuner.load.spool.CHUNK_ROWS = 20\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(sitecustomize))
    load = OpenLoop(100, 1.0, seed=2, arrivals="constant")
    with Generator(echo, pool) as generator:
        spool = generator.long_run(load, tmp_path / "samples", piece_s=0.1)
    assert [path.name for path in spool.paths] == [f"samples.{n}" for n in range(5)]
    assert sum(map(len, spool.samples())) == len(spool) == 100


def test_a_long_run_whose_disk_is_full_says_so(echo, pool, small_disk):
    with (
        Generator(echo, pool) as generator,
        pytest.raises(LoadError, match=r"samples\.0: cannot be written: No space left"),
    ):
        generator.long_run(OpenLoop(3000, 5.0, seed=1), small_disk / "samples", piece_s=0.1)


def test_a_long_run_needs_an_engine_that_can(echo, pool, tmp_path):
    with (
        Generator(echo, pool, engine="grpcio") as generator,
        pytest.raises(LoadError, match="cannot run for hours"),
    ):
        generator.long_run(OpenLoop(10, 0.1, seed=1), tmp_path / "samples")


def test_a_spinning_generator_sends_on_time(echo, pool):
    cpus = frozenset(os.sched_getaffinity(0))
    with Generator(echo, pool, cpus=cpus, spin=True) as generator:
        samples = generator.open_loop(OpenLoop(rate_rps=200, duration_s=0.5, seed=4))
    assert by_status(samples) == {"OK": len(samples)}
    assert np.all(samples.lateness_ns >= 0)


# --- closed loop and exercise ---


@pytest.mark.parametrize("connections", [1, 3])
def test_closed_loop_keeps_the_concurrency(pool, connections):
    lock, peers = threading.Lock(), set()
    now, most = 0, 0

    def count(request, context):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
            peers.add(context.peer())
        time.sleep(0.01)
        with lock:
            now -= 1
        return request

    with (
        serving(count, threads=16) as (address, _),
        Generator(address, pool, connections=connections) as generator,
    ):
        samples = generator.closed_loop(concurrency=6, duration_s=0.5, seed=1)
    assert most == 6
    assert len(peers) == connections
    assert samples.concurrency == 6
    assert len(samples) > 6
    assert np.all(samples.lateness_ns == 0)
    assert np.all(np.diff(samples.intended_ns) >= 0)
    assert samples.intended_ns[-1] < samples.ended_ns + 1_000_000_000
    assert set(samples.rows) == {1, 3}


def test_exercise_sends_exactly_these_rows_to_every_model(tmp_path):
    received = []

    def keep(request, _):
        received.append(
            (predict_pb2.PredictRequest.FromString(request).model_spec.name, rows_of(request))
        )
        return request

    path = saved(tmp_path, MixPart("a", SMALL), MixPart("b", SMALL, rows={2: 1.0}))
    with serving(keep) as (address, _), Generator(address, path) as generator:
        statuses = generator.exercise([1, 16], repeats=2)
    assert received == [(name, rows) for rows in (1, 16) for name in "aabb"]
    assert statuses == (Status("OK"),) * 8


def test_exercise_ends_at_a_server_that_hangs(pool):
    release = threading.Event()

    def hang_on_two(request, _):
        if rows_of(request) == 2:
            release.wait(10)
        return request

    with serving(hang_on_two) as (address, _), Generator(address, pool) as generator:
        statuses = generator.exercise([1, 2, 4], deadline_s=0.5)
        release.set()
    assert [status.code for status in statuses] == ["OK", "DEADLINE_EXCEEDED"]


def test_exercise_of_more_than_a_message_can_carry(echo, pool):
    with (
        Generator(echo, pool) as generator,
        pytest.raises(
            LoadError, match=r"a request of 10000000000 rows of \d+ bytes cannot be sent"
        ),
    ):
        generator.exercise([10**10])


def test_messages_of_eight_megabytes_both_ways(tmp_path):
    path = saved(tmp_path, MixPart("m", BIG))
    sizes = []

    def keep(request, _):
        sizes.append(len(request))
        return request

    with serving(keep) as (address, _), Generator(address, path) as generator:
        samples = generator.closed_loop(concurrency=2, duration_s=0.3, seed=1)
    assert by_status(samples) == {"OK": len(samples)}
    assert min(sizes) > 8 << 20


# --- failures are samples ---


def test_failures_keep_code_and_text(pool):
    calls = iter(range(10_000))

    def shed(request, context):
        if next(calls) % 2:
            context.abort(grpc.StatusCode.UNAVAILABLE, "The batch scheduling queue is full")
        return request

    with serving(shed) as (address, _), Generator(address, pool) as generator:
        samples = generator.open_loop(OpenLoop(100, 0.5, seed=1))
    assert set(samples.statuses) == {
        Status("OK"), Status("UNAVAILABLE", "The batch scheduling queue is full")
    }  # fmt: skip
    assert by_status(samples)["UNAVAILABLE"] == len(samples) // 2


def test_an_answer_without_a_byte_is_no_answer(pool):
    with serving(lambda *_: b"") as (address, _), Generator(address, pool) as generator:
        (status,) = generator.exercise([1])
    assert status.code == "INTERNAL"
    assert "empty" in status.text


def test_deadline(pool):
    def slow(request, _):
        time.sleep(1.0)
        return request

    with serving(slow) as (address, _), Generator(address, pool, deadline_s=0.2) as generator:
        samples = generator.open_loop(OpenLoop(20, 0.3, seed=1))
        assert generator.exercise([1], deadline_s=10.0) == (Status("OK"),)
    assert by_status(samples) == {"DEADLINE_EXCEEDED": len(samples)}
    assert np.all(samples.latency_ns >= 190_000_000)


def test_nobody_listens(free_address, pool):
    load = OpenLoop(50, 0.3, seed=1)
    with Generator(free_address, pool, deadline_s=0.5) as generator:
        samples = generator.open_loop(load)
    assert len(samples) == len(load.offsets_ns())
    assert by_status(samples).keys() <= {"UNAVAILABLE", "DEADLINE_EXCEEDED"}
    assert "OK" not in by_status(samples)


def test_a_server_that_dies_in_mid_run(pool):
    load = OpenLoop(100, 1.0, seed=1)
    with (
        serving(lambda request, _: request) as (address, server),
        Generator(address, pool, deadline_s=1.0) as generator,
    ):
        timer = threading.Timer(0.5, server.stop, [None])
        timer.start()
        samples = generator.open_loop(load)
        timer.join()
    ends = by_status(samples)
    assert len(samples) == len(load.offsets_ns())
    assert ends["OK"] > 0
    assert ends["UNAVAILABLE"] > 0
    first_failure = np.argmax(samples.status > 0)
    assert first_failure > 0


# --- the process ---


def test_never_imports_tensorflow_even_to_build_requests(echo, pool):
    with Generator(echo, pool) as generator:
        generator.exercise([2])
        generator.open_loop(OpenLoop(20, 0.2, seed=1))
        mapped = {m.path for m in psutil.Process(generator.pid).memory_maps()}
    assert any("numpy" in path for path in mapped)
    assert not any("libtensorflow" in path or "_pywrap" in path for path in mapped)


def test_reports_its_pid_cpu_and_niceness(echo, pool):
    with Generator(echo, pool, niceness=5) as generator:
        process = psutil.Process(generator.pid)
        assert process.nice() == generator.niceness == 5
        group = Path(f"/proc/{generator.pid}/autogroup")
        assert not group.exists() or group.read_text().endswith("nice 5\n")
        before = generator.cpu_s
        samples = generator.closed_loop(concurrency=4, duration_s=0.3, seed=1)
        used = generator.cpu_s - before
    assert used >= 0.5 * samples.cpu_s > 0
    assert not process.is_running()


def test_runs_on_the_processors_it_is_given(echo, pool):
    cpu = min(os.sched_getaffinity(0))
    with Generator(echo, pool, cpus=frozenset({cpu})) as generator:
        assert os.sched_getaffinity(generator.pid) == {cpu}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cpus": frozenset({100_000})}, r"processors \[100000\]"),
        (
            {"engine": "carrier-pigeon"},
            r"no load engine 'carrier-pigeon'\n  the engines are http2, grpcio",
        ),
    ],
)
def test_settings_that_cannot_be(echo, pool, settings, words):
    with pytest.raises(LoadError, match=words):
        Generator(echo, pool, **settings).__enter__()


def test_a_missing_pool(echo, tmp_path):
    with pytest.raises(LoadError, match="nowhere: cannot be read: No such file"):
        Generator(echo, tmp_path / "nowhere").__enter__()


def test_a_killed_process_is_a_load_error(echo, pool):
    with Generator(echo, pool) as generator:
        timer = threading.Timer(0.3, os.kill, [generator.pid, signal.SIGKILL])
        timer.start()
        with pytest.raises(LoadError, match="was killed by SIGKILL"):
            generator.open_loop(OpenLoop(50, 5.0, seed=1))
        timer.join()
        with pytest.raises(LoadError, match="interrupted"):
            generator.open_loop(OpenLoop(50, 0.1, seed=1))


def test_a_defect_of_the_process_is_told_with_its_last_words(echo, tmp_path):
    path = tmp_path / "pool"
    RequestPool((b"x",), (1,), (0.5,), (b"",)).save(path)  # weights that do not add up to 1
    load = OpenLoop(50, 0.1, seed=1)
    words = r"exited with code 1\n(.*\n)*ValueError: Probabilities do not sum"
    with Generator(echo, path) as generator, pytest.raises(LoadError, match=words):
        generator.open_loop(load)


@pytest.fixture
def ctrl_c():
    """Ctrl-C interrupts, also where the tests run in the background and ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_interrupting_a_run_ends_the_process(echo, pool):
    timer = threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGINT])
    started = time.monotonic()
    with Generator(echo, pool) as generator:
        process = psutil.Process(generator.pid)
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            generator.open_loop(OpenLoop(50, 60.0, seed=1))
    timer.join()
    assert not process.is_running()
    assert time.monotonic() - started < 30


def test_ctrl_c_in_the_terminal_does_not_reach_it(echo, pool):
    with Generator(echo, pool) as generator:
        assert os.getpgid(generator.pid) != os.getpgid(0)


def test_ends_when_its_parent_is_killed(echo, pool):
    code = (
        "import sys; from pathlib import Path; from tuner.load.generator import *\n"
        "with Generator(sys.argv[1], Path(sys.argv[2])) as generator:\n"
        "    print(generator.pid, flush=True)\n"
        "    generator.open_loop(OpenLoop(50, 60.0, seed=1))\n"
    )
    run = [sys.executable, "-c", code, echo, str(pool)]
    with subprocess.Popen(run, stdout=subprocess.PIPE, text=True) as parent:
        process = psutil.Process(int(parent.stdout.readline()))
        time.sleep(0.3)
        parent.kill()
    _, alive = psutil.wait_procs([process], timeout=20)
    assert not alive
