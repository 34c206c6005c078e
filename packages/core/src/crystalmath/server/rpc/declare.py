"""How a handler declares its method: name, parameters and result, beside the code.

What checks the parameters, dispatches the calls and writes the OpenRPC document reads the same
declaration.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict, TypeVar, get_type_hints

from attrs import field, frozen

from crystalmath.errors import CrystalMathError
from crystalmath.models.checks import checked
from crystalmath.models.job_notes import written_findings
from crystalmath.server.pools import in_pool
from crystalmath.server.rpc import large
from crystalmath.wire.answers import JobId, JobIds, Refusal
from crystalmath.wire.schemas import components, schema_of

if TYPE_CHECKING:
    from crystalmath import server
    from crystalmath.models.job_notes import FindingDocument
    from crystalmath.service import JobService
    from crystalmath.wire.answers import Trouble

#: What a dispatcher calls: with the job service (``None``: this process's own), or with the
#: session for methods that say so.
Handler: TypeAlias = Callable[[Any, Mapping[str, Any]], Awaitable[Mapping[str, Any]]]

_Answer = TypeVar("_Answer")
#: What a handler is written as. Its parameters, a `TypedDict`, are checked before.
_Function: TypeAlias = Callable[[Any, Any], _Answer | Awaitable[_Answer]]
Pool: TypeAlias = str | Callable[[Mapping[str, Any]], str]


class NoParams(TypedDict):
    """The parameters of a method that takes none."""


class JobIdParams(TypedDict):
    """The parameters of a method that is about one job."""

    job_id: JobId


class JobIdsParams(TypedDict):
    """The parameters of a method that is about the jobs which are named."""

    job_ids: JobIds


@frozen(kw_only=True)
class Method:
    """One method of the server; what is not explained here, :func:`method` explains."""

    name: str
    #: ``await handler(controller, params)``; ``handler(session, params)`` where `of_session`.
    handler: Handler = field(repr=False)
    #: The types of its parameters and of its result; they are read when they are first needed.
    types: Callable[[], tuple[Any, Any]] = field(repr=False)
    #: The handler's docstring: its first line, and the whole.
    summary: str
    description: str = field(repr=False)
    of_session: bool = False
    by_server: bool = False
    repeatable: Callable[[Mapping[str, Any]], bool] = field(default=lambda _: True, repr=False)
    bulk: bool = False

    @property
    def params(self) -> dict[str, Any]:
        """The JSON Schema of its parameters, an object."""
        return _schemas(self.types)[0]

    @property
    def result(self) -> dict[str, Any]:
        """The JSON Schema of its result."""
        return _schemas(self.types)[1]

    @property
    def answer(self) -> dict[str, Any]:
        """The JSON Schema of what it answers: its result, or that the request was refused."""
        return {"anyOf": [self.result, schema_of(Refusal)]}

    def __call__(
        self, controller: JobService | None, params: Mapping[str, Any]
    ) -> Awaitable[Mapping[str, Any]]:
        """Call the handler."""
        return self.handler(controller, params)


_SUBJECTS = {"JobService": object, "Session": object}
#: All that were declared; :mod:`crystalmath.server.handlers` has seen to it that this is complete.
METHODS: dict[str, Method] = {}


def method(
    name: server.Method[_Answer],
    *,
    pool: Pool = "asking",
    of_session: bool = False,
    by_server: bool = False,
    repeatable: Callable[[Mapping[str, Any]], bool] = lambda _: True,
    bulk: bool = False,
    as_sent: bool = False,
) -> Callable[[_Function[_Answer]], Handler]:
    """Declare the handler of a method.

    The function gets the job service, or the session where `of_session`, and the checked
    parameters. The types of its ``params``, a `TypedDict`, and of what it returns are the
    declaration: checks and schemas follow from them (:mod:`crystalmath.wire.schemas`). A plain
    function runs in a thread of the kind `pool`, which may depend on the parameters, an ``async``
    one in the event loop. A `CrystalMathError` or `ImportError` that it raises becomes an answer:
    ``{"status": "error", "error", "code"}``, with the findings of a preflight, the job's id, and an
    empty value for all else that an answer always has.

    `by_server`: the home's server alone can answer, as something is changed or the server itself is
    meant; any process that sees the home answers what only looks. `repeatable` returns whether a
    request with such parameters, not checked yet, does no more when it is carried out twice, as a
    submission with a key; others are not sent again after a lost answer. `bulk`: an answer may have
    more than some 100 KiB, so few are made at once, and of one connection one after another; a
    handler that waits before it makes the answer awaits :func:`crystalmath.server.rpc.large.turn`
    instead. `as_sent`: the handler checks its parameters itself.
    """

    def declare(function: _Function[_Answer]) -> Handler:
        def types() -> tuple[Any, Any]:
            # What a handler is called with first is imported for type checkers alone.
            hints = get_type_hints(function, localns=_SUBJECTS, include_extras=True)
            return hints["params"], hints["return"]

        answer = _answering(function, pool=pool, of_session=of_session)

        @functools.wraps(function)
        async def handler(controller: Any, params: Mapping[str, Any]) -> Mapping[str, Any]:
            schema, result = _schemas(types)
            try:
                is_read = as_sent and isinstance(params, Mapping)
                given = params if is_read else await _checked(params, schema)
                return await answer(controller, given)
            except (CrystalMathError, ImportError) as error:
                # Frames hold the parameters, and their error: only the collector would free them.
                error.__traceback__ = None
                told: dict[str, Any] = {"status": "error", **trouble(error)}
                if "job_id" in schema["properties"] and isinstance(params, Mapping):
                    told = {"job_id": params.get("job_id"), **told}
                if found := findings_of(error):
                    told["findings"] = found
                # Once more: what is told comes first, and goes before what is empty.
                return {**told, **_nothing(result), **told}

        if name in METHODS:
            raise ValueError(f"the method {name} is declared twice")
        documented = inspect.getdoc(function) or ""
        METHODS[name] = Method(
            name=name,
            handler=handler,
            types=types,
            summary=documented.partition("\n")[0],
            description=documented,
            of_session=of_session,
            by_server=by_server,
            repeatable=repeatable,
            bulk=bulk,
        )
        return handler

    return declare


@functools.cache
def _schemas(types: Callable[[], tuple[Any, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    params, result = types()
    return schema_of(params, request=True), schema_of(result)


#: Of a value that may be null, that; of others what they are without anything in them.
_EMPTY = {"array": list, "boolean": bool, "integer": int, "number": int, "string": str}


def _nothing(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what stands in the answer to a request that was refused: no value for each name."""
    named = str(result.get("$ref", "")).rpartition("/")[2]
    if named == "Job":
        return {"result": None}
    empty: dict[str, Any] = _empty(components()[named] if named else result)
    return empty


def _empty(schema: Mapping[str, Any]) -> Any:
    kind = schema.get("type")
    if kind == "object":
        of_name = schema.get("properties", {})
        return {name: _empty(of_name[name]) for name in schema.get("required", ())}
    return _EMPTY[kind]() if isinstance(kind, str) and kind in _EMPTY else None


def once(_: object) -> bool:
    """Declare, as `repeatable`, that a method must not be called again for a lost answer."""
    return False


def has_key(params: object) -> bool:
    """Return whether a submission, which is not checked yet, has a key, for `repeatable`."""
    return isinstance(params, Mapping) and params.get("key") is not None


def _answering(
    function: _Function[Any], *, pool: Pool, of_session: bool
) -> Callable[[Any, Mapping[str, Any]], Awaitable[Mapping[str, Any]]]:
    if inspect.iscoroutinefunction(function):

        async def answer(controller: Any, params: Mapping[str, Any]) -> Any:
            return await function(controller if of_session else _service(controller), params)

    else:
        chosen = isinstance(pool, str)

        async def answer(controller: Any, params: Mapping[str, Any]) -> Any:
            nonlocal chosen
            subject = (lambda: controller) if of_session else (lambda: _service(controller))
            # The first time plugins are looked for, and loaded; then all is in memory.
            choose = pool if callable(pool) else lambda _: pool
            kind = choose(params) if chosen else await in_pool("asking", choose, params)
            chosen = True
            return await in_pool(kind, lambda: function(subject(), params))

    return answer


async def _checked(params: object, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Check parameters, in a thread if they are many."""
    request = large.present.get()
    if request is not None and request.is_large:
        return await in_pool("asking", checked, params, schema)
    return checked(params, schema)


def _service(controller: JobService | None) -> JobService:
    if controller is not None:
        return controller
    from crystalmath.service import default_service

    return default_service()


def trouble(error: CrystalMathError | ImportError) -> Trouble:
    """Describe an error: ``error`` and ``code``."""
    return {"error": str(error), "code": getattr(error, "code", "import")}


def findings_of(error: CrystalMathError | ImportError) -> list[FindingDocument]:
    """Return what a preflight found, where that is the error; else nothing."""
    return written_findings(getattr(error, "findings", None) or ())
