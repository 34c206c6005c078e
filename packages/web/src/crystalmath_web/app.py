"""The requests of a page: who may make them, and their answers."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
from attrs import field, frozen
from starlette.applications import Starlette
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from crystalmath import build_version, config
from crystalmath.errors import CrystalMathError, InvalidJob
from crystalmath.models.fields import to_wire
from crystalmath_web.guard import Guard, RefusalError, in_json, read_json
from crystalmath_web.views import Views

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from starlette.requests import Request

    from crystalmath.client import Client, JobChange

_Answer = TypeVar("_Answer")
PAGE = Path(__file__).parent / "page"
#: The page's modules, loaded at once, because each names others. The large ones that draw
#: structures are left out.
_MODULES = ", ".join(
    f"</page/{path.relative_to(PAGE)}>; rel=modulepreload"
    for path in sorted(PAGE.rglob("*.js"))
    if path.name not in {"3Dmol.js", "warm.js"}
)
#: The page's own server answers these: they need numpy, which the home's server never imports.
EQUATIONS = "page.equations_of_state"
PHASES = "page.phases"
SYMMETRY = "page.space_group"
#: The page's own server keeps the named views of the table.
VIEWS, KEEP_VIEW = "page.views", "page.keep_view"
#: Methods that a page may call and that change nothing.
READING = frozenset(
    {
        *("jobs.list", "jobs.status", "jobs.status_many", "jobs.show", "jobs.counts"),
        *("jobs.summary", "jobs.facets", "jobs.files", "jobs.file", "jobs.logs", "jobs.inputs"),
        *("jobs.parameters", "jobs.progress", "jobs.script", "jobs.specification"),
        *("jobs.result", "jobs.table", "jobs.trajectory", "structures.read", "recipes.list"),
        *("recipes.describe", "presets.list", "engines.list", "clusters.list"),
        *("system.status", "system.version", "system.doctor"),
        *(EQUATIONS, PHASES, SYMMETRY, VIEWS),
    }
)
#: Methods that change something, or run a recipe to check it: refused with ``--read-only``.
ACTING = frozenset(
    {
        *("jobs.check", "jobs.submit", "jobs.submit_many", "jobs.cancel", "jobs.cancel_many"),
        *("jobs.retry", "jobs.prune", KEEP_VIEW),
    }
)
#: Methods whose jobs see the environment of ``crystalmath ui``, whatever a page sends.
_WITH_ENVIRONMENT = frozenset({"jobs.check", "jobs.submit", "jobs.submit_many", "presets.list"})
KEY = "x-crystalmath-key"
#: The most bytes of a request for a session.
LARGEST_TOKEN = 4096
#: The most pages that follow changes at a time, each in a thread.
FOLLOWERS = 32
#: The time without a change after which a comment is sent, to notice a lost page, in seconds.
QUIET_S = 10.0
_NEWEST = 2**53 - 1
#: The number of an event.
_EVENT = re.compile(r"[0-9]{1,16}")


@frozen
class Secrets:
    """The secrets of one start, of 256 bits each, with which a page gets in."""

    #: Stands in the fragment of the page's address, which no browser sends.
    token: str = field(factory=secrets.token_urlsafe)
    #: A page exchanges the token for these. Browsers send cookies to all ports of a host, so that
    #: a cookie alone is not enough.
    cookie: str = field(factory=secrets.token_urlsafe)
    key: str = field(factory=secrets.token_urlsafe)


class _App:
    def __init__(self, client: Client, known: Secrets, *, read_only: bool) -> None:
        self._client = client
        self._secrets = known
        self._read_only = read_only
        self._views = Views(config.home() / "page-views.json")
        self._allowed = READING if read_only else READING | ACTING
        self._followers = anyio.CapacityLimiter(FOLLOWERS)
        self._waiting: set[anyio.CancelScope] = set()
        self._ended = False

    def end(self) -> None:
        """End waiting requests and streams of changes, which have no end of their own."""
        self._ended = True
        for scope in list(self._waiting):
            scope.cancel()

    async def page(self, _: Request) -> Response:
        return FileResponse(PAGE / "index.html", headers={"link": _MODULES})

    async def session(self, request: Request) -> Response:
        """Exchange the token for a cookie and a key."""
        # The size is limited: anybody on this machine may send such a request.
        body = await read_json(request, LARGEST_TOKEN)
        if not _same(body.get("token"), self._secrets.token):
            raise RefusalError(401, "the token is not that of this start: open the address anew")
        session = {
            "key": self._secrets.key,
            "read_only": self._read_only,
            "version": build_version(),
        }
        response = in_json(session)
        response.set_cookie(
            _cookie(request), self._secrets.cookie, httponly=True, samesite="strict"
        )
        return response

    async def call(self, request: Request) -> Response:
        """Call an allowed method of the home's server."""
        self._require_session(request)
        body = await read_json(request)
        method, params = str(body.get("method")), body.get("params", {})
        if method not in self._allowed:
            why = "this page is read-only" if method in ACTING else "a page cannot call that"
            raise RefusalError(403, f"{method[:80]}: {why}")
        if not isinstance(params, dict):
            raise RefusalError(400, "the parameters of a method are an object")
        try:
            if method in _WITH_ENVIRONMENT and config.remote_name() is None:
                params = _with_environment(method, params, await self._in_thread(_environment))
            if own := _OWN.get(method):
                return in_json(await self._in_thread(own, self._client, params))
            if method == VIEWS:
                return in_json({"views": await self._in_thread(self._views.all)})
            if method == KEEP_VIEW:
                return in_json({"views": await self._in_thread(self._views.keep, params)})
            answer = await self._in_thread(self._client.call_json, method, params)
        except CrystalMathError as error:
            return in_json({"error": str(error), "code": error.code}, 502)
        return Response(answer, media_type="application/json")

    async def events(self, request: Request) -> Response:
        """Stream changes of jobs after the last event that the page has seen."""
        self._require_session(request)
        await read_json(request)
        seen = request.headers.get("last-event-id", "")
        if seen and not _EVENT.fullmatch(seen):
            raise RefusalError(400, f"Last-Event-ID is no number of an event: {seen[:40]!r}")
        try:
            last = int(seen) if seen else await self._in_thread(self._newest)
        except CrystalMathError as error:
            return in_json({"error": str(error), "code": error.code}, 502)
        if self._followers.available_tokens < 1:
            raise RefusalError(429, f"{FOLLOWERS} pages are open already: close one")
        return StreamingResponse(self._stream(last), media_type="text/event-stream")

    def _newest(self) -> int:
        return int(self._client.call("jobs.events", {"after": _NEWEST, "limit": 1})["last"])

    async def _stream(self, last: int) -> AsyncIterator[str]:
        yield f"id: {last}\nevent: from\ndata: {last}\n\n"
        with contextlib.suppress(RefusalError):
            while True:
                # A thread waits at most `QUIET_S`, also if the page has gone.
                changes = self._client.changes(after=last, timeout=QUIET_S)
                while change := await self._in_thread(next, changes, None, limiter=self._followers):
                    last = change.seq
                    yield f"id: {last}\ndata: {_written(change)}\n\n"
                yield ": nothing new\n\n"

    async def _in_thread(
        self,
        work: Callable[..., _Answer],
        *arguments: Any,
        limiter: anyio.CapacityLimiter | None = None,
    ) -> _Answer:
        """Run work in a thread, and stop waiting when the server is stopped: some takes minutes."""
        with anyio.CancelScope() as scope:
            self._waiting.add(scope)
            try:
                if not self._ended:
                    return await anyio.to_thread.run_sync(
                        work, *arguments, limiter=limiter, abandon_on_cancel=True
                    )
            finally:
                self._waiting.discard(scope)
        raise RefusalError(503, "the page's server is being stopped")

    def _require_session(self, request: Request) -> None:
        cookie, key = request.cookies.get(_cookie(request)), request.headers.get(KEY)
        if not (_same(cookie, self._secrets.cookie) and _same(key, self._secrets.key)):
            raise RefusalError(
                401, "no session: open the address that `crystalmath ui` has printed"
            )


def create_app(
    client: Client, known: Secrets, *, read_only: bool = False
) -> tuple[Guard, Callable[[], None]]:
    """Return the application that serves a page, and a function that ends its streams.

    Parameters
    ----------
    client : Client
        The client that answers the page's calls.
    known : Secrets
        The secrets with which a page gets in.
    read_only : bool
        Whether to refuse methods that change something.

    Raises
    ------
    CrystalMathError
        The source tree lacks the libraries of the page, which a build brings.
    """
    require_libraries()
    app = _App(client, known, read_only=read_only)
    routes = [
        Route("/", app.page, methods=["GET"]),
        Route("/session", app.session, methods=["POST"]),
        Route("/call", app.call, methods=["POST"]),
        Route("/events", app.events, methods=["POST"]),
        Mount("/page", StaticFiles(directory=PAGE)),
    ]
    refusals: Mapping[Any, Any] = {RefusalError: RefusalError.answer, Exception: _failed}
    return Guard(Starlette(routes=routes, exception_handlers=refusals)), app.end


def require_libraries() -> None:
    """Refuse a page whose libraries are missing, as in a clone that git has cleaned."""
    if not (PAGE / "vendor" / "stamp.txt").exists():
        raise CrystalMathError(
            f"{PAGE / 'vendor'} lacks the libraries of the page: install crystalmath-web again "
            "(`pip install ./packages/web` in a clone, with -e as before)"
        )


def _failed(_: Request, error: Exception) -> Response:
    """Answer an unexpected error as JSON; Starlette raises it again, for the log."""
    message = f"the page's server has failed: {type(error).__name__}; `crystalmath ui` says where"
    return in_json({"error": message, "code": "web"}, 500)


def _cookie(request: Request) -> str:
    """Return the name of a page's cookie, which has the port: browsers mix cookies of ports."""
    return f"crystalmath-{request.url.port}"


def _same(sent: object, known: str) -> bool:
    if not isinstance(sent, str):
        return False
    return secrets.compare_digest(sent.encode(errors="surrogatepass"), known.encode())


def _with_environment(
    method: str, params: dict[str, Any], environment: dict[str, str]
) -> dict[str, Any]:
    """Return parameters with an environment, whatever they had; many jobs have it in each job."""
    if method != "jobs.submit_many":
        return {**params, "environment": environment}
    jobs = params.get("jobs")
    if not isinstance(jobs, list):
        return params  # the server refuses it, and each that is no job
    each = [{**job, "environment": environment} if isinstance(job, dict) else job for job in jobs]
    return {**params, "jobs": each}


def _environment() -> dict[str, str]:
    return config.submitters_environment(config.load())


def _equations(client: Client, params: Mapping[str, Any]) -> dict[str, Any]:
    """Fit an equation of state for each material, as `crystalmath plot --eos` does."""
    ids, by = params.get("job_ids"), params.get("by", "formula")
    if not (isinstance(ids, list) and all(isinstance(each, str) for each in [*ids, by])):
        raise RefusalError(400, f"{EQUATIONS} takes 'job_ids', a list of ids, and 'by', a name")
    try:
        equations = client.equations_of_state(ids, by)
    except InvalidJob as error:
        return {"status": "error", "error": str(error), "code": error.code}
    return {**to_wire(equations), "states": [to_wire(state) for state in equations.states]}


def _phases(client: Client, params: Mapping[str, Any]) -> dict[str, Any]:
    from crystalmath_web.phases import phases

    return phases(client, params)


def _space_group(_: Client, params: Mapping[str, Any]) -> dict[str, Any]:
    from crystalmath_web.symmetry import space_group

    return space_group(params)


_OWN = {EQUATIONS: _equations, PHASES: _phases, SYMMETRY: _space_group}


def _written(change: JobChange) -> str:
    document = {
        "job_id": change.job_id,
        "from": change.before and change.before.value,
        "status": change.state.value,
        "reason": change.reason,
        "at": change.at,
    }
    return json.dumps(document)
