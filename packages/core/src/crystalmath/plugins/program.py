"""What a program for the preflight is: declared once, provided by ``crystalmath_programs``.

One object serves two processes. In the warm child, where quacc is imported, it is asked what a
calculation would read; where a job is submitted, and neither quacc nor a calculator is imported,
it has its say about what was found. So a module of a program imports quacc, ASE's calculators and
its own readers within functions only.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import evolve, frozen

from crystalmath.models.inputs import Setting, StepInputs
from crystalmath.plugins.checked_job import FileKind, brief
from crystalmath.plugins.folders import Folders
from crystalmath.plugins.report import FileFacts, Step

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from ase import Atoms

    from crystalmath.models import Finding
    from crystalmath.models.inputs import Origin
    from crystalmath.plugins.checked_job import CheckedJob, Wanted
    from crystalmath.plugins.launching import Launch
    from crystalmath.plugins.report import Trouble

__all__ = ["Asked", "Condition", "Program"]

#: The file of a calculator's parameters, where no program has files of its own.
PARAMETERS = "parameters.json"
_ASSIGNMENT = re.compile(r"^\s*([A-Za-z][\w%]*(?:\([\d, ]+\))?)\s*=\s*(.*?)\s*,?\s*$")
_WORDS = {
    "structure": ("structure_refused", "the structure cannot be computed"),
    "input": ("input_fails", "the input cannot be written"),
}


@frozen(kw_only=True)
class Asked:
    """What is known of a calculation beside its calculator and its atoms.

    Parameters
    ----------
    directory : pathlib.Path
        Where temporary folders may be made.
    given : frozenset of str
        The names of all parameters that come from the user, in lower case.
    copy_files : tuple
        What quacc would copy into the run directory before.
    exact : bool
        No other structure will share the answer.
    """

    directory: Path
    given: Collection[str] = frozenset()
    copy_files: Iterable[Any] = ()
    exact: bool = False


@frozen(kw_only=True)
class Condition:
    """What ``crystalmath doctor`` says of a program.

    Parameters
    ----------
    name : str
        What was looked at, in a word.
    ok : bool
        Whether jobs would find it.
    message, remedy : str
        What was seen, and what to do about it.
    """

    name: str
    ok: bool
    message: str
    remedy: str | None = None


class Program:
    """A program that recipes run, and what its calculations need before they can begin.

    Subclass it, set `name` and what tells its recipes, and implement `runs` and `ask`; all else
    has a default. An exception of any method becomes a warning that names the program: the job
    goes through.

    Attributes
    ----------
    name : str
        A short one, which its steps carry (:attr:`Step.calculator`).
    recipes : tuple of str
        The modules of quacc's recipes that run it (``quacc.recipes.vasp``).
    imports : tuple of str
        What a user's own module imports if its recipes run it, the recipes above apart
        (``ase.calculators.vasp``).
    files : FileKind
        What people call it and the files that it reads.
    launcher : str, optional
        quacc's setting that stands before the program (``VASP_PARALLEL_CMD``).
    input_files : tuple of str
        The names of its input files in the folder of a calculation, of which one at least is there.
    endings : mapping of str to str
        Its output files, and what stands near the end of one when the program came to its end. With
        these and a `launcher`, calculations can be read again (``crystalmath reread``).
    presets : tuple of str and str, optional
        quacc's setting that names the folder of its presets (``VASP_PRESET_DIR``), and where that
        is below quacc itself.
    """

    name: ClassVar[str]
    recipes: ClassVar[tuple[str, ...]] = ()
    imports: ClassVar[tuple[str, ...]] = ()
    files: ClassVar[FileKind] = FileKind()
    launcher: ClassVar[str | None] = None
    input_files: ClassVar[tuple[str, ...]] = ()
    endings: ClassVar[Mapping[str, str]] = {}
    presets: ClassVar[tuple[str, str] | None] = None

    # ---- in the child, where quacc is imported ----

    def install(self) -> None:
        """Prepare the child, once and for good.

        Import what the first question would wait for. What quacc has for this program alone and
        the gate does not know (a calculator with a ``calculate`` of its own, a summary) is replaced
        with the functions of :mod:`crystalmath.preflight.gate`.
        """

    def runs(self, calculator: object) -> bool:
        """Return whether a calculator runs this program."""
        raise NotImplementedError

    def ask(self, calculator: Any, atoms: Atoms, asked: Asked) -> Step:
        """Find what a calculation would read, and what keeps it from beginning.

        Nothing is run, and nothing is written outside ``asked.directory``. Let the calculator's own
        code speak: its rules, told a second time, would sooner or later differ from it.

        Parameters
        ----------
        calculator : object
            One that `runs` has taken. The recipe gets it back afterwards.
        atoms : ase.Atoms
            A copy that may be changed.
        asked : Asked
            The rest.

        Returns
        -------
        Step
            ``calculator`` is `name`.
        """
        raise NotImplementedError

    def inputs(self, calculator: Any, atoms: Atoms, asked: Asked) -> StepInputs:
        """Return what the program would get, byte by byte, and who has set what of it.

        As for `ask`, under the same rules: let the calculator's own code write its files into a
        temporary folder, and read these. By default the calculator's parameters.

        Parameters
        ----------
        calculator, atoms, asked
            As for `ask`, which was called before.
        """
        return of_parameters(calculator, atoms, asked.given)

    def read(self, path: str, data: bytes) -> FileFacts:  # noqa: ARG002 - the interface
        """Judge the content of a file that `ask` has named.

        Returns
        -------
        FileFacts
            With a ``problem`` only where a calculation is certain to die of it.
        """
        return FileFacts() if data.strip() else FileFacts(problem="empty")

    # ---- where jobs are submitted ----

    def folders(self, wanted: Wanted, job: CheckedJob) -> Folders:
        """Look around a file that is missing."""
        return Folders(wanted, job)

    def words(self, trouble: Trouble, step: Step, job: CheckedJob) -> tuple[str, str] | None:  # noqa: ARG002
        """Return a code and words for what keeps a step from beginning.

        Returns
        -------
        tuple of str and str, or None
            ``None`` where other findings say so already.
        """
        return _WORDS.get(trouble.where, ("input_fails", "it cannot begin"))

    def right_element(self, wanted: Wanted, wrong: Sequence[str]) -> str:
        """Return what to do about a file for another element: mend the parameter or the file."""
        if self.files.choice and f"parameter {self.files.choice}" in wanted.reason:
            return f"name one of {brief(wrong)} with the parameter {self.files.choice}"
        return f"put the {self.files.noun} of {brief(wrong)} there"

    def findings(self, job: CheckedJob) -> Iterable[Finding]:  # noqa: ARG002
        """Find what only this program knows of, in the steps that are its own."""
        return ()

    def check_ranks(self, parameters: Mapping[str, Any], ranks: int) -> Iterable[Finding]:  # noqa: ARG002
        """Find what in a recipe's parameters does not go with so many ranks."""
        return ()

    def unasked(self, recipe: str, environment: Mapping[str, str]) -> Finding | None:  # noqa: ARG002
        """Judge a job whose recipe could not be asked, if that says all."""
        return None

    def launch(self, recipe: str, environment: Mapping[str, str]) -> Launch | None:  # noqa: ARG002
        """Return which commands a recipe of quacc starts; ``None`` where that cannot be told."""
        return None

    def settings(self, files: Mapping[str, str]) -> Iterable[Setting]:
        """Read what stands in its input files; by default each is one setting.

        Parameters
        ----------
        files : mapping of str to str
            By their names, as :class:`~crystalmath.models.inputs.StepInputs` has them.
        """
        return [whole(name, text) for name, text in files.items()]

    def written(self, files: Mapping[str, str]) -> StepInputs:
        """Return what a calculation got whose input files were found (`input_files`).

        Parameters
        ----------
        files : mapping of str to str
            Those that are there, by their names. In the place of POTCAR stands ``POTCAR.titel``.
        """
        settings = tuple(self.settings(files))
        return StepInputs(program=self.files.title, files=files, settings=settings)

    def command(self, step: StepInputs, environment: Mapping[str, str]) -> str | None:  # noqa: ARG002
        """Write how a step is started by ``sh`` in the folder of its input.

        Parameters
        ----------
        step : StepInputs
            What it gets.
        environment : mapping of str to str
            The variables that its job saw.

        Returns
        -------
        str or None
            ``None`` where it is not this program's, or that cannot be told.
        """
        return None

    def preset(self, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what a file among its presets sets; nothing where others only inherit from it."""
        return document

    def conditions(self, environment: Mapping[str, str]) -> Iterable[Condition]:  # noqa: ARG002
        """Say for ``crystalmath doctor`` what is there of it on this machine."""
        return ()


# --- what stands in input files: readers that programs share, and who has set what ----------------


def assignments(file: str, text: str) -> Iterator[Setting]:
    """Read lines ``NAME = value``, as INCAR and Fortran's namelists have them."""
    for line in text.splitlines():
        if found := _ASSIGNMENT.match(line):
            yield Setting(file=file, name=found[1], value=found[2])


def whole(file: str, text: str, *, comments: int = 0) -> Setting:
    """Take a file as one setting, without so many lines of comment at its beginning."""
    lines = [line.strip() for line in text.splitlines()[comments:]]
    return Setting(file=file, name=file, value="\n".join(lines))


def shown_value(value: object) -> str:
    """Write a parameter's value for people."""
    try:
        return json.dumps(value, default=_plain, ensure_ascii=False)
    except (TypeError, ValueError):
        return repr(value)


def preset_name(preset: object) -> str:
    """Return the name of a preset that may be a path: ``sssp_1.3.0_pbe_efficiency``."""
    return os.path.basename(str(preset)).removesuffix(".yaml").removesuffix(".yml")


def same(one: object, other: object) -> bool:
    """Return whether two values of a parameter are the same, arrays and texts in any case too."""
    return shown_value(one).lower() == shown_value(other).lower()


def _plain(value: Any) -> object:
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, type) or callable(value):
        return f"{value.__module__}.{value.__qualname__}"
    return str(value)


def marked(
    settings: Iterable[Setting], origins: Mapping[str, tuple[Origin, str | None]]
) -> tuple[Setting, ...]:
    """Mark settings with who has set them.

    `origins` says by their names in lower case who, and what they stand in the place of.
    """
    return tuple(
        evolve(each, origin=origin[0], instead_of=origin[1])
        if (origin := origins.get(each.name.lower()))
        else each
        for each in settings
    )


def of_parameters(calculator: Any, atoms: Atoms, given: Collection[str]) -> StepInputs:
    """Return the parameters of any ASE calculator that writes no files that anybody knows.

    `given` are the names of all parameters that come from the user, in lower case.
    """
    found = getattr(calculator, "parameters", None)
    parameters = dict(found) if isinstance(found, dict) else {}
    defaults = getattr(calculator, "default_parameters", None)
    defaults = defaults if isinstance(defaults, dict) else {}
    settings = tuple(
        Setting(
            file=PARAMETERS,
            name=str(name),
            value=shown_value(value),
            origin=_origin(str(name), value, given, defaults),
        )
        for name, value in sorted(parameters.items(), key=lambda item: str(item[0]))
    )
    lines = ",\n".join(f"  {json.dumps(each.name)}: {each.value}" for each in settings)
    return StepInputs(
        program=type(calculator).__name__,
        formula=atoms.get_chemical_formula(),
        files={PARAMETERS: f"{{\n{lines}\n}}\n" if settings else "{}\n"},
        settings=settings,
    )


def _origin(
    name: str, value: object, given: Collection[str], defaults: Mapping[str, Any]
) -> Origin:
    if name.lower() in given:
        return "asked"
    return "default" if name in defaults and same(defaults[name], value) else "recipe"
