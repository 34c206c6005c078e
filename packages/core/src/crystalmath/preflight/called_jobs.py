"""The jobs that a flow calls while its recipe is asked: with stand-ins, and before any result.

Both ways go through the seam that a pass of the flow goes through, so the names are those that its
steps will have.
"""

from __future__ import annotations

import contextlib
import inspect
from typing import TYPE_CHECKING, Any

from ase import Atoms
from attrs import evolve

from crystalmath.jobs.rundir import RunDirectory
from crystalmath.preflight import plausibility
from crystalmath.preflight.report import CalledJob
from crystalmath.worker.flow_pass import FlowPass, importable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from crystalmath.preflight.report import Step

#: So many calls are noted before the first result that is needed.
_MOST = 1000


class CalledJobs(FlowPass):
    """Note which jobs a recipe calls, each of which runs up to its calculations.

    `steps` are the calculations, which grow meanwhile. With `judges` what is hardly meant in the
    arguments of a job is noted, too.
    """

    def __init__(self, directory: str, steps: Sequence[Step], *, judges: bool) -> None:
        super().__init__(RunDirectory(directory), {"steps": [], "most": _MOST, "serial": False})
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
        """Call what the flow would keep; nothing is kept here."""
        return function(*args, **keywords)

    def _check_end(self) -> None:
        """Go on in whatever thread: all are called at once."""

    def _step(
        self, function: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Any:
        name, first = self._name(function), len(self._steps)
        found = importable(function)
        recipe = found and found[0]
        atoms = args[0] if args and isinstance(args[0], Atoms) else None
        findings: list[dict[str, Any]] = []
        if self._judges and recipe is not None:
            findings = [vars(one) for one in plausibility.findings(recipe, atoms, keywords)]
        formula = None if atoms is None else atoms.get_chemical_formula()
        self._in_step = True
        try:
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
        super().__init__(RunDirectory(directory), {"steps": [], "most": _MOST, "serial": False})
        #: What the body raises.
        self.error: Exception | None = None
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

        # What it has raised was noted, or is that it calls too many.
        with contextlib.suppress(Exception):
            told = self.run(noted)
            if self._needs:
                self.awaits = told.document()["reason"].removeprefix("waits for ")

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
        try:
            inspect.signature(function).bind(*args, **keywords)
        except TypeError:
            function(*args, **keywords)  # which says so in Python's own words
        except ValueError:  # it has no signature
            pass
        self._need_values(args, keywords)
        self.need([name])
