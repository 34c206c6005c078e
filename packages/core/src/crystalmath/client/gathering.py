"""Waits for many jobs, and gives what became of each."""

from __future__ import annotations

from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from crystalmath.client.progress_bar import watch
from crystalmath.errors import CrystalMathError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystalmath.client.future import JobFuture


def gather(
    answers: Sequence[JobFuture | CrystalMathError],
    *,
    progress: bool | None,
    return_exceptions: bool,
) -> list[Any]:
    """Return the results of jobs in their order; see :meth:`~crystalmath.client.Client.map`.

    Parameters
    ----------
    answers : sequence of (JobFuture or CrystalMathError)
        What became of the submissions.
    progress : bool, optional
        Whether to show a bar.
    return_exceptions : bool
        Whether to give errors in their places.
    """
    accepted = [one for one in answers if not isinstance(one, CrystalMathError)]
    if not return_exceptions:
        _raise_refusal(answers, len(accepted))
    # Each result is fetched while the others are still being computed.
    outcomes = {future: _outcome(future) for future in watch(accepted, shown=progress)}
    results = [one if isinstance(one, CrystalMathError) else outcomes[one] for one in answers]
    for outcome in () if return_exceptions else results:
        if isinstance(outcome, Exception):
            raise outcome
    return results


def _raise_refusal(answers: Sequence[JobFuture | CrystalMathError], accepted: int) -> None:
    for index, answer in enumerate(answers):
        if isinstance(answer, CrystalMathError):
            answer.add_note(
                f"structure {index} of {len(answers)}; {accepted} others were accepted and go on; "
                "return_exceptions=True gives their results"
            )
            raise answer


def _outcome(future: JobFuture) -> Any:
    try:
        return future.result()
    except (CrystalMathError, CancelledError) as error:
        return error
