"""One pass of a flow: its body runs, and the jobs that it calls become steps of the flow.

quacc sends each call of a job, flow or subflow through one function, which is replaced meanwhile.
The call of a step that has ended returns that step's result, or raises its error. The call of any
other step returns a `StepValue`, which the body can hand on to further calls. What needs the value
itself ends the pass, and the next pass runs the body again once that step has ended. The steps
themselves are jobs on record, which the flow's owner submits.

A step is known by its name: the flows and subflows around the call, the function, and how many
times that function was called there before. A step that was launched binds: each later pass must
call it with the same arguments.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import random
import sys
import threading
from typing import TYPE_CHECKING, Any, NoReturn

from crystalmath import flow as flow_module
from crystalmath.errors import BadFile, CrystalMathError, InvalidJob, shown
from crystalmath.flow import StepFailed
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.models.reference import JOB, STEP
from crystalmath.models.submission import merged, step_matches
from crystalmath.recipes import codec
from crystalmath.recipes.decoding import NotListedError, ResultDecoder
from crystalmath.recipes.encoding import NUMPY, NUMPY_TYPES, ArgumentEncoder, ResultEncoder
from crystalmath.recipes.json_text import place_name
from crystalmath.recipes.lookup import NAMESPACE
from crystalmath.recipes.quacc_settings import changed_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

#: The arguments of a call that name a directory whose copy the job works in (`own_outdirs`), with
#: what the steps before it have left there.
_WRITTEN = ("prev_outdir", "outdir")
#: An error's arguments are stored up to so many characters.
_MOST_ARGUMENTS = 10_000
_ENDED = frozenset(("completed", "failed", "cancelled"))


class StepsNeededError(BaseException):
    """The body cannot go on before some steps have ended."""


class ReplayDiffersError(BaseException):
    """The body has called something else than an earlier pass."""


class FlowPass:
    """One pass of a flow.

    Parameters
    ----------
    directory : RunDirectory
        That of the flow; its steps' lie beside it.
    flow : mapping
        What the flow's specification says of its steps (``steps``, ``most``, ``serial``).
    by_step : iterable of str
        The names and patterns of steps for which something is other.
    """

    def __init__(
        self, directory: RunDirectory, flow: Mapping[str, Any], by_step: Iterable[str] = ()
    ) -> None:
        self._by_step = by_step
        self._directory = directory
        self._known: dict[str, Mapping[str, Any]] = {each["name"]: each for each in flow["steps"]}
        self._most = int(flow["most"])
        self._is_serial = bool(flow["serial"])
        self._repeats: str | None = flow.get("repeats")
        self._thread = threading.get_ident()
        self._scope: list[str] = []
        self._counts: dict[str, int] = {}
        self._in_step = False
        self._end: BaseException | None = None
        self._needs: list[str] = []
        # The errors of steps that were raised in the body, to be told from its own.
        self._raised: dict[int, tuple[Exception, Mapping[str, Any]]] = {}
        self._calls: list[dict[str, Any]] = []
        self._called: dict[str, bool] = {}
        self._written: dict[str, str] = {}
        self._before: dict[str, str] = {}
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
            except BaseException as raised:  # noqa: BLE001 - also of sys.exit() it is told below
                error = raised
        if isinstance(self._end, ReplayDiffersError):
            raise InvalidJob(str(self._end)) from None
        needed = self._needs or [name for name, ended in self._called.items() if not ended]
        if needed:
            # What it has returned, or raised, was a guess while steps were open.
            return Awaited(self._calls, needed)
        if any(self._is_untold(name) for name in self._called):
            return Awaited(self._calls, [])  # its owner records what it has taken over
        if error is not None:
            self._raise(error)
        uncalled = [each for name, each in self._known.items() if name not in self._called]
        # Where steps have failed, those were launched as if they would not.
        if gone := [each for each in uncalled if not self._raised and self._binds(each)]:
            raise InvalidJob(
                f"the flow has called {_named(gone[0])} in an earlier pass, and does not any more"
                f"{f' (nor {len(gone) - 1} others)' if len(gone) > 1 else ''}; {_REMEDY}"
            )
        if living := [each["name"] for each in uncalled if each["state"] not in _ENDED]:
            return Awaited(self._calls, living)  # none of a flow's steps outlives it
        return _as_stored(result)

    def counts(self) -> dict[str, Any]:
        """Count the called steps for the summary: jobs of this flow by their state, and others."""
        jobs: dict[str, int] = {}
        found: dict[str, Any] = {"flow_steps": jobs}
        for name in self._called:
            entry = self._known.get(name)
            if entry is None or entry.get("taken_over"):
                other = "steps_in_pass" if entry is None else "steps_taken_over"
                found[other] = found.get(other, 0) + 1
            else:
                jobs[entry["state"]] = jobs.get(entry["state"], 0) + 1
        called = [(call["recipe"], call["name"]) for call in self._calls]
        unused = [one for one in self._by_step if not any(step_matches(one, *c) for c in called)]
        return {**found, "by_step_unused": unused} if unused else found

    def _is_untold(self, name: str) -> bool:
        entry = self._known.get(name, {})
        return bool(entry.get("taken_over")) and not entry.get("counted")

    def _binds(self, entry: Mapping[str, Any]) -> bool:
        """Return whether a step was launched by an earlier pass of this flow."""
        if entry["state"] == "waiting" or entry.get("taken_over"):
            return False
        # One that needed another that has failed was not.
        return entry["state"] == "completed" or self._beside(entry["job_id"]).has("spec")

    def _raise(self, error: BaseException) -> NoReturn:
        for raised, entry in self._raised.values():
            if raised is error and not isinstance(error, StepFailed):
                raise StepFailed(f"{_named(entry)} failed: {_words(error)}") from error
        raise error

    @contextlib.contextmanager
    def _calls_replaced(self) -> Iterator[None]:
        self._before = changed_settings()
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
        """Take the call of a job, flow or subflow, in the place of quacc's own function."""
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
        """Raise again what has ended the pass, if the body has swallowed it."""
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
        """End the pass for good."""
        if not isinstance(self._end, ReplayDiffersError):
            self._end = ReplayDiffersError(reason)
        raise self._end

    def _name(self, function: Callable[..., Any]) -> str:
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
        name = self._name(function)
        if len(self._called) >= self._most:
            self.stop(
                f"the flow calls more than {self._most} steps, and a flow may have no more; make "
                "several flows of it, or submit it with --in-one-job"
            )
        submitted = self._submitted(function, args, keywords)
        if submitted is None:
            if (entry := self._known.get(name)) is not None:
                told = "it was a job, and its arguments have no form in JSON now"
                if self._differs(entry, told):
                    name += _OTHERWISE
            return self._run_here(name, function, args, keywords)
        document, settings, recipe = submitted
        name, entry = self._compared(name, recipe, document, _first(function))
        after = self._order(name, document)
        call = {"name": name, "recipe": recipe, "step": recipe.rpartition(".")[2]}
        if entry is not None:
            self._calls.append({**call, "known": entry["job_id"], "after": after})
            self._called[name] = entry["state"] in _ENDED
            if self._called[name]:
                return self._value(entry)
        else:
            replaced = self._known.pop(name, None)
            self._called[name] = False
            self._calls.append(
                {
                    **call,
                    "known": None,
                    "replaces": replaced and replaced["job_id"],
                    "document": document,
                    "after": after,
                    "settings": settings,
                }
            )
        if self._is_serial:
            self.need([name])
        return StepValue(self, name)

    # --- whether a call can be a job of its own ----------------------------------------------

    def _submitted(
        self, function: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, str] | None, str] | None:
        """Return document, settings and recipe of a call; ``None`` if it has to run here."""
        found = importable(function)
        if found is None:
            return None
        recipe, changes = found
        from quacc import change_settings

        with change_settings(changes):
            now = changed_settings()
        settings = {key: text for key, text in now.items() if self._before.get(key) != text}
        given = _by_name(function, args, keywords)
        if given is None:
            return None
        encoder = ArgumentEncoder(self._reference)
        nodes = {key: encoder.encode(value, (key,)) for key, value in given.items()}
        if encoder.as_text:
            return None
        first = _first(function)
        atoms = None
        if first in given and self._is_structure(first, given[first]):
            atoms = nodes.pop(first)
        return {"atoms": atoms, "parameters": nodes}, settings or None, recipe

    def _is_structure(self, name: str, value: Any) -> bool:
        if type(value) is StepValue:
            return name == "atoms"
        from ase import Atoms

        return isinstance(value, Atoms)

    def _reference(self, value: Any) -> dict[str, Any] | None:
        if type(value) is FormlessValue:
            _need(value)
        if type(value) is not StepValue:
            return None
        return {STEP: _name_of(value), "path": list(_path_of(value))}

    def _order(self, name: str, document: Mapping[str, Any]) -> list[str]:
        """Return the earlier steps that work in a directory in which this one works, too."""
        parameters = document["parameters"]
        places = {
            _canonical(parameters[key]) for key in _WRITTEN if parameters.get(key) is not None
        }
        before = {self._written[place] for place in places if place in self._written}
        self._written |= dict.fromkeys(places, name)
        return sorted(each for each in before if self._may_have_written(each))

    def _may_have_written(self, name: str) -> bool:
        """Return whether a step has completed, or may do so; nobody waits for a failed one."""
        return not self._called[name] or self._known[name]["state"] == "completed"

    # --- known steps -------------------------------------------------------------------------

    def _compared(
        self, name: str, recipe: str, document: Mapping[str, Any], first: str
    ) -> tuple[str, Mapping[str, Any] | None]:
        """Return a known step that is called as it was; ``None`` if it is new, or replaced.

        With it comes its name: a new one where the one of that name was launched as if no step
        would fail, and is called otherwise as one has.
        """
        entry = self._known.get(name)
        if entry is None:
            return name, None
        was = self._recorded(entry)
        if was is None:
            # It is about to be launched, or ended without that, as what it needed has failed.
            return name, None if entry["state"] == "failed" else entry
        # What is other by step was so when it was recorded.
        now = {**document, "parameters": merged(document["parameters"], was[2])}
        if (how := self._difference(was, recipe, now, first)) is None:
            return name, entry
        if self._differs(entry, how):
            return self._compared(name + _OTHERWISE, recipe, document, first)
        return name, None

    def _difference(
        self,
        was: tuple[str | None, dict[str, Any], dict[str, Any]],
        recipe: str,
        document: Mapping[str, Any],
        first: str,
    ) -> str | None:
        """Say in what a step is called otherwise than it was."""
        told, body, _ = was
        if told is not None and told != recipe:
            return f"it was {told}, and is {recipe} now"
        now = _arguments(document, first)
        then = _arguments(body, first)
        if _differing(then, now):
            # The same values may be written otherwise.
            both = self._resolved(body), document
            then, now = (_arguments(_by_value(each), first) for each in both)
        for key in _differing(then, now):
            one, other = then.get(key, "not given"), now.get(key, "not given")
            return f"its argument {key!r} was {shown(one)}, and is {shown(other)} now"
        return None

    def _differs(self, entry: Mapping[str, Any], how: str) -> bool:
        """Return whether a step that is called otherwise needs another name, or end the pass."""
        if not self._binds(entry):
            return False
        # Each failure is known to one pass at first, and may change the calls that follow it once.
        if entry["name"].count(_OTHERWISE) >= len(self._raised):
            self.stop(f"the flow calls {_named(entry)} otherwise than before: {how}; {_REMEDY}")
        return True

    def _recorded(
        self, entry: Mapping[str, Any]
    ) -> tuple[str | None, dict[str, Any], dict[str, Any]] | None:
        """Return recipe, arguments, and which of these are other than the flow called it with."""
        document = entry.get("document")
        if document is not None:
            document = json.loads(document) if isinstance(document, str) else document
            return None, document, entry.get("changed", {})
        try:
            header, text = self._beside(entry.get("asked", entry["job_id"])).read_spec()
        except FileNotFoundError:
            return None
        return header["recipe"], json.loads(text), header.get("changed", {})

    def _beside(self, job_id: str) -> RunDirectory:
        return RunDirectory(f"{os.path.dirname(self._directory.path)}/{job_id}")

    def _resolved(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Write the arguments of a recorded step as a call of it would be written now."""
        by_id = {each["job_id"]: each for each in self._known.values()}
        encoder = ArgumentEncoder(self._reference)

        def named(node: Any) -> Any:
            """Put steps in the place of jobs, and values in that of steps that have ended."""
            if isinstance(node, list):
                return [named(each) for each in node]
            if not isinstance(node, dict):
                return node
            entry = by_id.get(node[JOB]) if isinstance(node.get(JOB), str) else None
            if entry is None:
                return {key: named(each) for key, each in node.items()}
            if entry["state"] == "completed":
                with contextlib.suppress(LookupError, TypeError, OSError, BadFile, InvalidJob):
                    return encoder.encode(_at(self._result(entry), node["path"]), ())
            return StepValue(self, entry["name"], tuple(node["path"]))

        def again(node: Any) -> Any:
            return encoder.encode(decoder.decode(node, ()), ())

        decoder = _StepDecoder()
        atoms = body["atoms"]
        return {
            "atoms": None if atoms is None else again(named(atoms)),
            "parameters": {key: again(named(each)) for key, each in body["parameters"].items()},
        }

    def _value(self, entry: Mapping[str, Any]) -> Any:
        """Return the result of a step that has ended, or raise its error."""
        if entry["state"] == "completed":
            try:
                return self._result(entry)
            except (OSError, CrystalMathError) as error:
                file = self._beside(entry["job_id"]).file(f"{entry['attempt']}.outcome")
                self.stop(
                    f"the result of {_named(entry)} in {file} cannot be read: {_words(error)}; "
                    "crystalmath retry of the flow computes this step again"
                )
        failure = self._error(entry)
        self._raised[id(failure)] = failure, entry
        raise failure

    def _result(self, entry: Mapping[str, Any]) -> Any:
        payload = self._beside(entry["job_id"]).payload(entry["attempt"])
        return self._decoded(payload, _named(entry))

    def _decoded(self, payload: bytes, step: str) -> Any:
        """Read the result of a step; the use of what has no form in JSON ends the pass."""
        return codec.decode_result(payload, _StepResultDecoder(self, step))

    def _error(self, entry: Mapping[str, Any]) -> Exception:
        header = None
        with contextlib.suppress(OSError, BadFile):
            header = self._beside(entry["job_id"]).outcome(entry["attempt"])
        told = entry.get("error") or (header or {}).get("error") or "no reason is known"
        again = raised_again((header or {}).get("raised"))
        if entry["state"] == "failed" and again is not None:
            return again
        ended = "was cancelled" if entry["state"] == "cancelled" else f"failed: {told}"
        return StepFailed(f"{_named(entry)} {ended}")

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
        asked = self._asked(args, keywords)
        if (kept := self._kept(name)) is not None:
            header, payload, ours = kept
            if asked is None or header["arguments"] is None or header["arguments"] == asked:
                if not ours:
                    self._directory.keep_step(name, header, payload)
                return self._decoded(payload, f"step {name}")
            if ours and not self._raised:
                self.stop(
                    f"the flow calls the step {name} with other arguments than before; {_REMEDY}"
                )
        self._in_step = True
        try:
            result = self._original(function, self._kinds.JOB, args, keywords)
        finally:
            self._in_step = False
        as_text: list[str] = []
        payload = codec.encode_result(result, as_text)
        as_text += self._formless(payload, name)
        if not as_text:
            self._directory.keep_step(name, {"name": name, "arguments": asked}, payload)
        elif required:
            self.stop(
                f"the result of the step {name} cannot be kept: {as_text[0]} has no form in JSON"
            )
        return result

    def _formless(self, payload: bytes, name: str) -> list[str]:
        """Return which objects in a result no later pass would get as they are."""
        decoder = _StepResultDecoder(self, f"step {name}")
        try:
            codec.decode_result(payload, decoder)
        except InvalidJob as error:
            return [str(error)]
        return decoder.formless_places

    def _kept(self, name: str) -> tuple[dict[str, Any], bytes, bool] | None:
        if (own := self._directory.kept_step(name)) is not None:
            return *own, True
        if self._repeats is None:
            return None
        other = self._beside(self._repeats).kept_step(name)
        return None if other is None else (*other, False)

    def _asked(self, args: tuple[Any, ...], keywords: dict[str, Any]) -> str | None:
        """Return a digest of the arguments; ``None`` where they cannot be compared."""
        import hashlib

        encoder = ArgumentEncoder(self._reference)
        nodes = encoder.encode([list(args), keywords], ())
        if encoder.as_text:
            return None
        return hashlib.sha256(_canonical(nodes).encode()).hexdigest()

    def _need_values(self, *values: Any) -> None:
        """End the pass if there are references in arguments whose values are needed."""
        names = dict.fromkeys(_steps_in(values))
        if names:
            self.need(list(names))


class Awaited:
    """What a pass has found that cannot go on yet.

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
        """Write it as the payload of an outcome."""
        reason = f"waits for {self.needs[0]}" if self.needs else "has taken over steps"
        if len(self.needs) > 1:
            reason = f"{reason} and {len(self.needs) - 1} more steps"
        return {"calls": self.calls, "needs": self.needs, "reason": reason}


class StepValue:
    """A part of the result of a step that has not ended.

    It can be indexed by texts and whole numbers, copied, and put into containers. All else needs
    the value, and so ends the pass.
    """

    __slots__ = ("_flow", "_name", "_path")
    # `isinstance` asks for it.
    __class__ = property(lambda self: _need(self))  # noqa: PLW0108 - it is defined below

    def __init__(self, flow: FlowPass, name: str, path: tuple[str | int, ...] = ()) -> None:
        for slot, value in (("_flow", flow), ("_name", name), ("_path", path)):
            object.__setattr__(self, slot, value)

    def __getitem__(self, key: Any) -> Any:
        if type(key) not in {str, int}:
            _need(self)
        return StepValue(self._flow, self._name, (*self._path, key))

    def __copy__(self) -> StepValue:
        return self

    def __deepcopy__(self, memo: Any) -> StepValue:
        return self

    def __getattr__(self, name: str) -> NoReturn:
        _need(self)


class FormlessValue(StepValue):
    """Stands in the result of a step for an object that has no form in JSON.

    It can be copied, put into containers and returned by the flow. All else needs the object, and
    ends the flow: another value in its place would be a wrong one.
    """

    __slots__ = ("_node",)

    def __init__(self, flow: FlowPass, what: str, node: Mapping[str, Any]) -> None:
        super().__init__(flow, what)
        object.__setattr__(self, "_node", node)

    def __getitem__(self, key: Any) -> NoReturn:
        _need(self)


def _need(value: StepValue, *_: Any, **__: Any) -> NoReturn:
    flow: FlowPass = object.__getattribute__(value, "_flow")
    if type(value) is FormlessValue:
        flow.stop(
            f"{_name_of(value)}, which has no form in JSON: the flow needs the object, and its "
            "text alone is kept; have the step return numbers, texts, arrays, structures or dicts "
            "of such, or submit the flow with --in-one-job"
        )
    flow.need([_name_of(value)])


def _as_stored(value: Any) -> Any:
    """Return the result of a flow with what is stored of objects without a form in JSON."""
    kind = type(value)
    if kind is FormlessValue:
        return object.__getattribute__(value, "_node")
    if kind is dict:
        return {key: _as_stored(each) for key, each in value.items()}
    return kind(map(_as_stored, value)) if kind in {list, tuple} else value


def _name_of(value: StepValue) -> str:
    return str(object.__getattribute__(value, "_name"))


def _path_of(value: StepValue) -> tuple[str | int, ...]:
    path: tuple[str | int, ...] = object.__getattribute__(value, "_path")
    return path


#: What Python looks up on the type, and not by `__getattr__`.
_OF_VALUES = [
    *("setattr", "delattr", "setitem", "delitem", "iter", "len", "bool", "contains", "call"),
    *("eq", "ne", "lt", "le", "gt", "ge", "hash", "str", "repr", "format", "bytes", "int"),
    *("float", "complex", "index", "round", "trunc", "floor", "ceil", "neg", "pos", "abs"),
    *("invert", "enter", "exit", "reversed", "fspath", "reduce", "reduce_ex", "dir", "sizeof"),
    *("await", "aiter", "anext", "aenter", "aexit", "next", "length_hint"),
    *("array", "array_ufunc", "array_function"),
    *(
        f"{kind}{name}"
        for kind in ("", "r", "i")
        for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul")
    ),
    *(f"{kind}{name}" for kind in ("", "r", "i") for name in ("and", "or", "xor")),
    *(f"{kind}{name}" for kind in ("", "r", "i") for name in ("lshift", "rshift")),
    *("divmod", "rdivmod"),
]
for _method in _OF_VALUES:
    setattr(StepValue, f"__{_method}__", _need)


class _StepDecoder(ResultDecoder):
    """Reads recorded arguments in which references to steps may stand."""

    def decode(self, value: Any, place: tuple[Any, ...]) -> Any:
        return value if type(value) is StepValue else super().decode(value, place)


class _StepResultDecoder(ResultDecoder):
    """Reads the result of a step, in which `FormlessValue` stands for what cannot be read."""

    def __init__(self, flow: FlowPass, step: str) -> None:
        self._flow, self._step = flow, step
        #: The places of such values, each with the object's class.
        self.formless_places: list[str] = []

    def formless(self, node: dict[Any, Any], place: tuple[Any, ...]) -> Any:
        kind = node.get("type") or f"{node.get('@module')}.{node.get('@class')}"
        self.formless_places.append(f"{place_name(place)} ({kind})")
        what = f"{self._step} has returned {kind} as {place_name(place)}"
        return FormlessValue(self._flow, what, node)

    def text_in_object(self, node: dict[Any, Any]) -> NoReturn:
        raise NotListedError(node.get("type"))  # all of the object has no form then


#: Marks the name of a step that is called otherwise since another has failed.
_OTHERWISE = "~"
_REMEDY = (
    "a flow must make the same calls whenever its steps have the same results: keep what is "
    "random, or depends on the time or on files, by crystalmath.flow.step. crystalmath retry makes "
    "a new flow that takes over each completed step whose arguments agree; with --serial it calls "
    "each step only once the one before has ended"
)


def _named(entry: Mapping[str, Any]) -> str:
    return f"step {entry['name']} (job {entry['job_id']})"


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _canonical(node: Any) -> str:
    return json.dumps(node, sort_keys=True)


def _by_value(node: Any) -> Any:
    """Write arguments without telling which numbers are numpy's: a part of a result does not."""
    if isinstance(node, list):
        return [_by_value(each) for each in node]
    if not isinstance(node, dict):
        return node
    if node.get("@module") == "numpy" and node.get("@class") in NUMPY_TYPES:
        return _by_value(node["data"])
    return {key: _by_value(each) for key, each in node.items() if key != NUMPY}


def _arguments(document: Mapping[str, Any], first: str) -> dict[str, str]:
    """Return each argument as text: what is a structure now may have been a reference before."""
    found = {name: _canonical(node) for name, node in document["parameters"].items()}
    if document["atoms"] is not None:
        found[first] = _canonical(document["atoms"])
    return found


def _differing(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))


def _at(value: Any, path: list[str | int]) -> Any:
    for key in path:
        value = value[key]
    return value


def _steps_in(value: Any) -> Iterator[str]:
    """Find the references in the containers of a call's arguments."""
    kind = type(value)
    if kind is StepValue:
        yield _name_of(value)
    elif kind in {list, tuple}:
        for item in value:
            yield from _steps_in(item)
    elif kind is dict:
        for item in value.values():
            yield from _steps_in(item)


def importable(function: Callable[..., Any]) -> tuple[str, dict[str, Any]] | None:
    """Return the name by which a worker finds a function, and the settings it is wrapped with."""
    changes: dict[str, Any] = {}
    while True:
        name = getattr(function, "__qualname__", "<")
        module = getattr(function, "__module__", None) or "__main__"
        found = vars(sys.modules[module]).get(name) if module in sys.modules else None
        is_it = function is found or function is getattr(found, "__wrapped__", None)
        is_public = module != "__main__" and "." not in name
        if f"{module}.".startswith(f"{NAMESPACE}."):
            is_public = is_public and not name.startswith("_")  # those are no recipes
        if is_it and found is not None and is_public:
            return f"{module}.{name}", changes
        if not getattr(function, "_changed", False):
            return None
        # quacc's `settings_swap`: the same function, with settings.
        changes = {**inspect.getclosurevars(function).nonlocals["changes"], **changes}
        function = function._original_func  # type: ignore[attr-defined]  # noqa: SLF001


def _by_name(
    function: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any]
) -> dict[str, Any] | None:
    """Return the arguments of a call by their names; ``None`` if some can have no name."""
    try:
        signature = inspect.signature(function)
        given = dict(signature.bind(*args, **keywords).arguments)
    except (TypeError, ValueError):
        return None  # the call itself will say so
    for name, parameter in signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            given |= given.pop(name, {})
        elif name in given and parameter.kind in _NAMELESS:
            return None
    return given


_NAMELESS = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY)


def _first(function: Callable[..., Any]) -> str:
    """Return the parameter for which a worker passes the structure; an empty name if none."""
    parameter = next(iter(inspect.signature(function).parameters.values()), None)
    is_it = parameter is not None and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    return parameter.name if parameter is not None and is_it else ""


# --- errors of steps -------------------------------------------------------------------------


def raised(error: BaseException) -> dict[str, Any] | None:
    """Write what is needed to raise an error again elsewhere; ``None`` if that cannot be."""
    kind = type(error)
    if not isinstance(error, Exception) or "<" in kind.__qualname__:
        return None
    encoder = ResultEncoder()
    document = encoder.encode(list(error.args), ())
    if encoder.as_text or len(json.dumps(document)) > _MOST_ARGUMENTS:
        return None
    return {"module": kind.__module__, "name": kind.__qualname__, "args": document}


def raised_again(told: Mapping[str, Any] | None) -> Exception | None:
    """Make the error that :func:`raised` has written.

    Nothing is imported: a body that handles a class of errors has imported it.
    """
    if told is None:
        return None
    try:
        found: Any = sys.modules[told["module"]]
        for part in told["name"].split("."):
            found = getattr(found, part)
        if not issubclass(found, Exception):
            return None
        args = codec.decode_result_document(told["args"])
        error: Exception = found(*args)
    except Exception:  # noqa: BLE001 - whatever the class says of its arguments
        return None
    return error if list(error.args) == args else None
