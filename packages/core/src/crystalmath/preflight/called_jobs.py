"""The jobs that a flow calls while its recipe is asked: with stand-ins, and before any result.

Both ways go through the seam that a pass of the flow goes through, so the names are those that its
steps will have.
"""

from __future__ import annotations

import contextlib
import inspect
from typing import TYPE_CHECKING, Any, NoReturn

from ase import Atoms
from attrs import evolve

from crystalmath.jobs.rundir import RunDirectory
from crystalmath.models.submission import MOST_STEPS
from crystalmath.plugins.report import CalledJob
from crystalmath.preflight import plausibility
from crystalmath.recipes.lookup import is_quaccs
from crystalmath.worker.flow_pass import FlowPass, StepValue, importable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from crystalmath.plugins.report import Step
    from crystalmath.preflight.stand_ins import Stop

#: What a specification says of the steps of a flow that has not begun.
_NOT_BEGUN: Mapping[str, Any] = {"steps": [], "most": MOST_STEPS, "serial": False}


class CalledJobs(FlowPass):
    """Note which jobs a recipe calls. quacc's own run up to their calculations.

    No other job of a flow runs: it may do anything. What needs its result raises what `stop`
    returns. `steps` are the calculations, which grow meanwhile. With `judges` what is hardly meant
    in the arguments of a job is noted, too.
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
        """The jobs that were called; none where the recipe is no flow."""
        return tuple(self._noted) if "" in self._counts else ()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Note what is called."""
        with self._calls_replaced():
            yield

    def record(
        self, function: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Any:
        """Return a reference in the place of what the flow would keep: it may do anything."""
        if self._in_step or "" not in self._counts:
            return function(*args, **keywords)
        return StepValue(self, self._name(function))

    def need(self, names: list[str]) -> NoReturn:
        """End the asking, as the body needs the values of jobs that do not run."""
        raise self._stop(f"the result of {names[0]} is needed")

    def _check_end(self) -> None:
        """Go on in whatever thread: all are called at once."""

    def _step(
        self, function: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Any:
        is_asked = "" not in self._counts or is_quaccs(function.__module__)
        if is_asked:
            self._need_values(args, keywords)
        else:
            _check_call(function, args, keywords)
        name, first = self._name(function), len(self._steps)
        found = importable(function)
        recipe = found and found[0]
        # The class of a reference is that of a value that nobody has.
        atoms = args[0] if args and issubclass(type(args[0]), Atoms) else None
        findings: list[dict[str, Any]] = []
        if self._judges and is_asked and recipe is not None:
            findings = [vars(one) for one in plausibility.findings(recipe, atoms, keywords)]
        formula = None if atoms is None else atoms.get_chemical_formula()
        self._in_step = True
        try:
            if not is_asked:
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
    """What a flow calls before any of its steps has ended. Nothing is run, and nothing is kept."""

    def __init__(self, directory: str) -> None:
        super().__init__(RunDirectory(directory), _NOT_BEGUN)
        #: What the body raises.
        self.error: Exception | None = None
        #: Why it was not called to its end.
        self.stopped: Exception | None = None
        #: What it waits for.
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
            told = self.run(noted)
            if self._needs:
                self.awaits = told.document()["reason"].removeprefix("waits for ")
        except Exception as error:  # noqa: BLE001 - whatever the body raises
            # Else it calls too many.
            self.stopped = None if self.error else error

    def marked(self, calls: Sequence[CalledJob]) -> tuple[CalledJob, ...]:
        """Mark which calls are known, and add those that were not seen with stand-ins."""
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
    """Raise what Python would raise for arguments that a function does not take."""
    try:
        # What is wrapped may take less than its wrapper, which would begin with them.
        inspect.signature(function, follow_wrapped=False).bind(*args, **keywords)
    except TypeError:
        function(*args, **keywords)  # which says so in Python's own words
    except ValueError:  # it has no signature
        pass
