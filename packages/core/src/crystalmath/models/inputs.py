"""What programs get: the input of a job's calculations, step by step."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

from attrs import asdict, field, fields, frozen

from crystalmath.errors import CrystalMathError
from crystalmath.models.job_notes import FindingDocument

if TYPE_CHECKING:
    from crystalmath.errors import Finding

#: Who has set something: the user, a preset, the recipe's own code, quacc (as where it swaps what
#: does not go together), the structure, or the calculator's default.
Origin: TypeAlias = Literal["asked", "preset", "recipe", "quacc", "structure", "default"]
#: A job's own copy of a folder, in which its programs ran.
OUTDIR = re.compile(r"/[^\s'\"]*/\d+\.work/outdir(?:-\d+)?")
#: The folder in which a calculation ran. A program that is started beside its input has it here.
FOLDER = re.compile(rf"/[^\s'\"]*/tmp-quacc-[\d-]+|{OUTDIR.pattern}")


@frozen(kw_only=True)
class Setting:
    """One thing that a program is told.

    Parameters
    ----------
    file : str
        The input file in which it stands.
    name : str
        A tag (``ENCUT``), a variable (``ecutwfc``), a card (``K_POINTS``), a parameter; the name of
        the file where it is the whole of it (``KPOINTS``).
    value : str or None
        As it stands there; ``None`` where a preset has it and it was left out.
    origin : Origin, optional
        Who has set it; ``None`` where that is not known, as of a file that a job has written where
        its recipe would write something else now.
    instead_of : str, optional
        What it stands in the place of, and whose that was: ``preset: 520``.
    certain : bool
        No result of an earlier step changes it, nor the machine that the job runs on, where that is
        another than the one that tells it.
    """

    file: str
    name: str
    value: str | None
    origin: Origin | None = None
    instead_of: str | None = None
    certain: bool = True

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """Make it of JSON; what a later release adds is left out."""
        return cls(**_known(cls, document))


@frozen(kw_only=True)
class StepInputs:
    """What a program gets in one step.

    Parameters
    ----------
    program : str
        What people call it: ``VASP``, ``pw.x``; else the name of the calculator's class.
    formula : str
        Of the structure that is calculated.
    preset : str, optional
        The preset that the recipe uses.
    files : mapping of str to str
        The input files by their names, and ``POTCAR.titel`` with the titles of the POTCARs, whose
        content is nobody's to give away.
    settings : tuple of Setting
        What stands in them.
    certain : bool
        None of that changes any of it.
    step : str, optional
        The name of the step of a flow that calculates it.
    """

    program: str
    formula: str = ""
    preset: str | None = None
    files: Mapping[str, str] = field(factory=dict)
    settings: tuple[Setting, ...] = ()
    certain: bool = True
    step: str | None = None

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """Make it of JSON; what a later release adds is left out."""
        settings = tuple(map(Setting.read, document["settings"]))
        return cls(**{**_known(cls, document), "settings": settings})


@frozen(kw_only=True)
class Inputs:
    """What the programs of a job get.

    Parameters
    ----------
    steps : tuple of StepInputs
        The calculations, in order, as far as they are known.
    rest : str, optional
        Why there may be more steps.
    source : {"recipe", "files"}
        The recipe was asked; or the job has run, and these are the files that it has written.
    """

    steps: tuple[StepInputs, ...] = ()
    rest: str | None = None
    source: Literal["recipe", "files"] = "recipe"

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """Make it of what ``jobs.check`` and ``jobs.inputs`` tell."""
        steps = tuple(map(StepInputs.read, document["steps"]))
        return cls(**{**_known(cls, document), "steps": steps})

    def document(self) -> dict[str, Any]:
        """Write it as ``jobs.check`` and ``jobs.inputs`` tell it."""
        return asdict(self)

    def differences(self, other: Inputs) -> list[Difference]:
        """Compare with another job's, step by step; comments and the order of lines do not count.

        Parameters
        ----------
        other : Inputs
            The other's.

        Returns
        -------
        list of Difference
            What is not the same, in the order in which it stands in the files.
        """
        found = []
        for number in range(max(len(self.steps), len(other.steps))):
            mine, its = _values(self.steps, number), _values(other.steps, number)
            for place in {**mine, **its}:
                one, another = mine.get(place), its.get(place)
                if one != another:
                    file, name = place
                    found.append(
                        Difference(step=number + 1, file=file, name=name, value=one, other=another)
                    )
        return found


@frozen(kw_only=True)
class Difference:
    """What stands otherwise in the inputs of two jobs.

    Parameters
    ----------
    step : int
        The number of the calculation, from 1.
    file, name : str
        As a :class:`Setting` has them.
    value, other : str or None
        What the one and what the other has; ``None`` where it has none.
    """

    step: int
    file: str
    name: str
    value: str | None
    other: str | None


@frozen(kw_only=True)
class StepCheck:
    """A job that a flow would call.

    Parameters
    ----------
    name : str
        That of the step: the subflows around it, its function, how often that was called before.
    recipe : str or None
        Its full name; ``None`` where it runs in the flow's own process.
    formula : str or None
        Of its structure, as far as that is known.
    known : bool
        It is submitted at once. Of the others results decide, which nobody has yet: they are told
        for structures that have not been relaxed.
    calculations : tuple of int
        Its calculations, numbered among all of the flow from 1.
    findings : tuple of FindingDocument
        What is wrong with it.
    """

    name: str
    recipe: str | None
    formula: str | None
    known: bool
    calculations: tuple[int, ...] = ()
    findings: Sequence[FindingDocument] = ()


@frozen(kw_only=True)
class FlowCheck:
    """The jobs that a flow would call, as far as that is known before any of them has run.

    Parameters
    ----------
    steps : tuple of StepCheck
        The jobs, in the order of their calls.
    rest : str or None
        Why there may be more, or others; ``None`` where these are all.
    """

    steps: tuple[StepCheck, ...] = ()
    rest: str | None = None

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """Make it of JSON; what a later release adds is left out."""
        steps = tuple(StepCheck(**_known(StepCheck, each)) for each in document["steps"])
        return cls(**{**_known(cls, document), "steps": steps})


@frozen(kw_only=True, repr=False)
class JobCheck:
    """What was found of a job that was not submitted, and what its programs would get.

    Parameters
    ----------
    findings : sequence of Finding
        All that is wrong with it.
    inputs : Inputs
        Its steps, as far as they are known.
    flow : FlowCheck, optional
        The jobs that it would call, if it is a flow.
    """

    findings: Sequence[Finding]
    inputs: Inputs
    flow: FlowCheck | None = None

    def __repr__(self) -> str:
        errors = sum(one.severity == "error" for one in self.findings)
        told = [f"{errors} errors", f"{len(self.findings) - errors} warnings"]
        told += [] if self.flow is None else [f"{len(self.flow.steps)} jobs of the flow"]
        return f"<JobCheck: {', '.join([*told, f'{len(self.inputs.steps)} inputs'])}>"

    def _repr_html_(self) -> str:
        from crystalmath.models.notebook import check_html

        return check_html(self)

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        from crystalmath.models.notebook import bundle

        return bundle(self)


@frozen(kw_only=True)
class Preset:
    """A preset of quacc's, or of a user's own.

    Parameters
    ----------
    name : str
        As the parameter ``preset`` of a recipe has it.
    program : str
        Whose recipes take it: ``VASP``, ``pw.x``.
    file : str
        Where it stands.
    settings : mapping of str to object
        What it sets, with what it inherits.
    """

    name: str
    program: str
    file: str
    settings: Mapping[str, Any]

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """Make it of JSON; what a later release adds is left out."""
        return cls(**_known(cls, document))


def _values(steps: Sequence[StepInputs], number: int) -> dict[tuple[str, str], str]:
    """Return what stands in the files of a step."""
    settings = steps[number].settings if number < len(steps) else ()
    return {(each.file, each.name): each.value for each in settings if each.value is not None}


def _known(record: type, document: Mapping[str, Any]) -> dict[str, Any]:
    return {one.name: document[one.name] for one in fields(record) if one.name in document}


def input_files(inputs: Inputs, directory: str) -> dict[Path, str]:
    """Name the files of inputs in a folder; those of several steps lie in ``step-1`` and on."""
    root = Path(directory)
    several = len(inputs.steps) > 1
    return {
        (root / f"step-{number}" if several else root) / name: FOLDER.sub(".", text)
        for number, step in enumerate(inputs.steps, 1)
        for name, text in step.files.items()
    }


def write_texts(texts: Mapping[Path, str], option: str) -> list[Path]:
    """Write files with their folders, and return their paths.

    `CrystalMathError`: one of the files is there already, and `option` names another folder;
    nothing was written.
    """
    for path in texts:
        if path.exists():
            raise CrystalMathError(
                f"{path} is there already, and is not overwritten; name another folder with "
                f"{option}"
            )
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")
        if text.startswith("#!"):
            path.chmod(0o755)
    return list(texts)
