"""Processes that are tied to this one by a socket."""

import errno
import os
import subprocess

import pytest

from crystalmath._starting import start_tied


def sockets():
    """Name the sockets that this process has open."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:
            continue  # it was that of the list
    return {name for name in found if name.startswith("socket:")}


def test_where_none_can_be_started_no_socket_stays_open(monkeypatch):
    def refuse(*_arguments, **_options):
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(subprocess, "Popen", refuse)
    before = sockets()
    # Who keeps the error keeps what its frames hold.
    with pytest.raises(BlockingIOError) as told:
        start_tied("crystalmath.worker.supervisor")
    assert sockets() == before
    assert told.value.errno == errno.EAGAIN
