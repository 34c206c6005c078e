"""The report on a recipe: records that the warm child sends and the verdict reads."""

from __future__ import annotations

import errno
import json
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from attrs import asdict, field, frozen

from crystalmath.models.inputs import StepInputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = [
    "CalledJob",
    "FileFacts",
    "Need",
    "Report",
    "Starts",
    "Step",
    "Trouble",
    "is_passing",
    "trouble",
    "troubles_of",
]

Starts: TypeAlias = tuple[tuple[str, ...], ...]


@frozen(kw_only=True)
class Need:
    """A file that a calculation reads, a pseudopotential for example.

    Parameters
    ----------
    symbol : str
        Chemical symbol; empty if the file belongs to no element.
    setup : str
        The name that people use: a dataset (``Ba_sv``), or the file's name.
    path : str
        The path as the calculator spells it.
    reason : str
        The setting that chose it: ``preset BulkSet``, ``parameter setups``, ...
    """

    symbol: str
    setup: str
    path: str
    reason: str


@frozen(kw_only=True)
class Trouble:
    """An exception that keeps a calculation from beginning.

    Parameters
    ----------
    where : str
        The place: the ``recipe``'s own code, the ``structure``, the writing of the ``input``, the
        reading of the files (``parse``), or a word of the program's own.
    type : str
        The name of the exception's class.
    message : str
        The exception's text.
    """

    where: str
    type: str
    message: str

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type


@frozen(kw_only=True)
class Step:
    """A calculation that the recipe would start.

    Parameters
    ----------
    calculator : str
        The name of its program (:attr:`crystalmath.plugins.program.Program.name`). If no program
        is known, the calculator's class in lower case.
    needs : tuple of Need
        The files in the calculator's own order.
    root : str, optional
        The folder of all these files; ``None`` if the calculator looks below the working
        directory.
    custodian : bool
        Custodian reads the files before the program does.
    troubles : tuple of Trouble
        The exceptions that keep it from beginning. Missing files are not among them.
    unknown : mapping of str to str or None
        Parameters that neither ASE nor the program knows, each with the nearest known one.
    by_element : bool
        Only the elements, in their order, and the parameters choose the files.
    by_index : bool
        Despite `by_element`, the index of an atom chooses a file.
    inputs : StepInputs, optional
        The program's input, if it was requested and can be written.
    starts : tuple of tuple of str
        The commands that may start it, without the launcher. Each group stands for its first
        command that is there. There are several groups if the cell decides between them, since
        other cells may share the report; there are none if the commands are unknown.
    tags : mapping of str to str
        Settings of its input, as written there, that its program's findings use.
    of_cores : tuple of tuple of str and str
        The file and name of each setting that depends on the machine's number of cores. It is
        known only with `inputs`.
    """

    calculator: str
    needs: tuple[Need, ...] = ()
    root: str | None = None
    custodian: bool = False
    troubles: tuple[Trouble, ...] = ()
    unknown: Mapping[str, str | None] = field(factory=dict)
    by_element: bool = False
    by_index: bool = False
    inputs: StepInputs | None = None
    starts: Starts = ()
    tags: Mapping[str, str] = field(factory=dict)
    of_cores: tuple[tuple[str, str], ...] = ()


@frozen(kw_only=True)
class FileFacts:
    """The state and content of a file that a calculation reads.

    Parameters
    ----------
    signature : tuple of int, optional
        Modification and change time (ns), size, inode; ``None`` if it cannot be reached.
    problem : str, optional
        The reason why a calculation cannot read it, or would refuse it: ``missing``,
        ``compressed`` (only ``POTCAR.Z``), ``broken_link``, ``link_loop``, ``not_a_file``,
        ``unreadable``, ``empty``, ``not_text``, ``no_header``, ``truncated``, ``several``
        (datasets in one file), ``stray_text`` (behind the dataset).
    detail : str, optional
        More about the problem, for people.
    sha256 : str, optional
        Hash of the whole file, in hexadecimal.
    element : str, optional
        The element in the file's header.
    titel : str, optional
        ``PAW_PBE Ba_sv 06Sep2000``.
    lexch : str, optional
        ``PE``, ``CA``, ...
    zval : float, optional
        Number of valence electrons.
    hash_holds : bool, optional
        Whether the hash in its header fits its content; ``None`` if the header has none.
    official : bool, optional
        Whether it is one of the program's own files; ``None`` if that is unknown.
    loose_end : bool
        Its end is harmless, unless the calculation appends another file to it.
    """

    signature: tuple[int, ...] | None = None
    problem: str | None = None
    detail: str | None = None
    sha256: str | None = None
    element: str | None = None
    titel: str | None = None
    lexch: str | None = None
    zval: float | None = None
    hash_holds: bool | None = None
    official: bool | None = None
    loose_end: bool = False


@frozen(kw_only=True)
class CalledJob:
    """A job that a flow calls: a step of the flow.

    Parameters
    ----------
    name : str
        The step's name.
    recipe : str, optional
        Its full name; ``None`` if it runs in the flow's own process.
    formula : str, optional
        The formula of its structure, which may be a stand-in for another job's result.
    steps : tuple of int and int
        Its calculations in the report: the first, and the one after the last.
    findings : tuple of dict
        Findings about implausible arguments, if they were requested.
    known : bool
        The flow calls it before it needs a result. Whether it calls the others depends on results.
    """

    name: str
    recipe: str | None
    formula: str | None = None
    steps: tuple[int, int] = (0, 0)
    findings: tuple[dict[str, Any], ...] = ()
    known: bool = False


@frozen(kw_only=True)
class Report:
    """The calculations of a recipe and the files that they read.

    Parameters
    ----------
    steps : tuple of Step
        The calculations that were seen, in order.
    end : {"done", "stopped", "failed"}
        The recipe came to its end; or the rest depends on results that do not exist yet; or its
        own code failed for a permanent reason.
    trouble : Trouble, optional
        The reason why it did not come to its end.
    files : mapping of str to FileFacts
        The files by the path of each :class:`Need`.
    survives : bool
        Its first calculation cannot begin, and the recipe catches that and goes on.
    calls : tuple of CalledJob
        The jobs that it calls, if it is a flow.
    awaits : str, optional
        The result that a flow needs before it calls further jobs, if that was requested.
    """

    steps: tuple[Step, ...] = ()
    end: Literal["done", "stopped", "failed"] = "done"
    trouble: Trouble | None = None
    files: Mapping[str, FileFacts] = field(factory=dict)
    survives: bool = False
    calls: tuple[CalledJob, ...] = ()
    awaits: str | None = None

    def to_json(self) -> str:
        """Return the report as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Return the report that :meth:`to_json` wrote."""
        document: dict[str, Any] = json.loads(text)
        return cls(
            steps=tuple(map(_step, document["steps"])),
            end=document["end"],
            trouble=Trouble(**document["trouble"]) if document["trouble"] else None,
            files={path: _facts(facts) for path, facts in document["files"].items()},
            survives=document["survives"],
            calls=tuple(map(_call, document["calls"])),
            awaits=document["awaits"],
        )


def _step(document: dict[str, Any]) -> Step:
    needs = tuple(Need(**need) for need in document.pop("needs"))
    troubles = tuple(Trouble(**trouble) for trouble in document.pop("troubles"))
    inputs = document.pop("inputs")
    starts = tuple(map(tuple, document.pop("starts")))
    cores = document.pop("of_cores")
    return Step(
        **document,
        starts=starts,
        of_cores=tuple((file, name) for file, name in cores),
        needs=needs,
        troubles=troubles,
        inputs=None if inputs is None else StepInputs.read(inputs),
    )


def _call(document: dict[str, Any]) -> CalledJob:
    first, last = document.pop("steps")
    return CalledJob(**{**document, "findings": tuple(document["findings"])}, steps=(first, last))


def _facts(document: dict[str, Any]) -> FileFacts:
    signature = document["signature"]
    return FileFacts(**{**document, "signature": None if signature is None else tuple(signature)})


#: The most characters of an exception's message.
_LONGEST = 2000
#: Errors of this machine, such as a full disk: the job did not cause them.
_PASSING = {
    errno.EDQUOT,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ENOSPC,
    errno.EROFS,
}


def trouble(where: str, error: BaseException) -> Trouble:
    """Return the record of an exception."""
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - an exception's own __str__ may raise anything
        message = "(its message cannot be shown)"
    return Trouble(where=where, type=type(error).__name__, message=message[:_LONGEST])


def is_passing(error: BaseException) -> bool:
    """Return whether an exception comes from this machine's present state, not from the job."""
    return isinstance(error, MemoryError) or getattr(error, "errno", None) in _PASSING


def troubles_of(where: str, call: Callable[[], Any]) -> Iterator[Trouble]:
    """Call a part of a calculation, and yield the trouble of its exception, if it raises one."""
    try:
        call()
    except Exception as error:
        if is_passing(error):
            raise
        yield trouble(where, error)
