"""The keeper of the conformance kit: all that a process leaves behind is found."""

import contextlib
import subprocess
import sys

import psutil
import pytest

from conftest import eventually
from crystalmath.testing.owner import Kept

pytestmark = pytest.mark.processes

#: Leaves a daemon, as daemons are made, and waits for a signal.
DAEMON = """
import os, signal
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve("/bin/sleep", ["sleep", "600"], {})
    os._exit(0)
os.wait()
signal.pause()
"""


def kept(code):
    return Kept([sys.executable, "-I", "-S", "-c", code], {"KEPT": "1"}, ())


def test_a_process_is_told_of_as_by_popen():
    process = kept("import os; assert os.environ['KEPT'] == '1' and os.getsid(0) == os.getpid()")
    assert process.wait(120) == process.poll() == 0
    process.kill()  # it has ended
    process = kept("import signal; signal.pause()")
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    process.kill()
    assert process.wait(120) == -9
    assert not psutil.pid_exists(process.pid)


def sleeping(process):
    """List the daemons below a process; what begins them ends meanwhile."""
    found = []
    for each in process.descendants():
        with contextlib.suppress(psutil.NoSuchProcess):
            if each.name() == "sleep":
                found.append(each)
    return found


def test_the_end_of_a_process_that_comes_before_it_was_asked_for_is_told():
    process = kept("")
    eventually(lambda: not psutil.pid_exists(process.pid))
    assert process.poll() == 0


def test_a_daemon_without_any_mark_is_found_whether_its_owner_lives_or_not():
    process = kept(DAEMON)
    (daemon,) = eventually(lambda: sleeping(process))
    process.kill()
    process.wait(120)
    eventually(lambda: process.descendants() == [daemon])
    daemon.kill()
    eventually(lambda: process.descendants() == [])
