"""Divides many submissions into requests that others can wait for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crystalmath.errors import CrystalMathError, InvalidJob
from crystalmath.server.rpc import wire

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from crystalmath.config import Config
    from crystalmath.models import Submission

__all__ = ["batches"]

#: Jobs of one request, and its size in bytes.
MOST_JOBS = 1000
MOST_BYTES = 8 * 2**20

#: The largest job, in bytes; around it stands the request.
LARGEST = wire.MAX_MESSAGE - 2**20


def batches(
    submissions: Sequence[Submission], configured: Config, environment: Mapping[str, str]
) -> Iterator[dict[int, dict[str, Any] | CrystalMathError]]:
    """Write submissions as the parameters of ``jobs.submit``, many at a time.

    Yields
    ------
    dict
        For the number of each submission what is to be sent, or why it cannot be sent.
    """
    from crystalmath.client.request import document

    batch: dict[int, dict[str, Any] | CrystalMathError] = {}
    total = 0
    for index, submission in enumerate(submissions):
        size = 0
        try:
            written: dict[str, Any] | CrystalMathError
            written = document(submission, configured, environment)
            size = _size(written)
        except CrystalMathError as error:
            written = error
        if batch and (len(batch) >= MOST_JOBS or total + size > MOST_BYTES):
            yield batch
            batch, total = {}, 0
        batch[index] = written
        total += size
    if batch:
        yield batch


def _size(document: object) -> int:
    size = wire.size(document)
    if size > LARGEST:
        raise InvalidJob(
            f"structure and parameters take {size / 2**20:.0f} MiB; the limit is "
            f"{LARGEST / 2**20:.0f} MiB"
        )
    return size
