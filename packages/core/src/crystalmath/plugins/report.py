"""What a recipe was found to need: the records that the child sends and the verdict reads."""

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
        Chemical symbol; empty where it is for none.
    setup : str
        What a person calls it: a dataset (``Ba_sv``), or the file's name.
    path : str
        Where the calculator looks for it, as it spells it.
    reason : str
        Why this one: ``preset BulkSet``, ``parameter setups``, ``parameter pp_version``, ...
    """

    symbol: str
    setup: str
    path: str
    reason: str


@frozen(kw_only=True)
class Trouble:
    """Why a calculation cannot begin.

    Parameters
    ----------
    where : str
        In the ``recipe``'s own code, in the ``structure``, when the ``input`` is written, when the
        files are read (``parse``), or what else the program has a word for.
    type : str
        The name of the exception's class.
    message : str
        What it said.
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
        The name of its program (:attr:`crystalmath.plugins.program.Program.name`); of one that
        nobody knows the calculator's class, in lower case.
    needs : tuple of Need
        In the calculator's own order.
    root : str, optional
        The folder of all such files; ``None`` where the calculator looks below the working
        directory.
    custodian : bool
        Custodian reads the files before the program does.
    troubles : tuple of Trouble
        What keeps it from beginning, missing files apart.
    unknown : mapping of str to str or None
        Parameters that neither ASE nor the program knows, and the known one that may be meant.
    by_element : bool
        Elements, in their order, choose the files, together with the parameters: nothing else of
        the structure does.
    by_index : bool
        Not here, though: an index of an atom chooses one.
    inputs : StepInputs, optional
        What the program would get, where that was asked for and can be written.
    starts : tuple of tuple of str
        The commands that may start it, without what stands before them: of each group the first
        that is there. Several groups where it is not known which of them it is, as the cell, which
        others that share the report have otherwise, decides it; none where nobody can tell.
    tags : mapping of str to str
        The settings of its input that its program's own findings go by, as they are written there.
    of_cores : tuple of tuple of str and str
        The settings, by their files and names, that depend on how many cores the machine has on
        which the recipe runs. Known with `inputs` alone.
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
    """What is known of a file that a calculation reads.

    Parameters
    ----------
    signature : tuple of int, optional
        Modification and change time (ns), size, inode; ``None`` where it cannot be reached.
    problem : str, optional
        Why a calculation cannot read it, or would refuse it: ``missing``, ``compressed`` (only
        ``POTCAR.Z``), ``broken_link``, ``link_loop``, ``not_a_file``, ``unreadable``,
        ``empty``, ``not_text``, ``no_header``, ``truncated``, ``several`` (datasets in one file),
        ``stray_text`` (behind the dataset).
    detail : str, optional
        More of it, for people.
    sha256 : str, optional
        Of the whole file, in hexadecimal.
    element : str, optional
        The element that the file says it is for.
    titel : str, optional
        ``PAW_PBE Ba_sv 06Sep2000``.
    lexch : str, optional
        ``PE``, ``CA``, ...
    zval : float, optional
        Number of valence electrons.
    hash_holds : bool, optional
        Whether the hash in its header is that of its content; ``None`` where it has none.
    official : bool, optional
        Whether it is known as one of the program's own; ``None`` where that is not known.
    loose_end : bool
        Harmless, unless the calculation puts another file behind it.
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
    """A job that a flow calls, which will be a step of it.

    Parameters
    ----------
    name : str
        That of the step.
    recipe : str, optional
        Its full name; ``None`` where it runs in the flow's own process.
    formula : str, optional
        Of the structure that it is called with, be it a stand-in for another's result.
    steps : tuple of int and int
        Its calculations among those of the report: the first, and the one after the last.
    findings : tuple of dict
        What is hardly meant in its arguments, where that was asked for.
    known : bool
        It is called before a result is needed. Of the others results decide.
    """

    name: str
    recipe: str | None
    formula: str | None = None
    steps: tuple[int, int] = (0, 0)
    findings: tuple[dict[str, Any], ...] = ()
    known: bool = False


@frozen(kw_only=True)
class Report:
    """All that a recipe was found to need.

    Parameters
    ----------
    steps : tuple of Step
        The calculations that were seen, in order.
    end : {"done", "stopped", "failed"}
        The recipe came to its end; or what follows depends on results that nobody has yet; or its
        own code failed for a reason that will not go away.
    trouble : Trouble, optional
        Why it did not come to its end.
    files : mapping of str to FileFacts
        By the path of each :class:`Need`.
    survives : bool
        Its first calculation cannot begin, and the recipe catches that and goes on.
    calls : tuple of CalledJob
        The jobs that it calls, if it is a flow.
    awaits : str, optional
        What a flow waits for before it calls more than is known, where that was asked for.
    """

    steps: tuple[Step, ...] = ()
    end: Literal["done", "stopped", "failed"] = "done"
    trouble: Trouble | None = None
    files: Mapping[str, FileFacts] = field(factory=dict)
    survives: bool = False
    calls: tuple[CalledJob, ...] = ()
    awaits: str | None = None

    def to_json(self) -> str:
        """Write it as one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Read what :meth:`to_json` wrote."""
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


#: What an exception may say, in characters.
_LONGEST = 2000
#: Troubles of this machine, as when its disk is full: they are no fault of the job's.
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
    """Write down an exception."""
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - somebody's exception may not even be able to speak
        message = "(its message cannot be shown)"
    return Trouble(where=where, type=type(error).__name__, message=message[:_LONGEST])


def is_passing(error: BaseException) -> bool:
    """Return whether an exception is about this machine as it is now, not about the job."""
    return isinstance(error, MemoryError) or getattr(error, "errno", None) in _PASSING


def troubles_of(where: str, call: Callable[[], Any]) -> Iterator[Trouble]:
    """Do what a calculation does, and give what it would die of; once, or not at all."""
    try:
        call()
    except Exception as error:
        if is_passing(error):
            raise
        yield trouble(where, error)
