"""The jobs that a flow calls in the child: with stand-ins for results, and before any result.

Both use the code of a real pass of the flow, so the steps get the names that they will have.
"""

from __future__ import annotations

import contextlib
import inspect
from typing import TYPE_CHECKING, Any, NoReturn

from ase import Atoms
from attrs import evolve

from crystalmath.jobs.rundir import RunDirectory
from crystalmath.plugins.report import CalledJob
from crystalmath.preflight import plausibility
from crystalmath.recipes.lookup import is_quaccs
from crystalmath.worker.flow_pass import FlowPass, importable
from crystalmath.worker.step_replay import FlowSteps
from crystalmath.worker.step_values import StepValue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from crystalmath.plugins.report import Step
    from crystalmath.preflight.stand_ins import Stop

#: A flow that has not begun has no steps.
_NOT_BEGUN = FlowSteps()


class CalledJobs(FlowPass):
    """Records the jobs that a recipe calls. quacc's own jobs run up to their calculations.

    No other job of a flow runs, since it may do anything; the use of its result raises the
    exception that `stop` returns. `steps` is the growing list of calculations. With `judges`
    implausible arguments of a job are recorded, too.
    """

    def __init__(
        self, directory: str, steps: Sequence[Step], stop: Stop, *, judges: bool = False
    ) -> None:
        super().__init__(RunDirectory(directory), _NOT_BEGUN)
        self._stop = stop
        self._steps = steps
        self._judges = judges
        self._noted: list[CalledJob] = []

    @property
    def noted(self) -> tuple[CalledJob, ...]:
        """The jobs that were called; none if the recipe is no flow."""
        return tuple(self._noted) if "" in self._counts else ()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Record calls within this context."""
        with self._calls_replaced():
            yield

    def record(
        self, function: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Any:
        """Return a reference to a value of ``flow.step``, whose function is not called."""
        if self._in_step or "" not in self._counts:
            return function(*args, **keywords)
        return StepValue(self, self._name(function))

    def need(self, names: list[str]) -> NoReturn:
        """End the report: the body needs the values of jobs that do not run."""
        raise self._stop(f"the result of {names[0]} is needed")

    def _check_end(self) -> None:
        """Do nothing: a recorded flow has no limits of a pass."""

    def _step(
        self, function: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Any:
        is_called = "" not in self._counts or is_quaccs(function.__module__)
        if is_called:
            self._need_values(args, keywords)
        else:
            _check_call(function, args, keywords)
        name, first = self._name(function), len(self._steps)
        place = importable(function)
        recipe = place and place[0]
        # `isinstance` would ask a reference for the class of its value, which does not exist yet.
        atoms = args[0] if args and issubclass(type(args[0]), Atoms) else None
        findings: list[dict[str, Any]] = []
        if self._judges and is_called and recipe is not None:
            findings = [vars(one) for one in plausibility.findings(recipe, atoms, keywords)]
        formula = None if atoms is None else atoms.get_chemical_formula()
        self._in_step = True
        try:
            if not is_called:
                return StepValue(self, name)
            return self._original(function, self._kinds.JOB, args, keywords)
        finally:
            self._in_step = False
            seen = (first, len(self._steps))
            self._noted.append(
                CalledJob(
                    name=name, recipe=recipe, formula=formula, steps=seen, findings=tuple(findings)
                )
            )


class FirstPass(FlowPass):
    """The first pass of a flow, in which no step has a result. Nothing is run or kept."""

    def __init__(self, directory: str) -> None:
        super().__init__(RunDirectory(directory), _NOT_BEGUN)
        #: The exception of the flow's body.
        self.error: Exception | None = None
        #: The exception that ended the pass, if the body did not raise it.
        self.stopped: Exception | None = None
        #: The result that the flow waits for.
        self.awaits: str | None = None

    def run_body(self, body: Callable[[], Any]) -> None:
        """Run the body once."""

        def noted() -> Any:
            try:
                return body()
            except Exception as error:
                self.error = error
                raise

        try:
            outcome = self.run(noted)
            if self._needs:
                self.awaits = outcome.document()["reason"].removeprefix("waits for ")
        except Exception as error:  # noqa: BLE001 - a flow's body may raise anything
            # Not the body's own exception: the pass ended it, for calling too many jobs.
            self.stopped = None if self.error else error

    def marked(self, calls: Sequence[CalledJob]) -> tuple[CalledJob, ...]:
        """Mark the calls that are certain, and add those that were not seen with stand-ins."""
        seen = {call.name for call in calls}
        more = [
            CalledJob(name=call["name"], recipe=call["recipe"])
            for call in self._calls
            if call["name"] not in seen
        ]
        return tuple(evolve(call, known=call.name in self._called) for call in [*calls, *more])

    def _run_here(
        self,
        name: str,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        keywords: dict[str, Any],
        **_: Any,
    ) -> Any:
        _check_call(function, args, keywords)
        self._need_values(args, keywords)
        self.need([name])


def _check_call(
    function: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any]
) -> None:
    """Raise Python's own exception if a function does not take the arguments."""
    try:
        # A wrapper may take more arguments than the function that it wraps.
        inspect.signature(function, follow_wrapped=False).bind(*args, **keywords)
    except TypeError:
        function(*args, **keywords)  # it raises Python's own message
    except ValueError:  # it has no signature
        pass
