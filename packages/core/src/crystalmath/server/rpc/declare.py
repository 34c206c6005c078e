"""How a handler declares its method: name, parameters and result, beside the code.

The checks of parameters, the dispatcher and the OpenRPC document all follow from this declaration.
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

#: A handler as the dispatcher calls it: with the job service (``None``: that of this process), or
#: with the session where the method is declared `of_session`.
Handler: TypeAlias = Callable[[Any, Mapping[str, Any]], Awaitable[Mapping[str, Any]]]

_Answer = TypeVar("_Answer")
#: A handler as it is written. Its parameters, a `TypedDict`, are checked before the call.
_Function: TypeAlias = Callable[[Any, Any], _Answer | Awaitable[_Answer]]
Pool: TypeAlias = str | Callable[[Mapping[str, Any]], str]


class NoParams(TypedDict):
    """The parameters of a method that takes none."""


class JobIdParams(TypedDict):
    """The parameters of a method that is about one job."""

    job_id: JobId


class JobIdsParams(TypedDict):
    """The parameters of a method that is about some jobs."""

    job_ids: JobIds


@frozen(kw_only=True)
class Method:
    """One method of the server; :func:`method` explains the fields without a comment."""

    name: str
    #: ``await handler(controller, params)``; ``handler(session, params)`` where `of_session`.
    handler: Handler = field(repr=False)
    #: Returns the types of its parameters and of its result, when they are first needed.
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
        """The JSON Schema of its answer: the result, or a refusal."""
        return {"anyOf": [self.result, schema_of(Refusal)]}

    def __call__(
        self, controller: JobService | None, params: Mapping[str, Any]
    ) -> Awaitable[Mapping[str, Any]]:
        """Call the handler."""
        return self.handler(controller, params)


_SUBJECTS = {"JobService": object, "Session": object}
#: All methods by their names; :mod:`crystalmath.server.handlers` imports whatever declares one.
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

    The handler is called with the job service, or with the session, and with the checked
    parameters. The annotations of ``params``, a `TypedDict`, and of the result are the declaration:
    checks and schemas follow from them (:mod:`crystalmath.wire.schemas`). An ``async`` handler runs
    in the event loop, any other in a thread. If it raises `CrystalMathError` or `ImportError`, the
    answer is ``{"status": "error", "error", "code"}``, with the findings of a preflight, the place
    in the request and the job's id. All other keys that the answer always has are empty then.

    Parameters
    ----------
    name : Method
        The name, with the type of the answer.
    pool : str or callable
        The kind of thread for a plain function, or a function that returns it for the parameters.
    of_session : bool
        Call the handler with the session in place of the job service.
    by_server : bool
        Only the home's server can answer: the method changes something, or is about the server. Any
        process that sees the home answers other methods; on another host it refuses this one.
    repeatable : callable
        Returns whether a request with these parameters, still unchecked, has the same effect when
        it is carried out twice, as a submission with a key has. After a lost answer, clients repeat
        only such requests.
    bulk : bool
        An answer may have more than some 100 KiB. So a connection makes one at a time, and few are
        made at once. A handler that waits before it makes the answer awaits
        :func:`crystalmath.server.rpc.large.turn` instead.
    as_sent : bool
        The handler checks the parameters itself.
    """

    def declare(function: _Function[_Answer]) -> Handler:
        def types() -> tuple[Any, Any]:
            # The type of the first argument is imported for type checkers alone.
            hints = get_type_hints(function, localns=_SUBJECTS, include_extras=True)
            return hints["params"], hints["return"]

        answer = _answering(function, pool=pool, of_session=of_session)

        @functools.wraps(function)
        async def handler(controller: Any, params: Mapping[str, Any]) -> Mapping[str, Any]:
            schema, result = _schemas(types)
            try:
                if not (as_sent and isinstance(params, Mapping)):
                    params = await _checked(params, schema)
                return await answer(controller, params)
            except (CrystalMathError, ImportError) as error:
                # Its frames hold the parameters and the error itself: a cycle that stays for long.
                error.__traceback__ = None
                refusal: dict[str, Any] = {"status": "error", **trouble(error)}
                if "job_id" in schema["properties"] and isinstance(params, Mapping):
                    refusal = {"job_id": params.get("job_id"), **refusal}
                if findings := findings_of(error):
                    refusal["findings"] = findings
                if place := getattr(error, "place", None):
                    refusal["place"] = place
                # Written twice: these keys come first, and their values replace the empty ones.
                return {**refusal, **_nothing(result), **refusal}

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


#: The empty value of each JSON type; for other schemas it is null.
_EMPTY = {"array": list, "boolean": bool, "integer": int, "number": int, "string": str}


def _nothing(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys that an answer always has, with empty values, for a refused request."""
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
    """Return that a request must not be repeated after a lost answer, for `repeatable`."""
    return False


def has_key(params: object) -> bool:
    """Return whether an unchecked submission has a key, for `repeatable`."""
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
            # The first choice looks for plugins and loads them; all later ones read memory.
            choose = pool if callable(pool) else lambda _: pool
            kind = choose(params) if chosen else await in_pool("asking", choose, params)
            chosen = True
            return await in_pool(kind, lambda: function(subject(), params))

    return answer


async def _checked(params: object, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Check parameters, in a thread if the message is large."""
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
    """Return the findings of a preflight, if the error has any."""
    return written_findings(getattr(error, "findings", None) or ())
