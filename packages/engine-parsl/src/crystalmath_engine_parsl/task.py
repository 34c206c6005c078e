"""What Parsl's workers call; it imports nothing of Parsl's."""

from __future__ import annotations

from crystalmath import worker

__all__ = ["run"]


def run(directory: str) -> None:
    """Run the job of a run directory, as every engine's worker does."""
    worker.run(directory)
