"""What is run in an allocation: the job of one run directory, then it is over."""

from __future__ import annotations

import sys
from pathlib import Path

from crystalmath import worker

__all__ = ["command"]


def command(directory: Path, attempt: str) -> list[str]:
    """Give the command that runs an attempt; its id is there so that it can be found by it."""
    # -P: a file of the working directory must never stand in for a library.
    return [sys.executable, "-P", "-m", __name__, str(directory), attempt]


if __name__ == "__main__":
    worker.run(Path(sys.argv[1]))
