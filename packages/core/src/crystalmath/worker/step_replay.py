"""The replay of a flow: what its earlier passes have called, and what their steps have given.

A step that was launched binds: each later pass must call it with the same arguments. The call of a
step that has ended returns that step's result, or raises its error.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from attrs import field, frozen

from crystalmath.errors import BadFile, CrystalMathError, InvalidJob, shown
from crystalmath.flow import StepFailed
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.jobs.written_spec import WrittenSpec
from crystalmath.models.reference import JOB
from crystalmath.models.submission import MOST_STEPS, merged
from crystalmath.recipes import codec
from crystalmath.recipes.encoding import NUMPY, NUMPY_TYPES, ArgumentEncoder, ResultEncoder
from crystalmath.worker.step_values import (
    StepArgumentDecoder,
    StepResultDecoder,
    StepValue,
    step_reference,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crystalmath.worker.step_values import EndsPass

#: Marks the name of a step that is called with other arguments because another step has failed.
CHANGED_BY_FAILURE = "~"
REMEDY = (
    "a flow must make the same calls whenever its steps have the same results: keep what is "
    "random, or depends on the time or on files, by crystalmath.flow.step. crystalmath retry makes "
    "a new flow that takes over each completed step whose arguments agree; with --serial it calls "
    "each step only once the one before has ended"
)
_ENDED = frozenset(("completed", "failed", "cancelled"))
#: An error whose arguments take more characters than this is not stored for raising it again.
_MOST_ARGUMENTS = 10_000


@frozen(kw_only=True)
class KnownStep:
    """A step that an earlier pass has called, as the flow's specification lists it."""

    name: str
    job_id: str
    #: The job's state; ``waiting`` while the step waits for others, ``launched`` after that.
    state: str
    attempt: int
    error: str | None = None
    #: The recorded arguments of a step that waits: it has no specification of its own yet.
    document: Mapping[str, Any] | None = None
    #: The parameters that the job of a waiting step has in place of those of the flow's call.
    changed: Mapping[str, Any] = field(factory=dict)
    #: The job whose specification has the arguments of the flow's call: the step's first try.
    first_job_id: str
    #: Whether another flow has run it, which this one repeats; and whether its owner knows that.
    taken_over: bool = False
    counted: bool = False

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> KnownStep:
        """Read a step from its entry in a flow's specification."""
        document = entry.get("document")
        return cls(
            name=entry["name"],
            job_id=entry["job_id"],
            state=entry["state"],
            attempt=entry["attempt"],
            error=entry.get("error"),
            document=json.loads(document) if isinstance(document, str) else document,
            changed=entry.get("changed", {}),
            first_job_id=entry.get("asked", entry["job_id"]),
            taken_over=bool(entry.get("taken_over")),
            counted=bool(entry.get("counted")),
        )

    @property
    def label(self) -> str:
        """The step's name and job, for messages."""
        return f"step {self.name} (job {self.job_id})"

    def has_ended(self) -> bool:
        """Return whether the step has a result or an error."""
        return self.state in _ENDED


@frozen(kw_only=True)
class FlowSteps:
    """The steps of a flow at the beginning of a pass, and the rules for calling more."""

    steps: tuple[KnownStep, ...] = ()
    #: The flow may call this many steps.
    most: int = MOST_STEPS
    #: Whether each step is called only after the one before has ended.
    serial: bool = False
    #: The id of the flow that this one repeats.
    repeats: str | None = None

    @classmethod
    def of(cls, flow: Mapping[str, Any]) -> FlowSteps:
        """Read them from the entry ``flow`` of a specification."""
        return cls(
            steps=tuple(map(KnownStep.of, flow["steps"])),
            most=int(flow["most"]),
            serial=bool(flow["serial"]),
            repeats=flow.get("repeats"),
        )


class _Call(NamedTuple):
    """The call of a step as it is on record; ``recipe`` is ``None`` if that is not known."""

    recipe: str | None
    document: Mapping[str, Any]
    changed: Mapping[str, Any]


class KeptStep(NamedTuple):
    """The kept result of a step that has run in a pass itself."""

    header: dict[str, Any]
    payload: bytes
    #: Whether it was this flow that ran the step, not the flow that it repeats.
    is_own: bool


class Replay:
    """The steps that earlier passes of a flow have called.

    Parameters
    ----------
    directory : RunDirectory
        The flow's run directory, beside those of its steps.
    flow : FlowSteps
        The steps that are known.
    ends : EndsPass
        Ends the pass if a call differs from its record, or a result cannot be read.
    """

    def __init__(self, directory: RunDirectory, flow: FlowSteps, ends: EndsPass) -> None:
        self._directory = directory
        self._repeats = flow.repeats
        self._ends = ends
        self.steps = {step.name: step for step in flow.steps}
        #: The errors of steps that were raised in the body, which may raise others itself.
        self.failures: dict[int, tuple[Exception, KnownStep]] = {}

    # --- calls -------------------------------------------------------------------------------

    def is_binding(self, step: KnownStep) -> bool:
        """Return whether an earlier pass of this flow has launched a step."""
        if step.state == "waiting" or step.taken_over:
            return False
        # A step that needed a failed one was never launched.
        return step.state == "completed" or self._beside(step.job_id).has("spec")

    def match(
        self, name: str, recipe: str, document: Mapping[str, Any], first: str
    ) -> tuple[str, KnownStep | None]:
        """Find the known step that a call repeats.

        Parameters
        ----------
        name : str
            The name of the step by its place in the flow.
        recipe : str
            The full name of the function.
        document : mapping
            The encoded structure and parameters.
        first : str
            The name of the parameter that takes the structure.

        Returns
        -------
        tuple of str and KnownStep or None
            The step's name, and the step unless it is new or replaced. A step that was launched
            before another one failed, and is called otherwise since, gets a new name.
        """
        step = self.steps.get(name)
        if step is None:
            return name, None
        recorded = self._recorded(step)
        if recorded is None:
            # It is about to be launched, or a step that it needed has failed.
            return name, None if step.state == "failed" else step
        # The flow's `by_step` changed the recorded parameters, so it changes these, too.
        now = {**document, "parameters": merged(document["parameters"], recorded.changed)}
        if (difference := self._difference(recorded, recipe, now, first)) is None:
            return name, step
        if self.needs_other_name(step, difference):
            return self.match(name + CHANGED_BY_FAILURE, recipe, document, first)
        return name, None

    def needs_other_name(self, step: KnownStep, difference: str) -> bool:
        """Return whether a changed call of a step needs another name, or end the pass."""
        if not self.is_binding(step):
            return False
        # Each failure may change the calls that follow it once, in the first pass that sees it.
        if step.name.count(CHANGED_BY_FAILURE) >= len(self.failures):
            self._ends.stop(
                f"the flow calls {step.label} otherwise than before: {difference}; {REMEDY}"
            )
        return True

    def _difference(
        self, recorded: _Call, recipe: str, document: Mapping[str, Any], first: str
    ) -> str | None:
        """Return how a call differs from the recorded one; ``None`` if they are the same."""
        if recorded.recipe is not None and recorded.recipe != recipe:
            return f"it was {recorded.recipe}, and is {recipe} now"
        now = _arguments(document, first)
        then = _arguments(recorded.document, first)
        if _differing(then, now):
            # The same values may be written in other ways.
            both = self._resolved(recorded.document), document
            then, now = (_arguments(_without_numpy_types(each), first) for each in both)
        for key in _differing(then, now):
            old, new = then.get(key, "not given"), now.get(key, "not given")
            return f"its argument {key!r} was {shown(old)}, and is {shown(new)} now"
        return None

    def _recorded(self, step: KnownStep) -> _Call | None:
        """Return the recorded call of a step; ``None`` if it was not written down."""
        if step.document is not None:
            return _Call(None, step.document, step.changed)
        try:
            header, body = self._beside(step.first_job_id).read_spec()
        except FileNotFoundError:
            return None
        spec = WrittenSpec.of(header)
        return _Call(spec.recipe, json.loads(body), spec.changed)

    def _resolved(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Write recorded arguments as a call with the same arguments would be written now."""
        by_id = {step.job_id: step for step in self.steps.values()}
        encoder = ArgumentEncoder(step_reference)

        def named(node: Any) -> Any:
            """Replace references to jobs by step values, or by the results of ended steps."""
            if isinstance(node, list):
                return [named(each) for each in node]
            if not isinstance(node, dict):
                return node
            step = by_id.get(node[JOB]) if isinstance(node.get(JOB), str) else None
            if step is None:
                return {key: named(each) for key, each in node.items()}
            if step.state == "completed":
                with contextlib.suppress(LookupError, TypeError, OSError, BadFile, InvalidJob):
                    return encoder.encode(_at(self._result(step), node["path"]), ())
            return StepValue(self._ends, step.name, tuple(node["path"]))

        def again(node: Any) -> Any:
            return encoder.encode(decoder.decode(named(node), ()), ())

        decoder = StepArgumentDecoder()
        atoms = document["atoms"]
        return {
            "atoms": None if atoms is None else again(atoms),
            "parameters": {key: again(each) for key, each in document["parameters"].items()},
        }

    # --- results -----------------------------------------------------------------------------

    def value(self, step: KnownStep) -> Any:
        """Return the result of a step that has ended, or raise its error."""
        if step.state == "completed":
            try:
                return self._result(step)
            except (OSError, CrystalMathError) as error:
                file = self._beside(step.job_id).file(f"{step.attempt}.outcome")
                self._ends.stop(
                    f"the result of {step.label} in {file} cannot be read: {error_line(error)}; "
                    "crystalmath retry of the flow computes this step again"
                )
        failure = self._error(step)
        self.failures[id(failure)] = failure, step
        raise failure

    def decoded(self, payload: bytes, step: str) -> Any:
        """Decode the result of a step; the use of an object without a form in JSON ends the pass.

        `step` names the step in messages.
        """
        return codec.decode_result(payload, StepResultDecoder(self._ends, step))

    def formless_places(self, payload: bytes, step: str) -> list[str]:
        """Return which objects in a result would not come back whole in a later pass."""
        decoder = StepResultDecoder(self._ends, step)
        try:
            codec.decode_result(payload, decoder)
        except InvalidJob as error:
            return [str(error)]
        return decoder.formless_places

    def kept(self, name: str) -> KeptStep | None:
        """Return the kept result of a step that ran in a pass of this flow, or of the repeated."""
        if (own := self._directory.kept_step(name)) is not None:
            return KeptStep(*own, is_own=True)
        if self._repeats is None:
            return None
        other = self._beside(self._repeats).kept_step(name)
        return None if other is None else KeptStep(*other, is_own=False)

    def _result(self, step: KnownStep) -> Any:
        return self.decoded(self._beside(step.job_id).payload(step.attempt), step.label)

    def _error(self, step: KnownStep) -> Exception:
        """Return the error of a step, of its own class if the flow's process has that."""
        outcome: Mapping[str, Any] = {}
        with contextlib.suppress(OSError, BadFile):
            outcome = self._beside(step.job_id).outcome(step.attempt) or {}
        own = raised_again(outcome.get("raised"))
        if step.state == "failed" and own is not None:
            return own
        reason = step.error or outcome.get("error") or "no reason is known"
        ended = "was cancelled" if step.state == "cancelled" else f"failed: {reason}"
        return StepFailed(f"{step.label} {ended}")

    def _beside(self, job_id: str) -> RunDirectory:
        return RunDirectory(f"{os.path.dirname(self._directory.path)}/{job_id}")


def error_line(error: BaseException) -> str:
    """Return the class and the message of an error."""
    return f"{type(error).__name__}: {error}"


def canonical(node: Any) -> str:
    """Write a JSON value so that equal values have equal texts."""
    return json.dumps(node, sort_keys=True)


def _without_numpy_types(node: Any) -> Any:
    """Drop numpy's types of numbers from arguments: a part of a result has none either."""
    if isinstance(node, list):
        return [_without_numpy_types(each) for each in node]
    if not isinstance(node, dict):
        return node
    if node.get("@module") == "numpy" and node.get("@class") in NUMPY_TYPES:
        return _without_numpy_types(node["data"])
    return {key: _without_numpy_types(each) for key, each in node.items() if key != NUMPY}


def _arguments(document: Mapping[str, Any], first: str) -> dict[str, str]:
    """Return each argument as text; the structure may be recorded as a reference."""
    arguments = {name: canonical(node) for name, node in document["parameters"].items()}
    if document["atoms"] is not None:
        arguments[first] = canonical(document["atoms"])
    return arguments


def _differing(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))


def _at(value: Any, path: list[str | int]) -> Any:
    for key in path:
        value = value[key]
    return value


# --- errors of steps -------------------------------------------------------------------------


def raised(error: BaseException) -> dict[str, Any] | None:
    """Return what is needed to raise an error again elsewhere; ``None`` if that cannot be done."""
    kind = type(error)
    if not isinstance(error, Exception) or "<" in kind.__qualname__:
        return None
    encoder = ResultEncoder()
    document = encoder.encode(list(error.args), ())
    if encoder.as_text or len(json.dumps(document)) > _MOST_ARGUMENTS:
        return None
    return {"module": kind.__module__, "name": kind.__qualname__, "args": document}


def raised_again(record: Mapping[str, Any] | None) -> Exception | None:
    """Make the error that :func:`raised` has recorded; ``None`` if its class is not imported here.

    Nothing is imported: a body that handles a class of errors has imported it.
    """
    if record is None:
        return None
    with contextlib.suppress(Exception):  # the class may raise anything for its arguments
        kind: Any = sys.modules[record["module"]]
        for part in record["name"].split("."):
            kind = getattr(kind, part)
        if issubclass(kind, Exception):
            args = codec.decode_result_document(record["args"])
            error: Exception = kind(*args)
            return error if list(error.args) == args else None
    return None
