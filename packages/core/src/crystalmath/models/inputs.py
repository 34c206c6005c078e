"""The inputs of a job's calculations, step by step."""

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

#: The origin of a setting: the user, a preset, the recipe's own code, quacc (which also swaps
#: settings that contradict each other), the structure, or the calculator's default.
Origin: TypeAlias = Literal["asked", "preset", "recipe", "quacc", "structure", "default"]
#: A job's own copy of a folder, in which its programs ran.
OUTDIR = re.compile(r"/[^\s'\"]*/\d+\.work/outdir(?:-\d+)?")
#: The folder in which a calculation ran. A program that is started beside its input has it here.
FOLDER = re.compile(rf"/[^\s'\"]*/tmp-quacc-[\d-]+|{OUTDIR.pattern}")


@frozen(kw_only=True)
class Setting:
    """One setting in an input file.

    Parameters
    ----------
    file : str
        The input file of the setting.
    name : str
        A tag (``ENCUT``), a variable (``ecutwfc``), a card (``K_POINTS``), a parameter; the name of
        the file if the setting is its whole content (``KPOINTS``).
    value : str or None
        The text in the file; ``None`` if a preset has the setting and the file leaves it out.
    origin : Origin, optional
        The origin of the setting; ``None`` if it is unknown, as for a file of a job whose recipe
        would write another one now.
    instead_of : str, optional
        The value that it replaces, with the origin of that value: ``preset: 520``.
    certain : bool
        Neither the result of an earlier step changes it, nor the machine of the job, if that is
        another than the one that checks it.
    """

    file: str
    name: str
    value: str | None
    origin: Origin | None = None
    instead_of: str | None = None
    certain: bool = True

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """Read the record from JSON, without the fields that a later release adds."""
        return cls(**_known(cls, document))


@frozen(kw_only=True)
class StepInputs:
    """The inputs of a program in one step.

    Parameters
    ----------
    program : str
        Its usual name: ``VASP``, ``pw.x``; else the name of the calculator's class.
    formula : str
        The formula of the structure.
    preset : str, optional
        The preset that the recipe uses.
    files : mapping of str to str
        The input files by their names. ``POTCAR.titel`` has the titles of the POTCARs, as their
        licence forbids to pass on the content.
    settings : tuple of Setting
        The settings in the files.
    certain : bool
        Neither earlier results nor the machine change any of it.
    step : str, optional
        The name of the step, in a flow.
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
        """Read the record from JSON, without the fields that a later release adds."""
        settings = tuple(map(Setting.read, document["settings"]))
        return cls(**{**_known(cls, document), "settings": settings})


@frozen(kw_only=True)
class Inputs:
    """The inputs of all programs of a job.

    Parameters
    ----------
    steps : tuple of StepInputs
        The calculations, in order, as far as they are known.
    rest : str, optional
        The reason why there may be more steps.
    source : {"recipe", "files"}
        The recipe's own code wrote them for a check; or the job has run and left these files.
    """

    steps: tuple[StepInputs, ...] = ()
    rest: str | None = None
    source: Literal["recipe", "files"] = "recipe"

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """Read an answer of ``jobs.check`` or ``jobs.inputs``."""
        steps = tuple(map(StepInputs.read, document["steps"]))
        return cls(**{**_known(cls, document), "steps": steps})

    def document(self) -> dict[str, Any]:
        """Write the answer of ``jobs.check`` and ``jobs.inputs``."""
        return asdict(self)

    def differences(self, other: Inputs) -> list[Difference]:
        """Compare with the inputs of another job, step by step; ignore comments and order of lines.

        Parameters
        ----------
        other : Inputs
            The inputs of the other job.

        Returns
        -------
        list of Difference
            The differences, in the order of the files.
        """
        differences = []
        for number in range(max(len(self.steps), len(other.steps))):
            mine, its = _values(self.steps, number), _values(other.steps, number)
            for place in {**mine, **its}:
                one, another = mine.get(place), its.get(place)
                if one != another:
                    file, name = place
                    differences.append(
                        Difference(step=number + 1, file=file, name=name, value=one, other=another)
                    )
        return differences


@frozen(kw_only=True)
class Difference:
    """A difference between the inputs of two jobs.

    Parameters
    ----------
    step : int
        The number of the calculation, from 1.
    file, name : str
        As a :class:`Setting` has them.
    value, other : str or None
        The values of the two jobs; ``None`` if a job has none.
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
        The name of the step: the subflows around it, its function, and the number of its call.
    recipe : str or None
        The full name of the recipe; ``None`` if the step runs in the flow's own process.
    formula : str or None
        The formula of its structure, if that is known.
    known : bool
        The step is submitted at once. Other steps depend on results that nobody has yet; they are
        shown for structures that have not been relaxed.
    calculations : tuple of int
        The numbers of its calculations among all of the flow, from 1.
    findings : tuple of FindingDocument
        The findings about the step.
    """

    name: str
    recipe: str | None
    formula: str | None
    known: bool
    calculations: tuple[int, ...] = ()
    findings: Sequence[FindingDocument] = ()


@frozen(kw_only=True)
class FlowCheck:
    """The jobs that a flow would call, as far as they are known before any has run.

    Parameters
    ----------
    steps : tuple of StepCheck
        The jobs, in the order of their calls.
    rest : str or None
        The reason why there may be more or other jobs; ``None`` if these are all.
    """

    steps: tuple[StepCheck, ...] = ()
    rest: str | None = None

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """Read the record from JSON, without the fields that a later release adds."""
        steps = tuple(StepCheck(**_known(StepCheck, each)) for each in document["steps"])
        return cls(**{**_known(cls, document), "steps": steps})


@frozen(kw_only=True, repr=False)
class JobCheck:
    """The findings about a job that was not submitted, and the inputs of its programs.

    Parameters
    ----------
    findings : sequence of Finding
        All findings about the job.
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
        counts = [f"{errors} errors", f"{len(self.findings) - errors} warnings"]
        counts += [] if self.flow is None else [f"{len(self.flow.steps)} jobs of the flow"]
        return f"<JobCheck: {', '.join([*counts, f'{len(self.inputs.steps)} inputs'])}>"

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
        The value of the parameter ``preset`` of a recipe.
    program : str
        The program whose recipes take it: ``VASP``, ``pw.x``.
    file : str
        The file that declares it.
    settings : mapping of str to object
        Its settings, with the inherited ones.
    """

    name: str
    program: str
    file: str
    settings: Mapping[str, Any]

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """Read the record from JSON, without the fields that a later release adds."""
        return cls(**_known(cls, document))


def _values(steps: Sequence[StepInputs], number: int) -> dict[tuple[str, str], str]:
    """Return the values of a step by file and name."""
    settings = steps[number].settings if number < len(steps) else ()
    return {(each.file, each.name): each.value for each in settings if each.value is not None}


def _known(record: type, document: Mapping[str, Any]) -> dict[str, Any]:
    return {one.name: document[one.name] for one in fields(record) if one.name in document}


def input_files(inputs: Inputs, directory: str) -> dict[Path, str]:
    """Return the files of inputs by path; several steps get the folders ``step-1`` and on."""
    root = Path(directory)
    several = len(inputs.steps) > 1
    for name in (name for step in inputs.steps for name in step.files):
        if Path(name).is_absolute() or ".." in Path(name).parts:  # a server may name anything
            raise CrystalMathError(f"an input file is called {name!r}, which is outside of {root}")
    return {
        (root / f"step-{number}" if several else root) / name: FOLDER.sub(".", text)
        for number, step in enumerate(inputs.steps, 1)
        for name, text in step.files.items()
    }


def write_texts(texts: Mapping[Path, str], option: str) -> list[Path]:
    """Write files with their folders, and return their paths.

    `CrystalMathError`: one of the files exists, and nothing was written; the message names the
    `option` for another folder.
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
