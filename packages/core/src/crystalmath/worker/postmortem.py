"""The report of a failed recipe: its cause, the last output of its program, and the place.

quacc wraps what a calculator raised into a ``JobFailure`` and renames the directory of the
calculation. The messages of VASP or Quantum ESPRESSO stand in files there.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING

from crystalmath.errors import InvalidJob
from crystalmath.jobs.last_geometry import last_geometry
from crystalmath.jobs.written_spec import WrittenSpec
from crystalmath.recipes import codec
from crystalmath.worker.complaints import complaint, lines_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crystalmath.jobs.rundir import RunDirectory

#: The output files of programs, in the order in which their ends are shown; they may be compressed.
_OUTPUTS = ("vasp.out", "std_err.txt", "OUTCAR", "*.out", "*.err", "CRASH")
#: The number of lines that are shown of each file, and their width.
_LINES = 8
_WIDTH = 160
#: The number of bytes that are read from the end of each file.
_TAIL = 4096
#: A cause is cut here. Some errors carry a whole file.
_CAUSE = 4000
#: The number of entries of a working directory that are searched.
_ENTRIES = 20_000
#: Open MPI's lines after every abort.
_BOILERPLATE = re.compile(
    r"-{70,}|MPI_ABORT was invoked on rank .*|Proc: \[\[.*|with errorcode .*|Errorcode: .*"
    r"|NOTE: invoking MPI_ABORT .*|You may or may not see output from .*"
    r"|exactly when Open MPI kills them\.?"
)
#: Lines of CRASH that are no message.
_CRASH_HEAD = re.compile(r"%%%|task #|from .* : error #")


def describe(error: BaseException, work: str) -> str:
    """Return why a recipe failed. This never raises, whatever the error or the files are.

    The cause comes after the program's own error, if that is clear. If the recipe ran a program
    that wrote files, their directory, which exists, and their last lines follow.
    """
    place, message, last_words = None, None, []
    # The cause must be reported even if the disk cannot be read.
    with contextlib.suppress(Exception):
        place = _place(error, work)
        last_words = _last_words(place) if place else []
        message = complaint(place) if place else None
    if isinstance(error, SystemExit):
        cause = f"the recipe called sys.exit({error.code!r})"
    elif isinstance(parent := _of(error, "parent_error"), BaseException):
        # quacc's own message names the place of the files; the calculator knew another name.
        cause = f"{_line(parent)} ({_line(error)})"
        if place:
            head, name = os.path.split(place)
            old = os.path.join(head, name.replace("failed-", "tmp-", 1))
            cause = _line(parent).replace(old, place)
    else:
        cause = _line(error)
    if message:
        # The program's own message comes first: Python mostly only met its end.
        first, *others = cause.split("\n")
        cause = "\n".join([f"{message} ({first})", *others])
    where = [f"the calculation's files are in {place}"] if place else []
    return "\n".join([cause, *where, *last_words])


def runaway(directory: RunDirectory, attempt: int) -> str:
    """Return two lines that stand before the error of a job that ran away; else nothing.

    The first line names the cause alone, as errors are grouped by their first lines. It never
    raises, whatever the files are.
    """
    from crystalmath.jobs.runaway import find_runaway

    with contextlib.suppress(Exception):
        header, body = directory.read_spec()
        atoms, _ = codec.decode_spec(body)
        # The calculations of a flow belong to its steps, which are judged by themselves.
        if atoms is not None and not WrittenSpec.of(header).flow:
            with contextlib.suppress(
                InvalidJob
            ):  # it failed at the first geometry and has no other
                atoms = last_geometry(directory, attempt, atoms).atoms
            if (ran_away := find_runaway(atoms, directory.work(attempt))) is not None:
                return f"{ran_away.cause}\n{ran_away.details}\n"
    return ""


def _of(error: BaseException, name: str) -> object:
    # A foreign exception may fail even at that.
    with contextlib.suppress(Exception):
        return getattr(error, name, None)
    return None


def _line(error: BaseException) -> str:
    text = "(its message cannot be shown)"
    with contextlib.suppress(Exception):  # the message of a foreign exception may fail
        text = str(error)
    if len(text) > _CAUSE:
        text = f"{text[:_CAUSE]} ..."
    return f"{type(error).__name__}: {text}"


def _place(error: BaseException, work: str) -> str | None:
    """Return the directory of the calculation that failed, or else of the last one."""
    directory = _of(error, "directory")
    if isinstance(directory, (str, os.PathLike)) and os.path.isdir(directory):
        return os.fspath(os.path.abspath(directory))
    newest = max(_outputs(work), default=None)
    return newest[1] if newest else None


def _outputs(work: str) -> Iterator[tuple[float, str]]:
    """Yield the time and the folder of each output file of a program."""
    seen = 0
    for directory, _, names in os.walk(work):
        for name in names:
            seen += 1
            if seen > _ENTRIES:
                return
            if any(_is_called(name, each) for each in _OUTPUTS):
                with contextlib.suppress(OSError):
                    yield os.lstat(f"{directory}/{name}").st_mtime, directory


def _is_called(name: str, pattern: str) -> bool:
    name = name.removesuffix(".gz")
    return name.endswith(pattern[1:]) if pattern[0] == "*" else name == pattern


def _last_words(place: str) -> list[str]:
    shown: list[str] = []
    left = sorted(os.listdir(place))
    for pattern in _OUTPUTS:
        for name in [name for name in left if _is_called(name, pattern)]:
            left.remove(name)
            lines = [
                f"  {line[:_WIDTH]}"
                for line in lines_of(f"{place}/{name}", _TAIL, _WIDTH)
                if not _BOILERPLATE.fullmatch(line.strip())
            ][-_LINES:]
            # The message in CRASH is mostly in the output, too.
            if lines and not (name == "CRASH" and _message(lines) <= set(shown)):
                shown += [f"the end of {name}:", *lines]
    return shown[: 5 * (_LINES + 1)]


def _message(lines: list[str]) -> set[str]:
    return {line for line in lines if not _CRASH_HEAD.match(line.strip())}
