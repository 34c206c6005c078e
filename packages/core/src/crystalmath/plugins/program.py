"""The base of a program for the preflight; plugins provide it by ``crystalmath_programs``.

One object serves two processes. In the warm child, which imports quacc, it reports what a
calculation would read. In the process that submits, which imports neither quacc nor a calculator,
it turns that report into findings. So its module imports quacc, ASE's calculators and its own
readers within functions only.
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

__all__ = ["Condition", "Context", "Program"]

#: The file that shows a calculator's parameters if its program has no input files of its own.
PARAMETERS = "parameters.json"
_ASSIGNMENT = re.compile(r"^\s*([A-Za-z][\w%]*(?:\([\d, ]+\))?)\s*=\s*(.*?)\s*,?\s*$")
_WORDS = {
    "structure": ("structure_refused", "the structure cannot be computed"),
    "input": ("input_fails", "the input cannot be written"),
}


@frozen(kw_only=True)
class Context:
    """The circumstances of a calculation, beside its calculator and its atoms.

    Parameters
    ----------
    directory : pathlib.Path
        The folder in which temporary folders may be made.
    user_parameters : frozenset of str
        The names of all parameters that come from the user, in lower case.
    copy_files : tuple
        The files that quacc would copy into the run directory beforehand.
    exact : bool
        The report serves this structure only. Otherwise structures of the same elements share it.
    """

    directory: Path
    user_parameters: Collection[str] = frozenset()
    copy_files: Iterable[Any] = ()
    exact: bool = False


@frozen(kw_only=True)
class Condition:
    """A line of ``crystalmath doctor`` about a program.

    Parameters
    ----------
    name : str
        The subject in one word.
    ok : bool
        Whether jobs would find it.
    message, remedy : str
        The state of it, and what to do about it.
    """

    name: str
    ok: bool
    message: str
    remedy: str | None = None


class Program:
    """A program that recipes run, and the needs of its calculations.

    Subclass it, set `name`, `recipes` and `imports`, and implement `runs` and `ask`; all else has a
    default. An exception of any method becomes a warning that names the program, and the job is
    submitted.

    Attributes
    ----------
    name : str
        A short name, which its steps carry (:attr:`Step.calculator`).
    recipes : tuple of str
        The modules of quacc's recipes that run it (``quacc.recipes.vasp``).
    imports : tuple of str
        Modules by which a user's own recipes are recognised, beside `recipes`: a recipe's module
        that imports one of them (``ase.calculators.vasp``) runs the program.
    files : FileKind
        The words for the program and the files that it reads.
    launcher : str, optional
        quacc's setting for the command before the program (``VASP_PARALLEL_CMD``).
    input_files : tuple of str
        The names of its input files in a calculation's folder; at least one of them is there.
    endings : mapping of str to str
        Its output files, each with a text near the end of a complete one. With these and a
        `launcher`, calculations can be read again (``crystalmath reread``).
    presets : tuple of str and str, optional
        quacc's setting that names the folder of its presets (``VASP_PRESET_DIR``), and the default
        of that folder, relative to quacc.
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
        """Prepare the child, once.

        Import the modules that the first question would wait for. If the program has a calculator
        with its own ``calculate``, or its own summary in quacc, replace these with the functions of
        :mod:`crystalmath.preflight.gate`.
        """

    def runs(self, calculator: object) -> bool:
        """Return whether a calculator runs this program."""
        raise NotImplementedError

    def ask(self, calculator: Any, atoms: Atoms, context: Context) -> Step:
        """Return the step: the files that a calculation would read, and why it cannot begin.

        Run nothing, and write nothing outside ``context.directory``. Call the calculator's own code
        for its rules: a second copy of them would become wrong with a later release.

        Parameters
        ----------
        calculator : object
            A calculator for which `runs` is true. The recipe uses it afterwards.
        atoms : ase.Atoms
            A copy that may be changed.
        context : Context
            The circumstances.

        Returns
        -------
        Step
            Its ``calculator`` is `name`.
        """
        raise NotImplementedError

    def inputs(self, calculator: Any, atoms: Atoms, context: Context) -> StepInputs:
        """Return the program's input files, and the origin of each setting in them.

        The rules of `ask` hold: let the calculator's own code write its files into a temporary
        folder, and read them there. The default returns the calculator's parameters.

        Parameters
        ----------
        calculator, atoms, context
            As for `ask`, which was called before.
        """
        return of_parameters(calculator, atoms, context.user_parameters)

    def read(self, path: str, data: bytes) -> FileFacts:  # noqa: ARG002 - for overriding methods
        """Judge the content of a file that `ask` has named.

        Returns
        -------
        FileFacts
            It has a ``problem`` only if every calculation fails with such a file.
        """
        return FileFacts() if data.strip() else FileFacts(problem="empty")

    # ---- in the process that submits ----

    def folders(self, wanted: Wanted, job: CheckedJob) -> Folders:
        """Return the folders of a missing file, which explain why it is missing."""
        return Folders(wanted, job)

    def words(
        self,
        trouble: Trouble,
        step: Step,  # noqa: ARG002 - for overriding methods
        job: CheckedJob,  # noqa: ARG002 - for overriding methods
    ) -> tuple[str, str] | None:
        """Return a code and words for a step's trouble.

        Returns
        -------
        tuple of str and str, or None
            ``None`` if other findings report it already.
        """
        return _WORDS.get(trouble.where, ("input_fails", "it cannot begin"))

    def right_element(self, wanted: Wanted, wrong: Sequence[str]) -> str:
        """Return the remedy for a file of another element: change the parameter or the file."""
        if self.files.choice and f"parameter {self.files.choice}" in wanted.reason:
            return f"name one of {brief(wrong)} with the parameter {self.files.choice}"
        return f"put the {self.files.noun} of {brief(wrong)} there"

    def findings(self, job: CheckedJob) -> Iterable[Finding]:  # noqa: ARG002 - for overriding methods
        """Return findings about this program's own steps that only it can judge."""
        return ()

    def check_ranks(
        self,
        parameters: Mapping[str, Any],  # noqa: ARG002 - for overriding methods
        ranks: int,  # noqa: ARG002 - for overriding methods
    ) -> Iterable[Finding]:
        """Return findings about a recipe's parameters that do not fit the number of ranks."""
        return ()

    def unasked(self, recipe: str, environment: Mapping[str, str]) -> Finding | None:
        """Return a finding that explains alone why a recipe could not be asked, or ``None``."""

    def launch(self, recipe: str, environment: Mapping[str, str]) -> Launch | None:
        """Return the commands that a recipe of quacc starts; ``None`` if they are unknown."""

    def settings(self, files: Mapping[str, str]) -> Iterable[Setting]:
        """Return the settings in its input files; by default each file is one setting.

        Parameters
        ----------
        files : mapping of str to str
            Contents by name, as in :class:`~crystalmath.models.inputs.StepInputs`.
        """
        return [whole(name, text) for name, text in files.items()]

    def written(self, files: Mapping[str, str]) -> StepInputs:
        """Return the input of a calculation from the files in its folder.

        Parameters
        ----------
        files : mapping of str to str
            Contents by name, of those `input_files` that are there. ``POTCAR.titel`` stands for
            POTCAR.
        """
        settings = tuple(self.settings(files))
        return StepInputs(program=self.files.title, files=files, settings=settings)

    def command(self, step: StepInputs, environment: Mapping[str, str]) -> str | None:
        """Return the command with which ``sh`` starts a step in the folder of its input.

        Parameters
        ----------
        step : StepInputs
            Its input.
        environment : mapping of str to str
            The variables that its job saw.

        Returns
        -------
        str or None
            ``None`` if the step belongs to another program, or the command is unknown.
        """

    def preset(self, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the settings of a preset's file; none if other presets only inherit from it."""
        return document

    def conditions(self, environment: Mapping[str, str]) -> Iterable[Condition]:  # noqa: ARG002 - as above
        """Return the conditions of the program on this machine, for ``crystalmath doctor``."""
        return ()


# --- readers of input files that programs share, and the origins of settings ----------------------


def assignments(file: str, text: str) -> Iterator[Setting]:
    """Yield the settings of lines ``NAME = value``, as in INCAR and Fortran's namelists."""
    for line in text.splitlines():
        if match := _ASSIGNMENT.match(line):
            yield Setting(file=file, name=match[1], value=match[2])


def whole(file: str, text: str, *, comments: int = 0) -> Setting:
    """Return a whole file as one setting, without its first `comments` lines."""
    lines = [line.strip() for line in text.splitlines()[comments:]]
    return Setting(file=file, name=file, value="\n".join(lines))


def shown_value(value: object) -> str:
    """Return a parameter's value as text for people."""
    try:
        return json.dumps(value, default=_plain, ensure_ascii=False)
    except (TypeError, ValueError):
        return repr(value)


def preset_name(preset: object) -> str:
    """Return the bare name of a preset or of its path: ``sssp_1.3.0_pbe_efficiency``."""
    return os.path.basename(str(preset)).removesuffix(".yaml").removesuffix(".yml")


def same(one: object, other: object) -> bool:
    """Return whether two values of a parameter are equal; texts are compared without case."""
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
    """Return settings with their origins.

    `origins` has, by the name in lower case, the origin and the value that the setting replaced.
    """
    return tuple(
        evolve(each, origin=origin[0], instead_of=origin[1])
        if (origin := origins.get(each.name.lower()))
        else each
        for each in settings
    )


def of_parameters(calculator: Any, atoms: Atoms, user_parameters: Collection[str]) -> StepInputs:
    """Return the parameters of any ASE calculator, for programs whose files are unknown.

    `user_parameters` are the names of all parameters that come from the user, in lower case.
    """
    parameters = getattr(calculator, "parameters", None)
    parameters = parameters if isinstance(parameters, dict) else {}
    defaults = getattr(calculator, "default_parameters", None)
    defaults = defaults if isinstance(defaults, dict) else {}
    settings = tuple(
        Setting(
            file=PARAMETERS,
            name=str(name),
            value=shown_value(value),
            origin=_origin(str(name), value, user_parameters, defaults),
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
    name: str, value: object, user_parameters: Collection[str], defaults: Mapping[str, Any]
) -> Origin:
    if name.lower() in user_parameters:
        return "asked"
    return "default" if name in defaults and same(defaults[name], value) else "recipe"
