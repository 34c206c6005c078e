"""The family of errors that CrystalMath jobs raises on purpose.

Every message names the value, the place and the remedy. Programming errors of ours are never among
them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = [
    "BadFile",
    "ConfigError",
    "CrystalMathError",
    "EngineUnavailable",
    "FilesRemoved",
    "Finding",
    "InvalidJob",
    "JobRefused",
    "KeyConflict",
    "NoRecipe",
    "PlaceError",
    "PluginError",
    "ServedElsewhere",
    "ServerError",
    "ServerNotRunning",
    "StoreError",
    "UnknownEngine",
    "UnknownJob",
    "did_you_mean",
    "one_line",
    "shown",
    "words_of",
]

#: How much of a value a message shows, in characters.
_SHOWN = 80


def shown(value: object) -> str:
    """Write a value for a message, cut; of a huge one only the beginning is read."""
    text = ""
    for piece in _pieces(value):
        text += piece
        if len(text) >= _SHOWN:
            break
    return text[:_SHOWN]


def is_slip(name: str, known: str) -> bool:
    """Return whether a name has one letter more, less or changed, or two exchanged."""
    pairs = enumerate(zip(name, known, strict=False))
    same = next((n for n, (a, b) in pairs if a != b), min(len(name), len(known)))
    one, other = name[same:], known[same:]
    exchanged = (one[1:2] + one[:1], one[2:]) == (other[:2], other[2:])
    return one != other and (
        one[1:] in {other, other[1:]} or one == other[1:] or (exchanged and len(one) > 1)
    )


def one_line(value: object) -> str:
    """Write a path, a value or an error on one line, quoted where it could be misread."""
    text = str(value)
    return text if text.isprintable() and text == text.strip() else repr(text)


def words_of(error: BaseException) -> str:
    """Return the words of an error on one line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return one_line(" ".join(str(text).split()))


def did_you_mean(name: object, known: Iterable[str], otherwise: str | None = None) -> str:
    """Return the hint for an unknown name, for the end of a message: the nearest known name.

    If none is near, the hint is `otherwise`, or else the list of known names.
    """
    import difflib

    names = list(known)
    # The search for a name of a million characters would take minutes.
    near = difflib.get_close_matches(str(name)[:_SHOWN], names, 1)
    if near:
        return f"did you mean {near[0]!r}?"
    if otherwise is not None:
        return otherwise
    return f"known are {', '.join(names)}" if names else "there are none"


def _pieces(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield repr(value[:_SHOWN])
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield ", " if number else "["
            yield from _pieces(item)
        yield "]" if value else "[]"
    elif isinstance(value, dict):
        for number, (name, item) in enumerate(value.items()):
            yield ", " if number else "{"
            yield from _pieces(name)
            yield ": "
            yield from _pieces(item)
        yield "}" if value else "{}"
    else:
        yield repr(value)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One result of a preflight check.

    Parameters
    ----------
    severity : {"error", "warning"}
        An error refuses the job, a warning travels with it.
    code : str
        A short name that stays the same when the wording changes.
    message : str
        The trouble, with the value and the place.
    path : str, optional
        The file or folder of the finding.
    source : str, optional
        The setting or parameter that names the path.
    remedy : str, optional
        The advice for the user.
    place : str, optional
        The parameter of the request, ``params.opt_params.fmax``.
    """

    severity: Literal["error", "warning"]
    code: str
    message: str
    path: str | None = None
    source: str | None = None
    remedy: str | None = None
    place: str | None = None

    def __str__(self) -> str:
        return f"{self.message} ({self.remedy})" if self.remedy else self.message


#: The code of a warning for a parameter that is most likely misspelt. It refuses the job unless the
#: submission is `lax`.
MISSPELT = "parameter_misspelt"


class CrystalMathError(Exception):
    """Base of all errors that this package raises on purpose.

    Attributes
    ----------
    code : str
        A short name that stays the same when the wording changes; front ends may branch on it.
    place : str or None
        The parameter of a request that caused it, if that is known.
    """

    code = "error"
    place: str | None = None

    def at(self, place: str) -> Self:
        """Set the parameter of a request that caused the error, unless one is set; return self."""
        self.place = self.place or place
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        # A pool, say, must not call `__init__`, which may take other arguments than the message.
        return _remade, (type(self), self.args, self.__dict__)


def _remade(
    kind: type[CrystalMathError], args: tuple[Any, ...], state: dict[str, Any]
) -> CrystalMathError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


def fault(error: CrystalMathError | ImportError, place: str | None = None) -> Finding:
    """Return an error as a finding about the parameter that it names, or else about `place`."""
    code, named = getattr(error, "code", "import"), getattr(error, "place", None)
    return Finding(severity="error", code=code, message=str(error), place=named or place)


class ConfigError(CrystalMathError, ValueError):
    """The configuration file or an environment variable cannot be used as it is."""

    code = "config"


class InvalidJob(CrystalMathError, ValueError):
    """A submission that cannot become a job. Nothing was recorded, written or started.

    Attributes
    ----------
    job_id : str or None
        The refused job, if several were to be recorded together.
    """

    code = "invalid_job"
    job_id: str | None = None


class NoRecipe(InvalidJob):
    """A name in quacc's modules that is no recipe."""


class KeyConflict(InvalidJob):
    """An idempotency key that already belongs to a job with another specification."""

    code = "key_conflict"

    @classmethod
    def of(cls, key: str | None, job_id: str, differing: Sequence[str] = ()) -> KeyConflict:
        """Return the error for a key, its job, and the known differences between the two jobs."""
        differences = f" (it differs in {', '.join(differing[:5])})" if differing else ""
        return cls(
            f"the key {key!r} belongs to job {job_id}, which has another specification"
            f"{differences}; submit the same again, or this job with another key"
        )


class NotSubmitted(InvalidJob):
    """A job that is not submitted, as another one of its request was refused."""

    code = "not_submitted"

    @classmethod
    def of(cls, position: int, name: str | None) -> NotSubmitted:
        """Return the error for the position of the refused job, from 0, and its name, if any."""
        which = shown(name) if name else f"number {position} of the request"
        return cls(f"not submitted, as {which} was refused")


class AlreadyRetried(InvalidJob):
    """A job that was to run again only if no other job is a retry of it."""

    code = "retried"

    @classmethod
    def of(cls, job_id: str, state: str) -> AlreadyRetried:
        """Return the error for an existing retry and its state."""
        return cls(f"it was run again already, as job {job_id} ({state})")


class JobRefused(InvalidJob):
    """A preflight check found that the job would fail.

    Parameters
    ----------
    findings : sequence of Finding
        All findings, warnings included.
    """

    code = "refused"

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = tuple(findings)
        errors = [finding for finding in self.findings if finding.severity == "error"]
        super().__init__("\n".join(str(finding) for finding in errors))


class UnknownJob(CrystalMathError, KeyError):
    """No job has this id."""

    code = "unknown_job"

    def __init__(self, job_id: object) -> None:
        quoted = f"{job_id!r:.80}" if isinstance(job_id, str) else shown(job_id)
        super().__init__(f"no job has the id {quoted}")

    def __str__(self) -> str:
        # KeyError would show the repr of the message.
        return str(self.args[0])


#: Characters of a whole job id.
ID_LENGTH = 36


def the_one(prefix: str, matches: Sequence[str]) -> str:
    """Return the only job id among the matches of a prefix.

    Raises
    ------
    UnknownJob
        There is none.
    InvalidJob
        There are several, or `prefix` is empty, as in a script whose variable is not set.
    """
    if not prefix.strip():
        raise InvalidJob("the id of a job is empty; 'crystalmath list' shows the ids there are")
    if not matches:
        raise UnknownJob(prefix)
    if len(matches) > 1:
        raise InvalidJob(f"several job ids begin with {prefix!r}: {', '.join(matches)}, ...")
    return matches[0]


class UnknownEngine(CrystalMathError, ValueError):
    """No installed plugin provides this engine."""

    code = "unknown_engine"


class EngineUnavailable(CrystalMathError):
    """The engine cannot be reached just now; the same attempt is tried again later.

    Engines raise it from ``launch``, ``probe`` and ``release`` for trouble that passes: a server
    that does not answer, a busy scheduler.
    """

    code = "engine_unavailable"


class PluginError(CrystalMathError):
    """A plugin breaks the rules: a duplicate name, a misspelt hook, the wrong kind of object."""

    code = "plugin"


class BadFile(CrystalMathError):
    """A file of a run directory cannot be read: damaged, or written by somebody else."""

    code = "bad_file"


class FilesRemoved(CrystalMathError):
    """The files of a job were removed; its record exists."""

    code = "files_removed"


class StoreError(CrystalMathError):
    """The job database cannot be used as it is."""

    code = "store"


class UnknownSchemaError(StoreError):
    """The job database has the schema of a newer release, or of an unreleased build."""


class PlaceError(CrystalMathError):
    """The home, or the place of its socket, cannot be used, or must not be trusted."""

    code = "place"


class ServerError(CrystalMathError):
    """The home's server could not be started, does not answer, or is there already."""

    code = "server"


class Unreachable(ServerError):
    """A home on another machine cannot be reached, or what answers there is no server of it."""

    code = "unreachable"


class ServedElsewhere(ServerError):
    """A server on another host serves this home; a second one is never started."""

    code = "served_elsewhere"


class ServerNotRunning(ServerError):
    """No server of this home runs."""

    code = "server_not_running"
