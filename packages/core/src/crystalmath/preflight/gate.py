"""The gate: in this process recipes are asked what they would calculate, and nothing is run.

Each :class:`quacc.runners.ase.Runner` that a recipe builds becomes a
:class:`~crystalmath.plugins.report.Step`; the recipe goes on with a stand-in for its result. The
patches stay for good: they belong into :mod:`~crystalmath.preflight.recipe_child` only.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ase import Atoms
from attrs import evolve

from crystalmath.plugins.program import Asked, Program
from crystalmath.plugins.report import FileFacts, Report, Step, Trouble, is_passing, trouble
from crystalmath.preflight import files
from crystalmath.preflight.called_jobs import CalledJobs, FirstPass
from crystalmath.preflight.stand_ins import (
    CORES,
    MOMENTS,
    Outcome,
    Summary,
    Unseen,
    move,
    with_certainty,
    with_cores,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from crystalmath.models.inputs import StepInputs

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
        inputs: bool = False,
        moment: float | None = None,
        cores: int | None = None,
    ) -> None:
        self.directory = directory
        self.given = given
        self.lets_die = lets_die
        self.inputs = inputs
        #: Where calculations end with another structure than they began with: with this moment on
        #: the atoms, in µB.
        self.moment = moment
        #: How many cores quacc finds, if not those of this machine, and whether it has looked.
        self._cores = cores
        self.counts_cores = False
        self.steps: list[Step] = []
        self.files: dict[str, FileFacts] = {}
        self.unknown: str | None = None
        self._last: object = None

    def cores(self, there: int | None) -> int | None:
        """Tell quacc how many cores there are."""
        self.counts_cores = True
        return there if self._cores is None else self._cores

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
        asked = Asked(
            directory=self.directory,
            given=self.given,
            copy_files=tuple(copy_files or ()),
            exact=self.inputs,
        )
        program = next((each for each in _programs if self._runs(each, calculator)), None)
        fresh = atoms.copy() if self.inputs else atoms
        if program is None:
            step = Step(calculator=type(calculator).__name__.lower())
        else:
            step, read = self._call(program, _ask, calculator, atoms, asked)
            self.files |= read
        if self.inputs:
            step_inputs = self._call(program or Program(), _inputs, calculator, fresh, asked)
            step = evolve(step, inputs=step_inputs)
        self.steps.append(step)
        # What comes after a calculation that can begin may be decided by its results.
        self.lets_die = self.lets_die and cannot_begin(step, self.files)
        if self.lets_die:
            from quacc import JobFailure

            raise JobFailure(self.directory)
        return self.directory / f"step-{len(self.steps)}"

    def _runs(self, program: Program, calculator: Any) -> bool:
        return bool(self._call(program, lambda program: program.runs(calculator)))

    def _call(self, program: Program, call: Callable[..., Any], *arguments: Any) -> Any:
        """Call a program's code: what it raises is no fault of the recipe's."""
        try:
            return call(program, *arguments)
        except Exception as error:
            if is_passing(error):
                raise
            module, said = type(program).__module__, trouble("recipe", error)
            raise self.stop(
                f"the checks of {program.files.title} ({module}) failed: {said}"
            ) from error

    def calculate(self, calculator: Any, atoms: Atoms | None) -> None:
        """Take a calculation that is started without a Runner: its result is wanted at once."""
        atoms = calculator.atoms if atoms is None else atoms
        if calculator is not self._last:
            self.take(calculator, atoms.copy(), None)
        raise self.stop("the result of a calculation is needed")


def _ask(
    program: Program, calculator: Any, atoms: Atoms, asked: Asked
) -> tuple[Step, dict[str, FileFacts]]:
    step = program.ask(calculator, atoms, asked)
    return step, {need.path: files.facts(need.path, program) for need in step.needs}


def _inputs(program: Program, calculator: Any, atoms: Atoms, asked: Asked) -> StepInputs | None:
    try:
        return program.inputs(calculator, atoms, asked)
    except Exception as error:
        if is_passing(error):
            raise
        # What keeps an input from being written is among the troubles of the step.
        return None


_gate = _Gate()


def _stop(reason: str) -> _Unknown:
    return _gate.stop(reason)


_programs: Sequence[Program] = ()


def ask(
    call: Callable[[], object],
    directory: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    inputs: bool = False,
    calls: bool = False,
) -> Report:
    """Call a recipe in an empty folder, and say what it would have calculated.

    With `inputs` the steps have what their programs would get. A recipe of several calculations is
    then called again: what differs when the first ones end elsewhere is not known beforehand. So
    is one for which quacc looks how many cores there are: another machine may have others.

    With `calls` the body of a flow is called again, without results: what it calls then is certain.
    """
    given = frozenset(_names(parameters or {}))
    first = _Gate(Path(directory), given, inputs=inputs)
    report = _ask_once(call, first, judges=calls)
    # An error may be a stand-in's doing.
    doubted = report.end == "stopped" and first.unknown is None
    if report.calls and (calls or doubted):
        report = _with_first_pass(call, directory, report)
    if inputs and first.counts_cores:
        other = _ask_once(call, _Gate(Path(directory), given, inputs=True, cores=CORES))
        report = with_cores(report, other)
    if not inputs or len(report.steps) < 2:  # noqa: PLR2004 - a first step and another
        return report
    for moment in MOMENTS:
        other = _ask_once(call, _Gate(Path(directory), given, inputs=True, moment=moment))
        report = with_certainty(report, other)
    return report


def _with_first_pass(call: Callable[[], object], directory: str, report: Report) -> Report:
    """Mark what a flow calls before it needs a result, and whether it is bound to fail."""
    global _gate  # noqa: PLW0603 - as in _ask_once()
    gate = _gate = _Gate()
    first = FirstPass(directory)
    try:
        first.run_body(call)
    finally:
        _gate = _Gate()
    if first.stopped:
        report = evolve(report, end="stopped", trouble=trouble("recipe", first.stopped))
    error, end = first.error, report.end
    # It fails with stand-ins and without, and not for what a file lacks now.
    if error is not None and not isinstance(error, OSError) and not is_passing(error):
        end = "failed" if trouble("recipe", error) == report.trouble else end
    awaits = first.awaits or ("what it computes itself" if gate.unknown else None)
    return evolve(report, end=end, calls=first.marked(report.calls), awaits=awaits)


@contextlib.contextmanager
def _watching(gate: _Gate, *, judges: bool = False) -> Iterator[CalledJobs | None]:
    """Note which jobs are called; none with a quacc that has no flows, or without one."""
    try:
        called = CalledJobs(str(gate.directory), gate.steps, gate.stop, judges=judges)
    except ImportError:
        yield None
        return
    with called.watching():
        yield called


def _ask_once(call: Callable[[], object], gate: _Gate, *, judges: bool = False) -> Report:
    global _gate  # noqa: PLW0603 - whatever thread the recipe uses
    _gate = gate
    failure = called = None
    try:
        with _watching(gate, judges=judges) as called:
            call()
    except BaseException as error:  # noqa: BLE001 - sys.exit() of a recipe is a failure, too
        failure = trouble("recipe", error)
        # What a file lacks now, or a stand-in lacks, the job itself may have. A preset belongs to
        # quacc or to its user's settings, and no job makes one.
        fleeting = isinstance(error, OSError) or is_passing(error) or bool(gate.steps)
        stopped = fleeting and not _is_of_preset(error)
    finally:
        _gate = _Gate()
    end: Literal["done", "stopped", "failed"] = "done"
    if gate.unknown:
        end, failure = "stopped", Trouble(where="recipe", type="Unknown", message=gate.unknown)
    elif failure:
        end = "stopped" if stopped else "failed"
    calls = called.noted if called else ()
    return Report(steps=tuple(gate.steps), end=end, trouble=failure, files=gate.files, calls=calls)


def cannot_begin(step: Step, known: Mapping[str, FileFacts]) -> bool:
    """Return whether a calculation would die of its files or its input."""
    read = [known[need.path] for need in step.needs]
    loose = any(each.loose_end for each in read[:-1])
    return bool(step.troubles) or loose or any(each.problem for each in read)


def survives(call: Callable[[], object], directory: str) -> bool:
    """Return whether a recipe goes on, as with a second choice, if calculations cannot begin."""
    global _gate  # noqa: PLW0603 - whatever thread the recipe uses
    gate = _gate = _Gate(Path(directory), lets_die=True)
    try:
        with _watching(gate):
            call()
    except BaseException as error:  # noqa: BLE001 - as in ask()
        # It has tried all that it would, in words of its own perhaps.
        dies = gate.lets_die and gate.unknown is None
        return not dies or isinstance(error, OSError) or is_passing(error)
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


def summary(summarizer: Any, result: Any, *_: object, **__: object) -> dict[str, Any]:
    """Stand in for a summary: some of it is known beforehand."""
    return _known_of(result if isinstance(result, Atoms) else result.atoms, summarizer)


def _vib_summary(summarizer: Any, *_: object, **__: object) -> Summary:
    return _known_of(summarizer.vib_object.atoms, summarizer)


def _known_of(atoms: Atoms, summarizer: Any) -> Summary:
    ended = atoms.copy()
    if _gate.moment is not None and getattr(summarizer, "move_magmoms", False):
        ended.set_initial_magnetic_moments([_gate.moment] * len(ended))
    return Summary(
        {
            "atoms": ended,
            "dir_name": Path(atoms.calc.directory),
            "parameters": atoms.calc.parameters,
            **summarizer.additional_fields,
        },
        _stop,
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
        image.calc.results = Unseen(_stop)
        if _gate.moment is not None:
            move(image)
            image.calc.results.moments = [_gate.moment] * len(image)
        runner.tmpdir = runner.job_results_dir = folder
    runner.atoms = images if several else images[0]
    runner.copy_files = copy_files


def _run_calc(runner: Any, *_: object, **__: object) -> Any:
    return runner.atoms


def _run(runner: Any, *_: object, **__: object) -> Outcome:
    atoms = runner.atoms[0] if isinstance(runner.atoms, list) else runner.atoms
    return Outcome(atoms, _stop)


def _cannot_run(*_: object, **__: object) -> Any:
    raise _gate.stop("something other than a calculation is run")


def calculate(calculator: Any, atoms: Atoms | None = None, *_: object, **__: object) -> None:
    """Stand in for a calculator's ``calculate``, where it has one of its own."""
    _gate.calculate(calculator, atoms)


def is_unmade(directory: str | Path | None) -> bool:
    """Return whether a folder would hold the results of a calculation that was not made."""
    return bool(directory) and Path(str(directory)).parent == _gate.directory


def install(programs: Sequence[Program]) -> None:
    """Close the gate in this process, for good; programs add what is theirs.

    Of these the first that says that a calculator is its own is asked about it.
    """
    global _programs  # noqa: PLW0603 - as the patches
    from ase.calculators.calculator import FileIOCalculator
    from ase.calculators.genericfileio import GenericFileIOCalculator
    from quacc.runners._base import BaseRunner
    from quacc.runners.ase import Runner
    from quacc.schemas.ase import Summarize, VibSummarize

    patch(Runner, __init__=_begin, run_calc=_run_calc)
    patch(Runner, run_opt=_run, run_vib=_run, run_md=_run, run_neb=_run)
    # Other runners: phonopy needs forces, a generic one starts any command.
    patch(BaseRunner, setup=_cannot_run)
    for calculator in (GenericFileIOCalculator, FileIOCalculator):
        patch(calculator, calculate=calculate)
    patch(Summarize, run=summary, opt=summary, md=summary, neb=summary)
    patch(VibSummarize, vib=_vib_summary, vib_and_thermo=_vib_summary)
    _patch_settings()
    _patch_cores()
    for program in programs:
        program.install()
    _programs = tuple(programs)


def patch(owner: Any, **functions: Any) -> None:
    """Put functions in the place of a class's own, for good."""
    for name, function in functions.items():
        setattr(owner, name, function)


def _patch_cores() -> None:
    """Note where quacc looks how many cores there are; all others see this machine's."""
    import psutil

    count = psutil.cpu_count

    def cpu_count(logical: bool = True) -> int | None:  # noqa: FBT001, FBT002 - as psutil's
        frame = inspect.currentframe()
        caller = frame and frame.f_back and frame.f_back.f_globals.get("__name__")
        there: int | None = count(logical)
        return _gate.cores(there) if str(caller).startswith("quacc.") else there

    psutil.cpu_count = cpu_count


def _patch_settings() -> None:
    """Keep quacc from making the folders that a recipe's settings name."""
    import quacc

    change = quacc.settings.change_settings

    def change_settings(changes: Mapping[str, Any]) -> Any:
        makes = {"RESULTS_DIR", "SCRATCH_DIR"}
        return change({name: value for name, value in changes.items() if name not in makes})

    quacc.change_settings = quacc.settings.change_settings = change_settings
