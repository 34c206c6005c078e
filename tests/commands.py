"""The commands of the command line, in this process or in one of their own; and other programs."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading

import pytest

from crystalmath.cli import main


def ran(*command, check=False, timeout=600, **more):
    """Run a program to its end, for ``timeout`` s at most; give what it left behind, as text."""
    command = [str(word) for word in command]
    return subprocess.run(
        command, capture_output=True, text=True, check=check, timeout=timeout, **more
    )


def restricted():
    """Begin a command that may not read everything: root passes every permission check, else."""
    if os.geteuid() != 0:
        return ()
    if (setpriv := shutil.which("setpriv")) is None:
        pytest.skip("root passes every permission check, and setpriv is not installed")
    return (setpriv, "--bounding-set=-dac_override,-dac_read_search")


def piped(*command, **more):
    """Start a program whose standard input and output are here, as text."""
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([str(word) for word in command], **{**streams, **more})


class Answer:
    """What a command left behind."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    @property
    def json(self):
        assert self.out.count("\n") == 1
        return json.loads(self.out, parse_constant=pytest.fail)

    @property
    def checks(self):
        """What `doctor` and the like have looked at, by its name."""
        return {check["name"]: check for check in self.json["checks"]}

    @property
    def lines(self):
        return self.out.splitlines()


def start(*arguments, stderr=subprocess.PIPE, **more):
    """Start a command in a process of its own."""
    return piped(sys.executable, "-m", "crystalmath", *arguments, stdin=None, stderr=stderr, **more)


@contextlib.contextmanager
def limited(*running, seconds=120):
    """End commands that have not said in time what is waited for, or are left behind."""

    def end():
        for process in running:
            process.kill()

    timer = threading.Timer(seconds, end)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        end()


def finish(process):
    """Wait for it, and give what it left behind."""
    out, err = process.communicate(timeout=120)
    return Answer(process.returncode, out, err)


def run_here(captured, *arguments):
    """Run a command in this process, whose output is captured as bytes."""
    captured.readouterr()
    # `--on` and `--home` set variables for the rest of the process.
    names = ("CRYSTALMATH_ON", "CRYSTALMATH_HOME")
    before = {name: os.environ[name] for name in names if name in os.environ}
    try:
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
    finally:
        for name in names:
            os.environ.pop(name, None)
        os.environ |= before
    out, err = captured.readouterr()
    return Answer(left.value.code, out.decode(), err.decode())
