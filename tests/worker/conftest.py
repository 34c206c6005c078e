"""Fixtures of the tests of workers."""

import os
from pathlib import Path

import pytest

from conftest import eventually
from crystalmath.worker.child import OomKills

#: The memory of a control group, in bytes.
MEMORY = 800 * 2**20


@pytest.fixture
def group():
    """Make a control group of 800 MB; yield the file that takes the pids of its processes."""
    above = Path(OomKills(os.getpid()).file).parent
    group = above / f"crystalmath-test-{os.getpid()}"
    try:
        group.mkdir()
        limits = [group / name for name in ("memory.max", "memory.limit_in_bytes")]
        next(file for file in limits if file.exists()).write_text(str(MEMORY))
        for name in ("memory.swap.max", "memory.memsw.limit_in_bytes"):
            if (group / name).exists():
                # Else the machine swaps, and the kernel kills nobody.
                (group / name).write_text("0" if "max" in name else str(MEMORY))
    except (OSError, StopIteration) as error:
        if group.exists():
            group.rmdir()
        pytest.skip(f"cannot make a control group with a limit of memory: {error!r}")
    yield group / "cgroup.procs"
    eventually(lambda: not (group / "cgroup.procs").read_text())
    group.rmdir()
