"""The gate: call recipes in this process without running their calculations.

Each :class:`quacc.runners.ase.Runner` that a recipe builds becomes a
:class:`~crystalmath.plugins.report.Step`; the recipe goes on with a stand-in for its result. The
patches of quacc and ASE are never undone: only :mod:`~crystalmath.preflight.recipe_child` may
install them.
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

from crystalmath.plugins.program import Context, Program
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

#: The report of a recipe ends after so many calculations: a flow over all slabs repeats itself.
MAX_STEPS = 50


class _Unknown(BaseException):
    """A recipe used a value that only a calculation gives; ``except Exception`` lets it pass."""


class _Gate:
    """Records the calculations that one recipe would run."""

    def __init__(
        self,
        directory: Path | None = None,
        user_parameters: frozenset[str] = frozenset(),
        *,
        lets_die: bool = False,
        inputs: bool = False,
        moment: float | None = None,
        cores: int | None = None,
    ) -> None:
        self.directory = directory
        self.user_parameters = user_parameters
        self.lets_die = lets_die
        self.inputs = inputs
        #: If set, calculations end with moved atoms and this moment on each, in µB.
        self.moment = moment
        #: The number of cores that quacc sees; ``None`` for this machine's.
        self._cores = cores
        #: quacc has looked for the number of cores.
        self.counts_cores = False
        self.steps: list[Step] = []
        self.files: dict[str, FileFacts] = {}
        self.unknown: str | None = None
        self._last: object = None

    def cores(self, there: int | None) -> int | None:
        """Return the number of cores that quacc is to see."""
        self.counts_cores = True
        return there if self._cores is None else self._cores

    def stop(self, reason: str) -> _Unknown:
        # The recipe may catch the exception with a bare ``except``.
        self.unknown = self.unknown or reason
        return _Unknown(reason)

    def take(self, calculator: Any, atoms: Atoms, copy_files: Iterable[Any] | None) -> Path:
        """Record a calculation, and return the folder that would hold its results."""
        if self.directory is None:
            raise self.stop("no recipe is being asked")
        if len(self.steps) >= MAX_STEPS:
            raise self.stop(f"there are more than {MAX_STEPS} calculations")
        self._last = calculator
        context = Context(
            directory=self.directory,
            user_parameters=self.user_parameters,
            copy_files=tuple(copy_files or ()),
            exact=self.inputs,
        )
        program = next((each for each in _process.programs if self._runs(each, calculator)), None)
        fresh = atoms.copy() if self.inputs else atoms
        if program is None:
            step = Step(calculator=type(calculator).__name__.lower())
        else:
            step, read = self._call(program, _ask, calculator, atoms, context)
            self.files |= read
        if self.inputs:
            step_inputs = self._call(program or Program(), _inputs, calculator, fresh, context)
            step = evolve(step, inputs=step_inputs)
        self.steps.append(step)
        # After a calculation that can begin, its results may decide how the recipe goes on.
        self.lets_die = self.lets_die and cannot_begin(step, self.files)
        if self.lets_die:
            from quacc import JobFailure

            raise JobFailure(self.directory)
        return self.directory / f"step-{len(self.steps)}"

    def _runs(self, program: Program, calculator: Any) -> bool:
        return bool(self._call(program, lambda program: program.runs(calculator)))

    def _call(self, program: Program, call: Callable[..., Any], *arguments: Any) -> Any:
        """Call a program's code; its exception ends the report without blaming the recipe."""
        try:
            return call(program, *arguments)
        except Exception as error:
            if is_passing(error):
                raise
            module = type(program).__module__
            raise self.stop(
                f"the checks of {program.files.title} ({module}) failed: {trouble('recipe', error)}"
            ) from error

    def calculate(self, calculator: Any, atoms: Atoms | None) -> None:
        """Record a calculation that starts without a Runner, and stop: its result is needed."""
        atoms = calculator.atoms if atoms is None else atoms
        if calculator is not self._last:
            self.take(calculator, atoms.copy(), None)
        raise self.stop("the result of a calculation is needed")


def _ask(
    program: Program, calculator: Any, atoms: Atoms, context: Context
) -> tuple[Step, dict[str, FileFacts]]:
    step = program.ask(calculator, atoms, context)
    return step, {need.path: files.facts(need.path, program) for need in step.needs}


def _inputs(program: Program, calculator: Any, atoms: Atoms, context: Context) -> StepInputs | None:
    try:
        return program.inputs(calculator, atoms, context)
    except Exception as error:
        if is_passing(error):
            raise
        # The step's troubles already say why its input cannot be written.
        return None


class _Process:
    """The state that the patches share, whichever thread a recipe uses."""

    def __init__(self) -> None:
        self.gate = _Gate()
        self.programs: Sequence[Program] = ()

    @contextlib.contextmanager
    def through(self, gate: _Gate) -> Iterator[None]:
        """Record calculations by a gate; afterwards none are expected."""
        self.gate = gate
        try:
            yield
        finally:
            self.gate = _Gate()


_process = _Process()


def _stop(reason: str) -> _Unknown:
    return _process.gate.stop(reason)


def ask(
    call: Callable[[], object],
    directory: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    inputs: bool = False,
    calls: bool = False,
) -> Report:
    """Call a recipe in an empty folder, and return the report on its calculations.

    With `inputs` each step has its program's input. A recipe of several calculations is then called
    again with other outcomes of the first ones: inputs that differ are not certain. If quacc looks
    for the number of cores, the recipe is also called with another number.

    With `calls` the body of a flow is called again, without results: the jobs that it calls then
    are certain.
    """
    names = frozenset(_names(parameters or {}))
    first = _Gate(Path(directory), names, inputs=inputs)
    report = _ask_once(call, first, judges=calls)
    # A stand-in may have caused the error.
    doubted = report.end == "stopped" and first.unknown is None
    if report.calls and (calls or doubted):
        report = _with_first_pass(call, directory, report)
    if inputs and first.counts_cores:
        other = _ask_once(call, _Gate(Path(directory), names, inputs=True, cores=CORES))
        report = with_cores(report, other)
    has_later_steps = bool(report.steps[1:])
    for moment in MOMENTS if inputs and has_later_steps else ():
        other = _ask_once(call, _Gate(Path(directory), names, inputs=True, moment=moment))
        report = with_certainty(report, other)
    return report


def _with_first_pass(call: Callable[[], object], directory: str, report: Report) -> Report:
    """Mark the jobs that a flow calls before it needs a result, and whether it always fails."""
    gate = _Gate()
    first = FirstPass(directory)
    with _process.through(gate):
        first.run_body(call)
    if first.stopped:
        report = evolve(report, end="stopped", trouble=trouble("recipe", first.stopped))
    error, end = first.error, report.end
    # The flow fails if the same error comes with stand-ins and without. A missing file may appear.
    if error is not None and not isinstance(error, OSError) and not is_passing(error):
        end = "failed" if trouble("recipe", error) == report.trouble else end
    awaits = first.awaits or ("what it computes itself" if gate.unknown else None)
    return evolve(report, end=end, calls=first.marked(report.calls), awaits=awaits)


@contextlib.contextmanager
def _watching(gate: _Gate, *, judges: bool = False) -> Iterator[CalledJobs | None]:
    """Record the jobs that are called; yield ``None`` if quacc is missing or has no flows."""
    try:
        called = CalledJobs(str(gate.directory), gate.steps, gate.stop, judges=judges)
    except ImportError:
        yield None
        return
    with called.watching():
        yield called


def _call_recipe(
    call: Callable[[], object], gate: _Gate, *, judges: bool = False
) -> tuple[CalledJobs | None, BaseException | None]:
    """Call a recipe through a gate; return the jobs that it called, and its exception."""
    called = None
    try:
        with _process.through(gate), _watching(gate, judges=judges) as called:
            call()
    except BaseException as error:  # noqa: BLE001 - sys.exit() in a recipe is a failure, too
        return called, error
    return called, None


def _ask_once(call: Callable[[], object], gate: _Gate, *, judges: bool = False) -> Report:
    called, error = _call_recipe(call, gate, judges=judges)
    failure: Trouble | None = None
    end: Literal["done", "stopped", "failed"] = "done"
    if gate.unknown:
        end, failure = "stopped", Trouble(where="recipe", type="Unknown", message=gate.unknown)
    elif error is not None:
        # The job itself may have the file or the result that is missing here. A missing preset is
        # certain: no job writes one.
        fleeting = isinstance(error, OSError) or is_passing(error) or bool(gate.steps)
        end = "stopped" if fleeting and not _is_of_preset(error) else "failed"
        failure = trouble("recipe", error)
    calls = called.noted if called else ()
    return Report(steps=tuple(gate.steps), end=end, trouble=failure, files=gate.files, calls=calls)


def cannot_begin(step: Step, known: Mapping[str, FileFacts]) -> bool:
    """Return whether a calculation would fail because of its files or its input."""
    read = [known[need.path] for need in step.needs]
    loose = any(each.loose_end for each in read[:-1])
    return bool(step.troubles) or loose or any(each.problem for each in read)


def survives(call: Callable[[], object], directory: str) -> bool:
    """Return whether a recipe goes on, as with a second choice, if calculations cannot begin."""
    gate = _Gate(Path(directory), lets_die=True)
    _, error = _call_recipe(call, gate)
    if error is None:
        return True
    # The recipe has tried all its choices, and may raise an exception of its own.
    dies = gate.lets_die and gate.unknown is None
    return not dies or isinstance(error, OSError) or is_passing(error)


def _names(parameters: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of all parameters from the user, those for a flow's jobs too."""
    for name, value in parameters.items():
        yield str(name).lower()
        if isinstance(value, dict):
            yield from _names(value)


def _is_of_preset(error: BaseException) -> bool:
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_code.co_name == "load_yaml_calc"


def summary(summarizer: Any, result: Any, *_: object, **__: object) -> dict[str, Any]:
    """Stand in for a summary; return the part that is known beforehand."""
    return _known_of(result if isinstance(result, Atoms) else result.atoms, summarizer)


def _vib_summary(summarizer: Any, *_: object, **__: object) -> Summary:
    return _known_of(summarizer.vib_object.atoms, summarizer)


def _known_of(atoms: Atoms, summarizer: Any) -> Summary:
    ended = atoms.copy()
    moment = _process.gate.moment
    if moment is not None and getattr(summarizer, "move_magmoms", False):
        ended.set_initial_magnetic_moments([moment] * len(ended))
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
    gate = _process.gate
    several = isinstance(atoms, list)
    images = [image.copy() for image in (atoms if several else [atoms])]
    for image in images:
        image.calc = copy.deepcopy(calculator) if several else calculator
        folder = gate.take(image.calc, image.copy(), copy_files)
        image.calc.directory = folder
        image.calc.results = Unseen(_stop)
        if gate.moment is not None:
            move(image)
            image.calc.results.moments = [gate.moment] * len(image)
        runner.tmpdir = runner.job_results_dir = folder
    runner.atoms = images if several else images[0]
    runner.copy_files = copy_files


def _run_calc(runner: Any, *_: object, **__: object) -> Any:
    return runner.atoms


def _run(runner: Any, *_: object, **__: object) -> Outcome:
    atoms = runner.atoms[0] if isinstance(runner.atoms, list) else runner.atoms
    return Outcome(atoms, _stop)


def _cannot_run(*_: object, **__: object) -> Any:
    raise _stop("something other than a calculation is run")


def calculate(calculator: Any, atoms: Atoms | None = None, *_: object, **__: object) -> None:
    """Stand in for a calculator's own ``calculate``."""
    _process.gate.calculate(calculator, atoms)


def is_unmade(directory: str | Path | None) -> bool:
    """Return whether a folder belongs to a calculation that was only recorded."""
    return bool(directory) and Path(str(directory)).parent == _process.gate.directory


def install(programs: Sequence[Program]) -> None:
    """Replace quacc's and ASE's calculations in this process; programs replace their own.

    The first program whose ``runs`` accepts a calculator is asked about it.
    """
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
    _process.programs = tuple(programs)


def patch(owner: Any, **functions: Any) -> None:
    """Replace functions of a class."""
    for name, function in functions.items():
        setattr(owner, name, function)


def _patch_cores() -> None:
    """Let the gate answer quacc's question for the number of cores; others see this machine's."""
    import psutil

    count = psutil.cpu_count

    def cpu_count(logical: bool = True) -> int | None:  # noqa: FBT001, FBT002 - psutil's signature
        frame = inspect.currentframe()
        caller = frame and frame.f_back and frame.f_back.f_globals.get("__name__")
        cores: int | None = count(logical)
        return _process.gate.cores(cores) if str(caller).startswith("quacc.") else cores

    psutil.cpu_count = cpu_count


def _patch_settings() -> None:
    """Keep quacc from creating the folders in a recipe's settings."""
    import quacc

    change = quacc.settings.change_settings

    def change_settings(changes: Mapping[str, Any]) -> Any:
        makes = {"RESULTS_DIR", "SCRATCH_DIR"}
        return change({name: value for name, value in changes.items() if name not in makes})

    quacc.change_settings = quacc.settings.change_settings = change_settings
