"""One pass of a flow: its body runs, and the jobs that it calls become steps of the flow.

quacc sends each call of a job, flow or subflow through one function, which a pass replaces. The
call of a step that has ended returns that step's result, or raises its error (`step_replay`). The
call of any other step returns a `StepValue` (`step_values`). If the body needs the value itself,
the pass ends, and the next pass runs the body again once that step has ended. The steps themselves
are jobs on record, which the flow's owner submits.

A step's name consists of the flows and subflows around the call, the function, and how many times
that function was called there before.
"""

from __future__ import annotations

import contextlib
import inspect
import random
import sys
import threading
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from crystalmath import flow as flow_module
from crystalmath.errors import InvalidJob
from crystalmath.flow import StepFailed
from crystalmath.models.submission import step_matches
from crystalmath.recipes import codec
from crystalmath.recipes.encoding import ArgumentEncoder
from crystalmath.recipes.lookup import NAMESPACE
from crystalmath.recipes.quacc_settings import changed_settings
from crystalmath.worker.step_replay import (
    CHANGED_BY_FAILURE,
    REMEDY,
    Replay,
    canonical,
    error_line,
)
from crystalmath.worker.step_values import StepValue, as_stored, step_reference, steps_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from crystalmath.jobs.rundir import RunDirectory
    from crystalmath.worker.step_replay import FlowSteps

#: The arguments of a call that name a directory that an earlier step has written. The job works in
#: a copy of it (`own_outdirs`).
_WRITTEN = ("prev_outdir", "outdir")


class StepsNeededError(BaseException):
    """The body cannot go on before some steps have ended."""


class ReplayDiffersError(BaseException):
    """The body has called something else than an earlier pass."""


class FlowPass:
    """One pass of a flow.

    Parameters
    ----------
    directory : RunDirectory
        The flow's run directory, beside those of its steps.
    flow : FlowSteps
        The known steps, and the rules for calling more.
    by_step : iterable of str
        The names and patterns of steps that have terms or parameters of their own.
    """

    def __init__(
        self, directory: RunDirectory, flow: FlowSteps, by_step: Iterable[str] = ()
    ) -> None:
        self._by_step = by_step
        self._directory = directory
        self._flow = flow
        self._replay = Replay(directory, flow, self)
        self._thread = threading.get_ident()
        self._scope: list[str] = []
        self._counts: dict[str, int] = {}
        self._in_step = False
        self._end: BaseException | None = None
        self._needs: list[str] = []
        self._calls: list[dict[str, Any]] = []
        #: The called steps, and whether each has ended.
        self._called: dict[str, bool] = {}
        #: The step that was called last for each directory of `_WRITTEN`.
        self._last_writers: dict[str, str] = {}
        self._settings_before: dict[str, str] = {}
        from quacc.wflow_tools import context

        # Private, but the one place through which all calls go, whatever was imported before.
        self._seam = vars(context)
        self._original: Callable[..., Any] = self._seam["_tracked_call"]
        self._kinds = context.NodeType

    def run(self, body: Callable[[], Any]) -> Any:
        """Run the body once; return its result, or an `Awaited` with the steps that it needs.

        Raises
        ------
        StepFailed
            A step has failed, and the body has not handled that.
        CrystalMathError
            The body has called something else than an earlier pass.
        """
        random.seed(self._directory.path)
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed(random.getrandbits(32))
        error: BaseException | None = None
        result = None
        with self._calls_replaced():
            try:
                result = body()
            except BaseException as raised:  # noqa: BLE001 - sys.exit(), and our own ends of a pass
                error = raised
        if isinstance(self._end, ReplayDiffersError):
            raise InvalidJob(str(self._end)) from None
        needed = self._needs or [name for name, has_ended in self._called.items() if not has_ended]
        if needed:
            # The result or error is a guess as long as steps are open.
            return Awaited(self._calls, needed)
        known = self._replay.steps
        if any(known[name].taken_over and not known[name].counted for name in self._called_known()):
            return Awaited(self._calls, [])  # its owner records the steps that it has taken over
        if error is not None:
            self._raise(error)
        uncalled = [step for name, step in known.items() if name not in self._called]
        # After a failure, steps may stay uncalled that were launched on the guess of success.
        binding = [step for step in uncalled if self._replay.is_binding(step)]
        if binding and not self._replay.failures:
            raise InvalidJob(
                f"the flow has called {binding[0].label} in an earlier pass, and does not any more"
                f"{f' (nor {len(binding) - 1} others)' if len(binding) > 1 else ''}; {REMEDY}"
            )
        if living := [step.name for step in uncalled if not step.has_ended()]:
            return Awaited(self._calls, living)  # no step outlives its flow
        return as_stored(result)

    def counts(self) -> dict[str, Any]:
        """Count the called steps for the summary: jobs of this flow by their state, and others."""
        by_state: dict[str, int] = {}
        counts: dict[str, Any] = {"flow_steps": by_state}
        for name in self._called:
            step = self._replay.steps.get(name)
            if step is None or step.taken_over:
                other = "steps_in_pass" if step is None else "steps_taken_over"
                counts[other] = counts.get(other, 0) + 1
            else:
                by_state[step.state] = by_state.get(step.state, 0) + 1
        called = [(call["recipe"], call["name"]) for call in self._calls]
        unused = [one for one in self._by_step if not any(step_matches(one, *c) for c in called)]
        return {**counts, "by_step_unused": unused} if unused else counts

    def _called_known(self) -> list[str]:
        return [name for name in self._called if name in self._replay.steps]

    def _raise(self, error: BaseException) -> NoReturn:
        for failure, step in self._replay.failures.values():
            if failure is error and not isinstance(error, StepFailed):
                raise StepFailed(f"{step.label} failed: {error_line(error)}") from error
        raise error

    @contextlib.contextmanager
    def _calls_replaced(self) -> Iterator[None]:
        self._settings_before = changed_settings()
        self._seam["_tracked_call"] = self.call
        flow_module.recorder = self.record
        try:
            yield
        finally:
            self._seam["_tracked_call"] = self._original
            flow_module.recorder = None

    # --- calls -------------------------------------------------------------------------------

    def call(
        self,
        function: Callable[..., Any],
        kind: Any,
        args: tuple[Any, ...],
        keywords: dict[str, Any],
    ) -> Any:
        """Call a job, flow or subflow in the place of quacc's own function."""
        if self._in_step or inspect.iscoroutinefunction(function):
            return self._original(function, kind, args, keywords)
        self._check_end()
        if kind is self._kinds.JOB:
            return self._step(function, args, keywords)
        if not self._counts and kind is self._kinds.FLOW:
            self._counts[""] = 1  # the flow itself
            return function(*args, **keywords)
        if kind is self._kinds.SUBFLOW:
            self._need_values(args, keywords)
        self._scope.append(self._name(function).rpartition("/")[2])
        try:
            return function(*args, **keywords)
        finally:
            self._scope.pop()

    def record(
        self, function: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Any:
        """Run a function in this pass, and keep its result for later ones."""
        if self._in_step:
            return function(*args, **keywords)
        self._check_end()
        name = self._name(function)
        return self._run_here(name, function, args, keywords, required=True)

    def _check_end(self) -> None:
        """Raise the end of the pass again if the body has swallowed it."""
        if threading.get_ident() != self._thread:
            self.stop(
                "a job of the flow is called from a thread that the flow has started, so that the "
                "order of its steps is left to chance; call it from the flow's own thread, or "
                "submit the flow with --in-one-job"
            )
        if self._end is not None:
            raise self._end

    def need(self, names: list[str]) -> NoReturn:
        """End the pass, as the body needs the values of steps."""
        if self._end is None:
            self._needs = names
            self._end = StepsNeededError(", ".join(names))
        raise self._end

    def stop(self, reason: str) -> NoReturn:
        """End the pass and fail the flow."""
        if not isinstance(self._end, ReplayDiffersError):
            self._end = ReplayDiffersError(reason)
        raise self._end

    def _name(self, function: Callable[..., Any]) -> str:
        """Return the name of the step that a call makes."""
        qualified = getattr(function, "__qualname__", type(function).__qualname__)
        module = getattr(function, "__module__", None) or ""
        if f"{module}.".startswith(f"{NAMESPACE}."):
            own = qualified.rpartition("<locals>.")[2]
        else:
            own = f"{module}.{qualified.replace('<locals>.', '')}"
        path = "/".join([*self._scope, own])
        number = self._counts[path] = self._counts.get(path, -1) + 1
        return f"{path}#{number}"

    def _step(
        self, function: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Any:
        """Return the result of a step that has ended, or a `StepValue`; note the call."""
        name = self._name(function)
        if len(self._called) >= self._flow.most:
            self.stop(
                f"the flow calls more than {self._flow.most} steps, and a flow may have no more; "
                "make several flows of it, or submit it with --in-one-job"
            )
        call = self._job_call(function, args, keywords)
        if call is None:
            if (known := self._replay.steps.get(name)) is not None:
                difference = "it was a job, and its arguments have no form in JSON now"
                if self._replay.needs_other_name(known, difference):
                    name += CHANGED_BY_FAILURE
            return self._run_here(name, function, args, keywords)
        name, step = self._replay.match(name, call.recipe, call.document, _first(function))
        note: dict[str, Any] = {
            "name": name,
            "recipe": call.recipe,
            "step": call.recipe.rpartition(".")[2],
            "after": self._earlier_writers(name, call.document),
        }
        if step is not None:
            self._calls.append({**note, "known": step.job_id})
            self._called[name] = step.has_ended()
            if step.has_ended():
                return self._replay.value(step)
        else:
            replaced = self._replay.steps.pop(name, None)
            self._called[name] = False
            note |= {"known": None, "replaces": replaced and replaced.job_id}
            self._calls.append({**note, "document": call.document, "settings": call.settings})
        if self._flow.serial:
            self.need([name])
        return StepValue(self, name)

    def _job_call(
        self, function: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> _JobCall | None:
        """Return a call as a job of its own; ``None`` if it has to run in the pass."""
        imported = importable(function)
        if imported is None:
            return None
        recipe, changes = imported
        from quacc import change_settings

        with change_settings(changes):
            now = changed_settings()
        before = self._settings_before
        settings = {key: text for key, text in now.items() if before.get(key) != text}
        arguments = _by_name(function, args, keywords)
        if arguments is None:
            return None
        encoder = ArgumentEncoder(step_reference)
        nodes = {key: encoder.encode(value, (key,)) for key, value in arguments.items()}
        if encoder.as_text:
            return None
        first = _first(function)
        atoms = None
        if first in arguments and _is_structure(first, arguments[first]):
            atoms = nodes.pop(first)
        return _JobCall(recipe, {"atoms": atoms, "parameters": nodes}, settings or None)

    def _earlier_writers(self, name: str, document: Mapping[str, Any]) -> list[str]:
        """Return the earlier steps that work in a directory that this step reads or writes."""
        parameters = document["parameters"]
        places = {canonical(parameters[key]) for key in _WRITTEN if parameters.get(key) is not None}
        before = {self._last_writers[place] for place in places if place in self._last_writers}
        self._last_writers |= dict.fromkeys(places, name)
        return sorted(each for each in before if self._may_have_written(each))

    def _may_have_written(self, name: str) -> bool:
        """Return whether a step has completed, or may still do so."""
        return not self._called[name] or self._replay.steps[name].state == "completed"

    # --- steps that run in the pass itself ---------------------------------------------------

    def _run_here(
        self,
        name: str,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        keywords: dict[str, Any],
        *,
        required: bool = False,
    ) -> Any:
        """Run a step that is no job of its own, unless an earlier pass has; keep its result."""
        self._need_values(args, keywords)
        self._called[name] = True
        digest = _digest(args, keywords)
        if (kept := self._replay.kept(name)) is not None:
            if None in {digest, kept.header["arguments"]} or kept.header["arguments"] == digest:
                if not kept.is_own:
                    self._directory.keep_step(name, kept.header, kept.payload)
                return self._replay.decoded(kept.payload, f"step {name}")
            if kept.is_own and not self._replay.failures:
                self.stop(
                    f"the flow calls the step {name} with other arguments than before; {REMEDY}"
                )
        self._in_step = True
        try:
            result = self._original(function, self._kinds.JOB, args, keywords)
        finally:
            self._in_step = False
        as_text: list[str] = []
        payload = codec.encode_result(result, as_text)
        as_text += self._replay.formless_places(payload, f"step {name}")
        if not as_text:
            self._directory.keep_step(name, {"name": name, "arguments": digest}, payload)
        elif required:
            self.stop(
                f"the result of the step {name} cannot be kept: {as_text[0]} has no form in JSON"
            )
        return result

    def _need_values(self, *values: Any) -> None:
        """End the pass if arguments contain values of steps that have not ended."""
        names = dict.fromkeys(steps_in(values))
        if names:
            self.need(list(names))


class Awaited:
    """The end of a pass that cannot go on yet.

    Parameters
    ----------
    calls : list of dict
        The calls of jobs in their order.
    needs : list of str
        The names of the steps that the next pass waits for.
    """

    def __init__(self, calls: list[dict[str, Any]], needs: list[str]) -> None:
        self.calls = calls
        self.needs = needs

    def document(self) -> dict[str, Any]:
        """Return it as the payload of an outcome."""
        reason = f"waits for {self.needs[0]}" if self.needs else "has taken over steps"
        if len(self.needs) > 1:
            reason = f"{reason} and {len(self.needs) - 1} more steps"
        return {"calls": self.calls, "needs": self.needs, "reason": reason}


# --- functions and their arguments -----------------------------------------------------------


class _JobCall(NamedTuple):
    """A call as a job: its recipe, its encoded arguments, and the settings that it changes."""

    recipe: str
    document: dict[str, Any]
    settings: dict[str, str] | None


def importable(function: Callable[..., Any]) -> tuple[str, dict[str, Any]] | None:
    """Return the name by which a worker finds a function, and the settings it is wrapped with."""
    changes: dict[str, Any] = {}
    while True:
        name = getattr(function, "__qualname__", "<")
        module = getattr(function, "__module__", None) or "__main__"
        named = vars(sys.modules[module]).get(name) if module in sys.modules else None
        is_it = function is named or function is getattr(named, "__wrapped__", None)
        is_public = module != "__main__" and "." not in name
        if f"{module}.".startswith(f"{NAMESPACE}."):
            is_public = is_public and not name.startswith("_")  # those are no recipes
        if is_it and named is not None and is_public:
            return f"{module}.{name}", changes
        if not getattr(function, "_changed", False):
            return None
        # quacc's `settings_swap`: the same function, with settings.
        changes = {**inspect.getclosurevars(function).nonlocals["changes"], **changes}
        function = vars(function)["_original_func"]


def _is_structure(name: str, value: Any) -> bool:
    if type(value) is StepValue:
        return name == "atoms"
    from ase import Atoms

    return isinstance(value, Atoms)


def _digest(args: tuple[Any, ...], keywords: dict[str, Any]) -> str | None:
    """Return a digest of a call's arguments; ``None`` if they cannot be compared."""
    import hashlib

    encoder = ArgumentEncoder(step_reference)
    nodes = encoder.encode([list(args), keywords], ())
    if encoder.as_text:
        return None
    return hashlib.sha256(canonical(nodes).encode()).hexdigest()


def _by_name(
    function: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any]
) -> dict[str, Any] | None:
    """Return the arguments of a call by their names; ``None`` if some can have no name."""
    try:
        signature = inspect.signature(function)
        arguments = dict(signature.bind(*args, **keywords).arguments)
    except (TypeError, ValueError):
        return None  # the call itself raises that
    for name, parameter in signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            arguments |= arguments.pop(name, {})
        elif name in arguments and parameter.kind in _NAMELESS:
            return None
    return arguments


_NAMELESS = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY)


def _first(function: Callable[..., Any]) -> str:
    """Return the parameter for which a worker passes the structure; an empty name if none."""
    parameter = next(iter(inspect.signature(function).parameters.values()), None)
    is_it = parameter is not None and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    return parameter.name if parameter is not None and is_it else ""
