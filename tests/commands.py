"""The commands of the command line, in this process or in one of their own."""

import contextlib
import json
import subprocess
import sys
import threading

import pytest

from crystalmath.cli import main


class Answer:
    """What a command left behind."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    @property
    def json(self):
        assert self.out.count("\n") == 1
        return json.loads(self.out, parse_constant=pytest.fail)

    @property
    def lines(self):
        return self.out.splitlines()


def start(*arguments, stderr=subprocess.PIPE, **more):
    """Start a command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "crystalmath", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        **more,
    )


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
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    out, err = captured.readouterr()
    return Answer(left.value.code, out.decode(), err.decode())
