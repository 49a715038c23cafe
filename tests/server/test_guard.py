import os
import shutil
import subprocess
import sys

import pytest

from tuner.server.guarded import GUARD

ASK = "import os; print(os.getpriority(os.PRIO_PROCESS, 0))"


def niceness_of_the_guarded(*prefix):
    argv = [*prefix, sys.executable, str(GUARD), "", str(os.getpid()), "--"]
    done = subprocess.run(
        [*argv, sys.executable, "-c", ASK], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_a_server_yields_where_the_generator_cannot_be_raised():
    without = []
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("setpriv is not installed, and root may raise any priority")
        without = ["setpriv", "--bounding-set=-sys_nice"]
    assert niceness_of_the_guarded(*without) == 10


def test_a_server_keeps_its_priority_where_the_generator_is_raised():
    if os.geteuid() != 0:
        pytest.skip("needs root, who may raise a priority")
    assert niceness_of_the_guarded() == os.getpriority(os.PRIO_PROCESS, 0)
