"""Divides many submissions into requests that others can wait for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from crystalmath.errors import CrystalMathError, InvalidJob
from crystalmath.server.rpc import wire

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from crystalmath.config import Config
    from crystalmath.models import Submission

_Name = TypeVar("_Name")
#: The parameters of `jobs.submit`, or why there are none.
Written: TypeAlias = dict[str, Any] | CrystalMathError

#: Jobs of one request, and its size in bytes.
MOST_JOBS = 1000
MOST_BYTES = 8 * 2**20

#: The largest job, in bytes; around it stands the request.
LARGEST = wire.MAX_MESSAGE - 2**20


def batches(
    submissions: Sequence[Submission], configured: Config, environment: Mapping[str, str]
) -> Iterator[dict[int, Written]]:
    """Write submissions as the parameters of ``jobs.submit``, many at a time.

    Yields
    ------
    dict
        For the number of each submission what is to be sent, or why it cannot be sent.
    """
    from crystalmath.client.request import document

    def written(submission: Submission) -> Written:
        try:
            return document(submission, configured, environment)
        except CrystalMathError as error:
            return error

    return map(dict, batched((i, written(one)) for i, one in enumerate(submissions)))


def batched(asked: Iterable[tuple[_Name, Written]]) -> Iterator[list[tuple[_Name, Written]]]:
    """Divide what is to be sent, each by its name, in its order.

    What is too large to be sent has an error in its place.
    """
    batch: list[tuple[_Name, Written]] = []
    total = 0
    for name, given in asked:
        written, size = given, 0
        if not isinstance(given, CrystalMathError):
            try:
                size = _size(given)
            except CrystalMathError as error:
                written = error
        if batch and (len(batch) >= MOST_JOBS or total + size > MOST_BYTES):
            yield batch
            batch, total = [], 0
        batch.append((name, written))
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
