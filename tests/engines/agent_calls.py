"""What the tests have an agent call; it imports nothing of theirs."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from crystalmath import worker

_kept = []


class UnreadableError(Exception):
    """One that pickle writes, and cannot read."""

    def __init__(self, what, why):
        super().__init__(f"{what}: {why}")


def double(number):
    """Return twice a number."""
    return 2 * number


def pid():
    """Tell which process this is."""
    return os.getpid()


def fail(message):
    """Raise what can travel."""
    raise LookupError(message)


def fail_strangely():
    """Raise what cannot travel."""
    raise UnreadableError("a", "b")


def unpicklable():
    """Return what cannot travel."""
    return lambda: None


def sleep(seconds):
    """Take long."""
    time.sleep(seconds)
    return seconds


def wait_for(path):
    """Take until a file is there."""
    while not os.path.exists(path):
        time.sleep(0.02)


def write(text):
    """Print, and leave."""
    print(text)
    os._exit(3)


def die():
    """Be killed."""
    os.kill(os.getpid(), signal.SIGKILL)


def surroundings():
    """Tell what a process has of its surroundings."""
    return os.getsid(0) == os.getppid(), os.getcwd(), signal.getsignal(signal.SIGINT).__name__


def start_pool(workers):
    """Start processes with the worker entry; give their pids."""
    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=worker.end_with_parent,
        initargs=(os.getpid(),),
    )
    _kept.append(pool)
    return sorted({each.result() for each in [pool.submit(pid) for _ in range(workers)]})


def start_strays():
    """Start processes that do all to get away: a daemon, one that ignores SIGTERM, one stopped."""
    daemon = (
        "import os, time; os.fork() and os._exit(0); os.setsid(); os.fork() and os._exit(0);"
        "time.sleep(600)"
    )
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    stopped = "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"
    for code in (daemon, deaf, stopped):
        subprocess.Popen([sys.executable, "-S", "-c", code], start_new_session=True)
    return 3


def make_semaphore():
    """Make what only multiprocessing's resource tracker removes; give the name of its file."""
    _kept.append(multiprocessing.get_context("spawn").Lock())
    return "sem." + _kept[-1]._semlock.name.removeprefix("/")
