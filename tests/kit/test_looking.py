"""What the kit sees of folders and processes while these come and go."""

import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import SimpleNamespace

import psutil
import pytest

from crystalmath import processes
from crystalmath.testing import oracle
from crystalmath.testing.oracle import below, links, listed
from crystalmath.testing.traces import sockets
from crystalmath.testing.waiting import eventually
from crystalmath.testing.watching import watched


def test_a_folder_that_goes_while_it_is_walked(tmp_path):
    (tmp_path / "a/b/c").mkdir(parents=True)
    found = below(tmp_path)
    assert next(found) == tmp_path / "a"
    shutil.rmtree(tmp_path / "a")
    assert list(found) == []
    assert listed(tmp_path / "a") == links(tmp_path / "a") == []


def test_who_waits_looks_once_more_at_the_end():
    looks = []

    def look():
        looks.append(time.monotonic())
        if len(looks) == 1:
            time.sleep(0.1)  # as long as this process has no core
        return len(looks) > 1

    assert eventually(look, 0.05, "it did not happen")
    with pytest.raises(AssertionError, match="it did not happen"):
        eventually(lambda: False, 0.05, "it did not happen")


def test_the_sockets_of_a_process_under_each_name_that_psutil_gave_them():
    for name in ("connections", "net_connections"):
        process = SimpleNamespace(**{name: lambda kind: [kind]})
        assert sockets(process, "tcp") == ["tcp"]


@pytest.fixture
def child():
    """Start a process: ``child(code)``; it has said so."""
    with ExitStack() as stack:

        def child(code):
            process = subprocess.Popen(
                [sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stdout.readline() == b"ready\n"
            return process

        yield child


READY = "import ctypes, sys, threading; print('ready', flush=True); "
#: The main thread ends, the other one waits; the process table says `Z`.
WITHOUT_MAIN_THREAD = (
    f"{READY} threading.Thread(target=sys.stdin.read).start(); ctypes.CDLL(None).pthread_exit(None)"
)


def is_zombie(pid):
    return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_process_that_nobody_has_collected_has_ended(child):
    process = child(f"{READY} sys.stdin.read()")
    found = oracle.found([process.pid])
    assert oracle.alive(found) == found
    process.kill()
    eventually(lambda: is_zombie(process.pid), 60, "it goes on")
    assert oracle.alive(found) == []
    process.wait()
    assert oracle.alive(found) == []
    assert oracle.found([process.pid]) == []


def test_a_process_without_its_main_thread_is_alive(child):
    process = child(WITHOUT_MAIN_THREAD)
    eventually(lambda: is_zombie(process.pid), 60, "its main thread goes on")
    assert [each.pid for each in oracle.alive(oracle.found([process.pid]))] == [process.pid]


def test_a_process_that_has_the_pid_of_another_is_another(child):
    process = child(f"{READY} sys.stdin.read()")
    (former,) = oracle.found([process.pid])
    assert oracle.start_time(process.pid) == processes.start_time(process.pid)
    former._ident = (former.pid, former._ident[1] - 100.0)
    assert oracle.alive([former]) == []


@pytest.fixture
def hand(tmp_path):
    """Have a thread that is there before a call: ``hand(call)``, and what it does is done."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()
        yield lambda call: pool.submit(call).result()


def in_a_thread(call):
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


def test_what_threads_do_that_were_there_before_a_call_is_none_of_it(hand, tmp_path):
    over = threading.Event()
    lasting = threading.Thread(target=over.wait)
    with watched() as seen:
        hand((tmp_path / "theirs").touch)
        hand(lambda: in_a_thread((tmp_path / "their thread's").touch))
        hand(lasting.start)
    over.set()
    lasting.join()
    assert seen.started == []


def test_what_a_calls_own_threads_do_is_the_calls(hand, tmp_path):
    with watched() as seen:
        in_a_thread((tmp_path / "ours").touch)
    thread, file = seen.started
    assert thread.startswith("thread: ")
    assert file.startswith(f"file: {tmp_path}/ours (")


def test_a_process_that_becomes_another_command_is_the_one_it_was(child):
    process = child(f"{READY} sys.stdin.readline(); import os; os.execlp('sleep', 'sleep', '600')")
    with watched() as seen:
        process.stdin.write(b"\n")
        process.stdin.flush()
        (found,) = oracle.found([process.pid])
        eventually(lambda: found.cmdline()[:1] == ["sleep"], 60, "it is what it was")
    assert seen.started == []


def test_bytecode_that_is_kept_elsewhere_is_no_plugins(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path / "bytecode"))
    with watched() as seen:
        (tmp_path / "bytecode").mkdir()
        (tmp_path / "bytecode/module.cpython-311.pyc").touch()
    assert seen.started == []
