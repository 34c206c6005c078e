"""The gate: in this process recipes are asked what they would calculate, and nothing is run.

Each :class:`quacc.runners.ase.Runner` that a recipe builds becomes a
:class:`~crystalmath.preflight.report.Step`; the recipe goes on with a stand-in for its result. The
patches stay for good: they belong into :mod:`~crystalmath.preflight.recipe_child` only.
"""

from __future__ import annotations

import copy
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ase import Atoms

from crystalmath.preflight import espresso, files, vasp
from crystalmath.preflight.report import FileFacts, Report, Step, Trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

__all__ = ["MAX_STEPS", "ask", "install"]

#: A flow over all the slabs of a large cell says the same thing again and again.
MAX_STEPS = 50


class _Unknown(BaseException):
    """A value was used that only a calculation gives. No recipe's ``except Exception`` has it."""


class _Gate:
    """What one recipe has been seen to calculate."""

    def __init__(
        self,
        directory: Path | None = None,
        given: frozenset[str] = frozenset(),
        *,
        lets_die: bool = False,
    ) -> None:
        self.directory = directory
        self.given = given
        self.lets_die = lets_die
        self.steps: list[Step] = []
        self.files: dict[str, FileFacts] = {}
        self.unknown: str | None = None
        self._last: object = None

    def stop(self, reason: str) -> _Unknown:
        # Remembered: a bare ``except`` may swallow what is raised.
        self.unknown = self.unknown or reason
        return _Unknown(reason)

    def take(self, calculator: Any, atoms: Atoms, copy_files: Iterable[Any] | None) -> Path:
        """Ask a calculator, and give the folder that would hold its results."""
        if self.directory is None:
            raise self.stop("no recipe is being asked")
        if len(self.steps) >= MAX_STEPS:
            raise self.stop(f"there are more than {MAX_STEPS} calculations")
        self._last = calculator
        step = self._ask(calculator, atoms, copy_files or (), self.directory)
        kind: Literal["potcar", "upf"] = "upf" if step.calculator == "espresso" else "potcar"
        self.files |= {need.path: files.facts(need.path, kind) for need in step.needs}
        self.steps.append(step)
        # What comes after a calculation that can begin may be decided by its results.
        self.lets_die = self.lets_die and cannot_begin(step, self.files)
        if self.lets_die:
            from quacc import JobFailure

            raise JobFailure(self.directory)
        return self.directory / f"step-{len(self.steps)}"

    def _ask(
        self, calculator: Any, atoms: Atoms, copy_files: Iterable[Any], directory: Path
    ) -> Step:
        if vasp.is_vasp(calculator):
            return vasp.ask(calculator, atoms, directory, self.given)
        if espresso.is_espresso(calculator):
            return espresso.ask(calculator, atoms, copy_files, directory)
        return Step(calculator=type(calculator).__name__.lower())

    def calculate(self, calculator: Any, atoms: Atoms | None) -> None:
        """Take a calculation that is started without a Runner: its result is wanted at once."""
        atoms = calculator.atoms if atoms is None else atoms
        if calculator is not self._last:
            self.take(calculator, atoms.copy(), None)
        raise self.stop("the result of a calculation is needed")


_gate = _Gate()


def ask(
    call: Callable[[], object], directory: str, parameters: Mapping[str, Any] | None = None
) -> Report:
    """Call a recipe, and say what it would have calculated.

    Parameters
    ----------
    call : callable
        The recipe with its arguments.
    directory : str
        An empty folder, which is the working directory.
    parameters : mapping of str to object, optional
        What the user has given to the recipe.
    """
    global _gate  # noqa: PLW0603 - whatever thread the recipe uses
    gate = _gate = _Gate(Path(directory), frozenset(_names(parameters or {})))
    trouble = None
    try:
        call()
    except BaseException as error:  # noqa: BLE001 - sys.exit() of a recipe is a failure, too
        trouble = vasp.trouble("recipe", error)
        # What a file lacks now, or a stand-in lacks, the job itself may have. A preset belongs to
        # quacc or to its user's settings, and no job makes one.
        fleeting = isinstance(error, OSError) or vasp.is_passing(error) or bool(gate.steps)
        stopped = fleeting and not _is_of_preset(error)
    finally:
        _gate = _Gate()
    end: Literal["done", "stopped", "failed"] = "done"
    if gate.unknown:
        end, trouble = "stopped", Trouble(where="recipe", type="Unknown", message=gate.unknown)
    elif trouble:
        end = "stopped" if stopped else "failed"
    return Report(steps=tuple(gate.steps), end=end, trouble=trouble, files=gate.files)


def cannot_begin(step: Step, known: Mapping[str, FileFacts]) -> bool:
    """Tell whether a calculation would die of its files or its input."""
    read = [known[need.path] for need in step.needs]
    loose = any(each.loose_end for each in read[:-1])
    return bool(step.troubles) or loose or any(each.problem for each in read)


def survives(call: Callable[[], object], directory: str) -> bool:
    """Tell whether a recipe goes on where calculations cannot begin, as one with a second choice.

    Parameters
    ----------
    call : callable
        The recipe with its arguments.
    directory : str
        The working directory.
    """
    global _gate  # noqa: PLW0603 - whatever thread the recipe uses
    gate = _gate = _Gate(Path(directory), lets_die=True)
    try:
        call()
    except BaseException as error:  # noqa: BLE001 - as in ask()
        # It has tried all that it would, in words of its own perhaps.
        dies = gate.lets_die and gate.unknown is None
        return not dies or isinstance(error, OSError) or vasp.is_passing(error)
    finally:
        _gate = _Gate()
    return True


def _names(parameters: Mapping[str, Any]) -> Iterator[str]:
    """Name all that a user has given, also to the jobs of a flow."""
    for name, value in parameters.items():
        yield str(name).lower()
        if isinstance(value, dict):
            yield from _names(value)


def _is_of_preset(error: BaseException) -> bool:
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_code.co_name == "load_yaml_calc"


class _Unseen(dict[str, Any]):
    """The results of a calculation that nobody has made."""

    def _stop(self, *_: object, **__: object) -> Any:
        raise _gate.stop("the results of a calculation are needed")

    __getitem__ = __contains__ = __iter__ = __len__ = _stop
    items = keys = values = copy = pop = clear = update = _stop

    def get(self, key: str, default: object = None) -> Any:
        # quacc and pymatgen hand these on to the next calculation of the same atoms, if they are
        # there; they choose no file.
        return default if key in {"magmoms", "charges"} else self[key]

    def __bool__(self) -> bool:
        return True

    def __deepcopy__(self, memo: object) -> _Unseen:
        return self


class _Outcome:
    """An optimizer, a dynamics or a vibration analysis that was not run."""

    def __init__(self, atoms: Atoms) -> None:
        self.atoms = atoms

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise _gate.stop(f"the {name!r} of a calculation is needed")


class _Summary(dict[str, Any]):
    """The summary of a calculation that nobody has made: some of it is known beforehand."""

    def __missing__(self, key: str) -> Any:
        raise _gate.stop(f"the {key!r} of a result is needed")

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or self.__missing__(str(key))

    def get(self, key: str, default: object = None) -> Any:  # noqa: ARG002 - dict's signature
        return self[key]


def _summary(summarizer: Any, result: Any, *_: object, **__: object) -> _Summary:
    return _known_of(result if isinstance(result, Atoms) else result.atoms, summarizer)


def _vib_summary(summarizer: Any, *_: object, **__: object) -> _Summary:
    return _known_of(summarizer.vib_object.atoms, summarizer)


def _known_of(atoms: Atoms, summarizer: Any) -> _Summary:
    return _Summary(
        {
            "atoms": atoms.copy(),
            "dir_name": Path(atoms.calc.directory),
            "parameters": atoms.calc.parameters,
            **summarizer.additional_fields,
        }
    )


def _begin(
    runner: Any, atoms: Any, calculator: Any, copy_files: Iterable[Any] | None = None
) -> None:
    several = isinstance(atoms, list)
    images = [image.copy() for image in (atoms if several else [atoms])]
    for image in images:
        image.calc = copy.deepcopy(calculator) if several else calculator
        folder = _gate.take(image.calc, image.copy(), copy_files)
        image.calc.directory = folder
        image.calc.results = _Unseen()
        runner.tmpdir = runner.job_results_dir = folder
    runner.atoms = images if several else images[0]
    runner.copy_files = copy_files


def _run_calc(runner: Any, *_: object, **__: object) -> Any:
    return runner.atoms


def _run(runner: Any, *_: object, **__: object) -> _Outcome:
    return _Outcome(runner.atoms[0] if isinstance(runner.atoms, list) else runner.atoms)


def _cannot_run(*_: object, **__: object) -> Any:
    raise _gate.stop("something other than a calculation is run")


def _calculate(calculator: Any, atoms: Atoms | None = None, *_: object, **__: object) -> None:
    _gate.calculate(calculator, atoms)


def install() -> None:
    """Close the gate in this process, for good."""
    from ase.calculators.calculator import FileIOCalculator
    from ase.calculators.genericfileio import GenericFileIOCalculator
    from ase.calculators.vasp import Vasp
    from quacc.runners._base import BaseRunner
    from quacc.runners.ase import Runner
    from quacc.schemas.ase import Summarize, VibSummarize
    from quacc.schemas.vasp import VaspSummarize

    _patch(Runner, __init__=_begin, run_calc=_run_calc)
    _patch(Runner, run_opt=_run, run_vib=_run, run_md=_run, run_neb=_run)
    # Other runners: phonopy needs forces, a generic one starts any command.
    _patch(BaseRunner, setup=_cannot_run)
    for calculator in (Vasp, GenericFileIOCalculator, FileIOCalculator):
        _patch(calculator, calculate=_calculate)
    _patch(Summarize, run=_summary, opt=_summary, md=_summary, neb=_summary)
    _patch(VaspSummarize, run=_summary, ase_opt=_summary)
    _patch(VibSummarize, vib=_vib_summary, vib_and_thermo=_vib_summary)
    _patch_settings()
    _patch_converter()


def _patch(owner: Any, **functions: Any) -> None:
    for name, function in functions.items():
        setattr(owner, name, function)


def _patch_settings() -> None:
    """Keep quacc from making the folders that a recipe's settings name."""
    import quacc

    change = quacc.settings.change_settings

    def change_settings(changes: Mapping[str, Any]) -> Any:
        makes = {"RESULTS_DIR", "SCRATCH_DIR"}
        return change({name: value for name, value in changes.items() if name not in makes})

    quacc.change_settings = quacc.settings.change_settings = change_settings


def _patch_converter() -> None:
    """Have an input set not look for the files of a calculation that was not made.

    What it takes from them (moments, a band gap) has no say in its pseudopotentials.
    """
    from quacc.calculators.vasp.params import MPtoASEConverter

    begin = MPtoASEConverter.__init__

    def begin_without(converter: Any, atoms: Any = None, prev_dir: Any = None) -> None:
        unmade = prev_dir and Path(prev_dir).parent == _gate.directory
        begin(converter, atoms, None if unmade else prev_dir)

    _patch(MPtoASEConverter, __init__=begin_without)
