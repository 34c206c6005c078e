"""Divides many submissions into requests that others can wait for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crystalmath.errors import CrystalMathError, InvalidJob
from crystalmath.server.rpc import wire

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from crystalmath.client.request import Request
    from crystalmath.config import Config

__all__ = ["batches"]

#: Jobs of one request, and its size in bytes.
MOST_JOBS = 1000
MOST_BYTES = 8 * 2**20

#: The largest job, in bytes; around it stands the request.
LARGEST = wire.MAX_MESSAGE - 2**20


def batches(
    requests: Sequence[Request], configured: Config, environment: Mapping[str, str]
) -> Iterator[dict[int, dict[str, Any] | CrystalMathError]]:
    """Write requests as the parameters of ``jobs.submit``, many at a time.

    Yields
    ------
    dict
        For the number of each request what is to be sent, or why it cannot be sent.
    """
    batch: dict[int, dict[str, Any] | CrystalMathError] = {}
    total = 0
    for index, request in enumerate(requests):
        size = 0
        try:
            document: dict[str, Any] | CrystalMathError = request.document(configured, environment)
            size = _size(document)
        except CrystalMathError as error:
            document = error
        if batch and (len(batch) >= MOST_JOBS or total + size > MOST_BYTES):
            yield batch
            batch, total = {}, 0
        batch[index] = document
        total += size
    if batch:
        yield batch


def _size(document: object) -> int:
    size = len(wire.dumps(document))
    if size > LARGEST:
        raise InvalidJob(
            f"structure and parameters take {size / 2**20:.0f} MiB; the limit is "
            f"{LARGEST / 2**20:.0f} MiB"
        )
    return size
