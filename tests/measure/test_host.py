import os
import subprocess
import sys
import time
from contextlib import contextmanager

import psutil
import pytest

from tuner.measure.host import CpuMeter, cgroup_cpu, processes_cpu

pytestmark = pytest.mark.alone

SPIN = "import time\nend = time.process_time() + {0}\nwhile time.process_time() < end: pass\n"
READY = "print('done', flush=True); input()"


@contextmanager
def program(source):
    process = subprocess.Popen(
        [sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def gone_pid():
    with program("pass") as process:
        process.wait()
        return process.pid


def test_a_busy_process_is_seen_with_what_it_used():
    with program("input()\n" + SPIN.format(0.4) + READY) as server:
        meter = CpuMeter(processes_cpu(lambda: [server.pid]), os.getpid())
        meter.start()
        began = time.monotonic()
        server.stdin.write("\n")
        server.stdin.flush()
        server.stdout.readline()
        found = meter.stop()
        seconds = time.monotonic() - began
        assert found.server_cpu * seconds == pytest.approx(0.4, abs=0.15)
        assert found.foreign_cpu >= 0


def test_children_that_have_ended_are_counted():
    source = (
        "import subprocess, sys\n"
        f"subprocess.run([sys.executable, '-c', {SPIN.format(0.3)!r}], check=True)\n" + READY
    )
    with program(source) as server:
        server.stdout.readline()
        assert not psutil.Process(server.pid).children()
        assert processes_cpu(lambda: [server.pid])() >= 0.3


def test_living_children_are_counted():
    inner = SPIN.format(0.3) + "print('done', flush=True); import time; time.sleep(60)"
    source = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {inner!r}])\n"
        "input(); child.kill(); child.wait()"
    )
    with program(source) as server:
        server.stdout.readline()
        assert processes_cpu(lambda: [server.pid])() >= 0.3
        server.communicate("\n", timeout=30)


def test_another_busy_program_is_foreign():
    with program("input()") as server, program("input()\n" + SPIN.format(0.5) + READY) as other:
        meter = CpuMeter(processes_cpu(lambda: [server.pid]), os.getpid())
        meter.start()
        began = time.monotonic()
        other.stdin.write("\n")
        other.stdin.flush()
        other.stdout.readline()
        found = meter.stop()
        seconds = time.monotonic() - began
        # The machine counts in ticks of 10 ms; others may be busy beside it.
        assert found.foreign_cpu * seconds >= 0.4


def test_what_the_server_uses_is_not_foreign():
    # As many busy children as cores: together with everybody else they cannot use more than all.
    cores = psutil.cpu_count()
    source = (
        "import subprocess, sys\ninput()\n"
        f"spin = [subprocess.Popen([sys.executable, '-c', {SPIN.format(0.5)!r}])"
        f" for _ in range({cores})]\n"
        "[child.wait() for child in spin]\n" + READY
    )
    with program(source) as server:
        meter = CpuMeter(processes_cpu(lambda: [server.pid]), os.getpid())
        meter.start()
        began = time.monotonic()
        server.stdin.write("\n")
        server.stdin.flush()
        server.stdout.readline()
        found = meter.stop()
        seconds = time.monotonic() - began
    assert found.server_cpu * seconds >= 0.4 * cores  # each is due 0.5 s, however long it waits
    assert found.server_cpu + found.foreign_cpu <= 1.1 * cores


def test_a_server_that_vanishes_leaves_no_evidence():
    with program("input()") as server:
        meter = CpuMeter(processes_cpu(lambda: [server.pid]), os.getpid())
        meter.start()
        server.communicate("\n", timeout=30)
        found = meter.stop()
    assert (found.server_cpu, found.foreign_cpu) == (None, None)


def test_a_server_elsewhere():
    meter = CpuMeter(None, os.getpid())
    meter.start()
    found = meter.stop()
    assert (found.server_cpu, found.foreign_cpu) == (None, None)
    assert found.generator_cpu >= 0


def test_a_generator_that_has_ended_speaks_for_itself():
    meter = CpuMeter(processes_cpu(lambda: [os.getppid()]), gone_pid())
    meter.start()
    time.sleep(0.05)
    unknown, known = meter.stop(), meter.stop(generator_s=0.01)
    assert (unknown.generator_cpu, unknown.foreign_cpu) == (0.0, None)
    assert known.generator_cpu == pytest.approx(0.01 / 0.05, rel=0.9)
    assert known.foreign_cpu is not None


def test_stop_needs_start():
    with pytest.raises(RuntimeError, match="before start"):
        CpuMeter(None, os.getpid()).stop()


def test_processes_that_are_gone():
    assert processes_cpu(lambda: [gone_pid()])() is None
    assert processes_cpu(list)() is None


def test_a_control_group(tmp_path):
    (tmp_path / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 2000000\n")
    assert cgroup_cpu(tmp_path)() == 2.5
    assert cgroup_cpu(tmp_path / "gone")() is None
