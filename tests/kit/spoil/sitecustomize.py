"""Run by every Python that finds it on its path: spoils a job as its recipe is looked up.

Past all that core puts right for a job before, as an engine could that does not use core's worker.
"""

import os
import signal
import sys

RECIPES = "crystalmath.testing.recipes"


def ignore_signals():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def block_signals():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})


def close_streams():
    for descriptor in (0, 1, 2):
        os.close(descriptor)


def open_to_all():
    os.umask(0)


def leave_directory():
    os.chdir("/")


class Finder:
    """Finds nothing, and sees what is looked for."""

    def find_spec(self, name, path=None, target=None):
        if name == RECIPES:
            sys.meta_path.remove(self)
            for each in os.environ["SPOIL"].split():
                globals()[each]()


# As the tests' own (tests/light), which this stands before.
sys.modules["quacc"] = None
if "SPOIL" in os.environ and "crystalmath.worker.runner" in sys.orig_argv:
    sys.meta_path.insert(0, Finder())
