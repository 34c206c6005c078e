"""Errors and warnings of clients, and how an answer becomes one."""

# ruff: noqa: N818 - the public names say what is the case, and end in no "Error"

from __future__ import annotations

import inspect
import warnings
from typing import TYPE_CHECKING, Any

from crystalmath.errors import CrystalMathError, JobRefused, ServerError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

#: The most different warnings for one request.
MOST_WARNINGS = 10


class JobFailed(CrystalMathError):
    """The job has failed.

    Attributes
    ----------
    job_id : str
        The job's id.
    error : str
        The reason on its record.
    traceback : str or None
        The recipe's traceback, if it raised.
    """

    code = "job_failed"

    def __init__(self, job_id: str, error: str, traceback: str | None = None) -> None:
        super().__init__(job_id, error, traceback)
        self.job_id = job_id
        self.error = error
        self.traceback = traceback

    def __str__(self) -> str:
        return f"job {self.job_id} failed: {self.error}"


class ConnectionLost(ServerError):
    """The server went away during a request, or did not answer in time."""

    code = "connection_lost"


class ClientClosed(CrystalMathError):
    """The client was closed."""

    code = "client_closed"


class SubmissionWarning(UserWarning):
    """A job was accepted, but something about it may be a mistake."""


class ServerMismatch(UserWarning):
    """The server has another home, Python or recipe namespaces than this process."""


def warn_of(answers: Iterable[Mapping[str, Any]]) -> None:
    """Issue the warnings about accepted jobs; equal ones once."""
    from crystalmath.models import Finding

    findings = [Finding(**each) for answer in answers for each in answer.get("warnings", ())]
    distinct = dict.fromkeys(map(str, findings))
    texts = [f"accepted with a warning: {text}" for text in distinct][:MOST_WARNINGS]
    if len(distinct) > MOST_WARNINGS:
        texts.append(
            f"accepted with {len(distinct) - MOST_WARNINGS} more warnings; "
            "future.info().warnings has them"
        )
    for text in texts:
        warnings.warn(text, SubmissionWarning, stacklevel=outside())


def outside() -> int:
    """Return the stack level of the code that called this package."""
    # `skip_file_prefixes` does this from Python 3.12 on.
    level, frame = 0, inspect.currentframe()
    while frame and str(frame.f_globals.get("__name__")).startswith(__package__):
        level, frame = level + 1, frame.f_back
    return level


def raise_answered(answer: Mapping[str, Any]) -> None:
    """Raise the error that an answer describes, if it describes one."""
    if answer.get("code") is not None:
        raise answered_error(answer)


def answered_error(answer: Mapping[str, Any]) -> CrystalMathError:
    """Return the error that an answer describes, of the class that has its code."""
    code, message = answer["code"], str(answer["error"])
    if answer.get("findings"):
        from crystalmath.models import Finding

        return JobRefused([Finding(**finding) for finding in answer["findings"]])
    for kind in _family(CrystalMathError):
        if kind.code == code:
            # The message is complete; an __init__ of the class would build it again.
            error = kind.__new__(kind, message)
            break
    else:
        error = CrystalMathError(message)
        error.code = code
    error.place = answer.get("place")
    return error


def _family(kind: type[CrystalMathError]) -> Iterator[type[CrystalMathError]]:
    yield kind
    for other in kind.__subclasses__():
        yield from _family(other)
