"""Output of the commands: one JSON document, or text for people."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Self

    from rich.console import Console
    from rich.status import Status
    from rich.table import Table

    from crystalmath.wire.answers import JobDocument

#: A width that cuts no line, in columns.
_WIDEST = 100_000
#: The factor between two units of a size.
_UNIT = 1024
#: Characters that may be unprintable: all but line ends, tabs and ASCII.
_UNUSUAL = re.compile(r"[^\n\t -~]")
#: The most names of refused jobs that are shown.
_NAMED = 3


def write(text: str) -> None:
    """Write lines to standard output, without control characters."""
    sys.stdout.write(printable(text) + "\n")


def note(text: str) -> None:
    """Write a message to standard error, without control characters."""
    sys.stderr.write(printable(text) + "\n")
    sys.stderr.flush()


def write_json(document: object) -> int:
    """Write the one JSON document of a command to standard output, and return the exit code 0.

    Adds the key ``error`` with ``None`` if the document has none.
    """
    if isinstance(document, dict):
        document.setdefault("error", None)
    import json  # keep it out of the start of the help

    sys.stdout.write(json.dumps(document, allow_nan=False) + "\n")
    return 0


def refuse(message: str, place: str | None = None) -> NoReturn:
    """Raise a usage error about the argument or option `place`."""
    raise typer.BadParameter(message, param_hint=place)


def error_document(
    error: BaseException, code: str, job_id: object = None, **shape: object
) -> dict[str, Any]:
    """Return an error in the form of ``jobs.*``, with the other keys of the command's document."""
    document = {
        "job_id": job_id,
        "status": "error",
        "error": str(error) or type(error).__name__,
        "code": code,
        **shape,
    }
    if findings := getattr(error, "findings", None):
        from crystalmath.models.job_notes import written_findings

        document["findings"] = written_findings(findings)
    if place := getattr(error, "place", None):
        document["place"] = place
    return document


def sentence(finding: Mapping[str, Any]) -> str:
    """Put a finding into words."""
    remedy = finding.get("remedy")
    text = f"{finding['message']} ({remedy})" if remedy else str(finding["message"])
    return with_option(text, finding.get("place"))


def error_text(answer: Mapping[str, Any]) -> str:
    """Return the error of an answer, with its findings in the words of the shell."""
    findings = answer.get("findings") or ()
    errors = [sentence(each) for each in findings if each["severity"] == "error"]
    return "\n".join(errors) or with_option(str(answer["error"]), answer.get("place"))


def with_option(text: str, place: str | None) -> str:
    """Name the option of the shell where a message names its place in the request."""
    if place is None or repr(place) not in text:
        return text
    from crystalmath.cli.shared.places import option_at

    return text.replace(repr(place), option_at(place) or repr(place))


def tell_alike(answers: Sequence[Mapping[str, Any]]) -> None:
    """Write refusals and warnings; equal ones once."""
    troubles = [(each["name"], *trouble) for each in answers for trouble in _trouble(each)]
    for line in alike(troubles, len(answers)):
        note(line)


def alike(troubles: Iterable[tuple[str, str, str]], count: int) -> Iterator[str]:
    """Yield lines for troubles (name of a job, kind, text); equal ones share a line.

    Names are left out if `count`, the number of all jobs, is one.
    """
    names: dict[tuple[str, str], list[str]] = {}
    for name, kind, text in troubles:
        names.setdefault((kind, text), []).append(name)
    for (kind, text), of in names.items():
        more = f" and {len(of) - _NAMED} more" if len(of) > _NAMED else ""
        which = f"{', '.join(of[:_NAMED])}{more}: " if count > 1 else ""
        yield f"{kind}: {which}{text}"


def _trouble(answer: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if answer["job_id"] is None and answer["status"] == "error":  # a dry run has no ids
        yield "error", error_text(answer)
    for warning in answer.get("warnings", ()):
        yield "warning", sentence(warning)


def potcar(file: Mapping[str, Any]) -> str:
    """Return a line about a pseudopotential file: element, title, setup and checksum."""
    known = f"{file['setup']}, {file['sha256'][:8]}…"
    title = file.get("titel")
    return f"{file['symbol']}: {title} ({known})" if title else f"{file['symbol']}: {known}"


def fields(pairs: Iterable[tuple[str, object]]) -> str:
    """Return lines of names and values; pairs without a value are left out."""
    shown = [(name, str(value)) for name, value in pairs if value not in (None, "")]
    width = max((len(name) for name, _ in shown), default=0) + 2
    # Indent the further lines of a value.
    below = "\n" + " " * width
    values = [(name, printable(value).replace("\n", below)) for name, value in shown]
    return "\n".join(f"{name:{width}}{value}" for name, value in values)


def resources(job: JobDocument) -> str:
    """Return the resources of a job by their names in ``--json``."""
    terms = dict(job["resources"])
    options: Mapping[str, str] = terms.pop("options", {})
    texts = [f"{name}={value}" for name, value in terms.items()]
    return ", ".join(
        [*texts, *(f"{name}={value}" if value else name for name, value in options.items())]
    )


def parent(link: Mapping[str, Any]) -> str:
    """Return the id of a parent, and the part of it that is used."""
    return f"{link['job_id']} ({taken_of(link)})"


def taken_of(link: Mapping[str, Any]) -> str:
    """Return the part of a job that another job uses or waits for."""
    if "taken_from" in link:
        again = {name: value for name, value in link.items() if name != "taken_from"}
        return f"{taken_of(again)}, of its retry {link['taken_from'][:8]}"
    if "file" in link:
        return f"the geometry in {link['file']}"
    if link["role"] == "after":
        return "its end" if link.get("awaited") == "any" else "its completion"
    if link["role"] == "value" or "path" in link:
        place = f" as {link['place']}" if "place" in link else ""
        return f"its {'.'.join(map(str, link.get('path') or ['result']))}{place}"
    if link["role"] == "structure":
        which = {None: "its final geometry", 0: "what it was given"}
        frame = link.get("frame")
        return which.get(frame, f"geometry {frame} of it")
    others = {
        "flow": f"its step {link.get('step')}",
        "taken": f"taken over, its step {link.get('step')}",
        "reread": "its calculations read again",
        "retry": "a retry of it",
    }
    return others[link["role"]]


def awaited(job: JobDocument) -> list[Mapping[str, Any]]:
    """Return the parents that a job waits for."""
    return [one for one in job["parents"] if "awaited" in one]


def summary_fields(job: JobDocument) -> list[tuple[str, object]]:
    """Return the names and values of a job's summary, with units."""
    summary: Mapping[str, Any] = job["result"] or {}
    from crystalmath.models.written import force_text

    energy, force = summary.get("energy_ev"), summary.get("max_force_ev_ang")
    steps, unused = summary.get("steps"), summary.get("by_step_unused")
    if counted := summary.get("flow_steps"):
        from crystalmath.models.job_notes import told_steps

        taken = summary.get("steps_taken_over")
        steps = f"{told_steps(counted)}{f', {taken} more taken over' if taken else ''}"
    elif steps:
        steps = f"{steps} in one job; energy, force, formula and work dir are those of the last"
    return [
        ("energy", None if energy is None else f"{energy:.10f} eV"),
        ("max force", None if force is None else f"{force_text(force)} eV/Å"),
        ("formula", summary.get("formula") or job["formula"]),
        ("steps", steps),
        ("unused", unused and f"{', '.join(unused)}: no step is called so"),
        ("as text", "\n".join(summary.get("as_text", ()))),
        ("note", _STOPPED if summary.get("asked_to_stop") else None),
        ("changed", "\n".join(map(_changed, summary.get("changed_files", ())))),
    ]


def work_dir(job: JobDocument) -> str | None:
    """Return a job's work directory; for a flow, the folder of links to those of its steps."""
    if job.get("steps") and job["work_dir"]:
        return f"{job['work_dir'].rpartition('/')[0]}/steps"
    return str((job["result"] or {}).get("work_dir") or job["work_dir"] or "") or None


def there(path: str | None) -> str | None:
    """Return a path of the home's machine as people read it here: ``hawk:/path`` of a remote."""
    from crystalmath.config import remote_name

    name = remote_name()
    return f"{name}:{path}" if name and path and "," not in name else path


def files_of_steps(job: JobDocument) -> str:
    """Return the end of a message about a flow's files; empty for any other job."""
    if not job.get("steps"):
        return ""
    return f": it is a flow; crystalmath list --parent {job['job_id'][:8]} lists its steps"


_STOPPED = "its program was asked to stop before its time was up, perhaps before all was done"


def _changed(path: str) -> str:
    return f"{path} was not, when the job ran, what it was at the submission"


def grid(
    headers: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: Sequence[str] = (),
    whole: Sequence[str] = (),
) -> Table:
    """Return a table; columns in `right` hold numbers, columns in `whole` are never shortened."""
    from rich.table import Table
    from rich.text import Text

    cells = [[Text(printable(cell)) for cell in row] for row in rows]
    grid = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for number, header in enumerate(headers):
        longest = max((row[number].cell_len for row in cells), default=0)
        width = max(longest, len(header)) if header in whole else None
        justify: Literal["left", "right"] = "right" if header in right else "left"
        grid.add_column(header, justify=justify, no_wrap=True, overflow="ellipsis", min_width=width)
    for row in cells:
        grid.add_row(*row)
    return grid


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], **how: Sequence[str]) -> None:
    """Print a table; see `grid`."""
    show(grid(headers, rows, **how))


def show(grid: Table, width: int | None = None) -> None:
    """Print a table that fits `width` or the terminal; other outputs get whole lines."""
    shown = console(width or full_width())
    with shown.capture() as captured:
        shown.print(grid)
    sys.stdout.write("\n".join(map(str.rstrip, captured.get().split("\n"))))


def console(width: int | None = None) -> Console:
    """Return a Rich console for standard output."""
    from rich.console import Console

    return Console(file=sys.stdout, highlight=False, width=width)


def full_width() -> int | None:
    """Return a width for whole lines; ``None`` on a terminal or with ``COLUMNS`` set."""
    return None if sys.stdout.isatty() or os.environ.get("COLUMNS") else _WIDEST


def printable(text: str) -> str:
    r"""Replace unprintable characters, which could control a terminal, by their codes in Python.

    Examples are ``\x1b`` and ``\u202e``. ``visible`` in the page's ``formats.js`` does the same.
    """
    return _UNUSUAL.sub(
        lambda match: match[0] if match[0].isprintable() else ascii(match[0])[1:-1], text
    )


def first_line(text: str) -> str:
    """Return the first line of an error."""
    return " ".join(printable(text.strip().partition("\n")[0]).split())


def short_recipe(name: str) -> str:
    """Return the name of a recipe without ``quacc.recipes.``."""
    return name.removeprefix("quacc.recipes.")


def without_files(job: JobDocument) -> str | None:
    """Return a sentence about removed files of a job; ``None`` if it has its files."""
    if job["removed"] is None:
        return None
    from crystalmath.models.job import Job

    return Job.read(job).without_files()


def counts(states: Mapping[str, int]) -> str:
    """Return the number of jobs, in total and in each state."""
    from crystalmath.models.job_notes import JobState

    # Ended states come first, then the others from the latest to the earliest.
    ended = [state.value for state in JobState if state.is_terminal()]
    order = [*ended, *(state.value for state in reversed(JobState) if not state.is_terminal())]
    parts = [f"{states[state]} {state}" for state in order if states.get(state)]
    total = sum(states.values())
    return f"{counted(total)}: {', '.join(parts)}" if total else "no jobs"


def counted(number: int, what: str = "job") -> str:
    """Return a number of things in words."""
    return f"{number} {what}{'s' * (number != 1)}"


def age(epoch_s: float) -> str:
    """Return the time since a moment, in its largest unit."""
    seconds = max(0.0, time.time() - epoch_s)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def size(count: float) -> str:
    """Return a number of bytes in its largest unit; units are of 1024, as in ``--memory``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < _UNIT:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= _UNIT
    return f"{count:.1f} TB"


@contextlib.contextmanager
def note_of_delay(text: str, after_s: float = 1.0) -> Iterator[None]:
    """Write a message to standard error if the block takes longer than `after_s`."""
    timer = threading.Timer(after_s, note, [text])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class LiveLine:
    """Lines on standard error, with a live line below them on a terminal."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._status: Status | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.text import Text

            console = Console(stderr=True, highlight=False)
            self._status = self._stack.enter_context(console.status(Text(self._text)))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def is_live(self) -> bool:
        """Whether there is a live line."""
        return self._status is not None

    def update(self, text: str) -> None:
        """Renew the live line."""
        if self._status is not None:
            from rich.text import Text

            self._status.update(Text(printable(text)))

    def say(self, text: str) -> None:
        """Write a permanent line."""
        if self._status is None:
            note(text)
        else:
            self._status.console.print(printable(text), markup=False)
