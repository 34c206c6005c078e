"""What can go wrong between a client and its jobs, beside what a submission is refused for."""

from __future__ import annotations

import inspect
import warnings
from typing import TYPE_CHECKING, Any

from crystalmath.errors import CrystalMathError, JobRefused, ServerError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

#: So many different warnings are given of one request.
_TOLD = 10


class JobFailed(CrystalMathError):  # noqa: N818 - named for what is the case
    """The job has failed.

    Attributes
    ----------
    job_id : str
        Which one.
    error : str
        Why, as its record says.
    traceback : str or None
        The recipe's traceback, where it raised.
    """

    code = "job_failed"

    def __init__(self, job_id: str, error: str, traceback: str | None = None) -> None:
        super().__init__(job_id, error, traceback)
        self.job_id = job_id
        self.error = error
        self.traceback = traceback

    def __str__(self) -> str:
        return f"job {self.job_id} failed: {self.error}"


class ConnectionLost(ServerError):  # noqa: N818 - named for what is the case
    """The server went away, or did not answer, in the middle of a request."""

    code = "connection_lost"


class ClientClosed(CrystalMathError):  # noqa: N818 - named for what is the case
    """The client was closed."""

    code = "client_closed"


class ProtocolMismatch(ServerError):  # noqa: N818 - named for what is the case
    """The server is of another build than this client, or speaks another protocol."""

    code = "protocol"


class SubmissionWarning(UserWarning):
    """A job was accepted, and something about it may not be as it was meant."""


class ServerMismatch(UserWarning):
    """The server is not like this process: another home, Python or recipe namespaces."""


def warn_of(answers: Iterable[Mapping[str, Any]]) -> None:
    """Warn of what was found of jobs that were accepted: once of what is alike."""
    from crystalmath.models import Finding

    found = [Finding(**each) for answer in answers for each in answer.get("warnings", ())]
    told = dict.fromkeys(map(str, found))
    texts = [f"accepted with a warning: {text}" for text in told][:_TOLD]
    if len(told) > _TOLD:
        texts.append(
            f"accepted with {len(told) - _TOLD} more warnings; future.info().warnings has them"
        )
    for text in texts:
        warnings.warn(text, SubmissionWarning, stacklevel=outside())


def outside() -> int:
    """Return how far up the stack the code is that called this package."""
    # `skip_file_prefixes` does this from Python 3.12 on.
    level, frame = 0, inspect.currentframe()
    while frame and str(frame.f_globals.get("__name__")).startswith(__package__):
        level, frame = level + 1, frame.f_back
    return level


def raise_answered(answer: Mapping[str, Any]) -> None:
    """Raise what an answer says was wrong with the request; do nothing where it was right."""
    if answer.get("code") is not None:
        raise answered_error(answer)


def answered_error(answer: Mapping[str, Any]) -> CrystalMathError:
    """Make the error that an answer describes, of the class that has its code."""
    code, message = answer["code"], str(answer["error"])
    if answer.get("findings"):
        from crystalmath.models import Finding

        return JobRefused([Finding(**finding) for finding in answer["findings"]])
    for kind in _family(CrystalMathError):
        if kind.code == code:
            # Past their own __init__, which builds the message that is there already.
            return kind.__new__(kind, message)
    error = CrystalMathError(message)
    error.code = code
    return error


def _family(kind: type[CrystalMathError]) -> Iterator[type[CrystalMathError]]:
    yield kind
    for other in kind.__subclasses__():
        yield from _family(other)
