"""The Covalent engine: it hands run directories to a Covalent server, and reports their tasks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from crystalmath.errors import CrystalMathError, EngineUnavailable
from crystalmath.models import Capabilities, Sighting
from crystalmath.quacc.engine import EngineRunner
from crystalmath_engine_covalent import config, dispatches
from crystalmath_engine_covalent.client import Client, NotListening, RefusedError
from crystalmath_engine_covalent.private import NotStarted, PrivateServer, directory_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from crystalmath.models import Attempt, EngineSettings
    from crystalmath_engine_covalent.client import Dispatch

_ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "POSTPROCESSING_FAILED"})
#: The reasons of at most so many failed dispatches are read at a time: each costs two requests.
COMPLAINTS = 3
#: A cancel is sent so many times: Covalent ignores it while it hands a task to Dask.
CANCELS = 5
#: How long a cancel may take, in seconds: Covalent connects to Dask for each.
CANCEL_S = 4.0


class ServerNotRunningError(CrystalMathError):
    """There is no Covalent server, and there was none before."""

    code = "server_not_running"


class CovalentRunner(EngineRunner):
    """Run jobs on a Covalent server.

    A status of Covalent's shows whether its task may still begin; the run directory shows the
    outcome of a job. (A stopped server marks uncancelled tasks as ``CANCELLED``. One that is killed
    leaves ``RUNNING`` behind, and the processes of a cancelled task live on.)

    Parameters
    ----------
    settings : EngineSettings
        ``address`` of a running server (default: where Covalent's own configuration says), or
        ``autostart = true`` for one of this home alone, with so many ``workers``.
    """

    # A launch takes a tenth of a second, and nothing else is asked of the engine meanwhile.
    # Its server's Dask cluster queues a task behind each running one, and does not reorder them.
    # Its workers have the environment that this server was started with.
    capabilities = Capabilities(
        max_queued=200, drops_queued=True, starts_in_order=False, workers_inherit=False
    )

    def __init__(self, settings: EngineSettings) -> None:
        super().__init__(settings)
        self._options = config.read(settings)
        self._private = PrivateServer(directory_of(settings), self._options.workers)
        self._reached = False

    def launch(self, attempts: Sequence[Attempt]) -> Mapping[str, str]:
        """Register and start one dispatch for each attempt."""
        handles: dict[str, str] = {}
        try:
            with self._server() as server:
                life = self._life(server)
                for attempt in attempts:
                    handles[attempt.id] = self._dispatch(server, attempt, life)
        except EngineUnavailable as error:
            if not self._reached and not any(attempt.handle for attempt in attempts):
                # Nobody is to wait for a server that was never there.
                if isinstance(error, NotListening):
                    raise ServerNotRunningError(f"{error}: {config.REMEDY}") from error
                if isinstance(error, NotStarted):
                    raise ServerNotRunningError(str(error)) from error
            if not handles:
                raise
            self.log.warning("%d of %d launched: %s", len(handles), len(attempts), error)
        return handles

    def probe(self, attempts: Sequence[Attempt]) -> Mapping[str, Sighting]:
        """Ask the server for all of them at once."""
        wanted = {attempt.id: dispatches.all_ids(attempt) for attempt in attempts}
        with self._server() as server:
            life = self._life(server)
            known = server.find(each for ids in wanted.values() for each in ids)
            seen = {}
            complaints = 0
            for attempt in attempts:
                mine = [known[each] for each in wanted[attempt.id] if each in known]
                live = [each for each in mine if _may_run(each, life)]
                if live:
                    seen[attempt.id] = self._see(server, live)
                    continue
                reason = _end(mine)
                if reason == "FAILED" and complaints < COMPLAINTS:
                    complaints += 1
                    reason = f"FAILED: {server.complaint(mine[-1].id)}"
                seen[attempt.id] = Sighting("gone", reason)
        return seen

    def release(self, attempts: Sequence[Attempt]) -> None:
        """Cancel the dispatches that have not ended; core has stopped the processes."""
        ids = [each for attempt in attempts for each in dispatches.all_ids(attempt)]
        with self._server() as server:
            life = self._life(server)
            for _ in range(CANCELS):
                live = _live(server, ids, life)
                if not live:
                    return
                for dispatch in live:
                    server.cancel(dispatch)
                deadline = time.monotonic() + CANCEL_S
                while time.monotonic() < deadline and _live(server, live, life):
                    time.sleep(0.1)
            self.log.warning("Covalent does not cancel %s", live)

    def stop(self) -> None:
        """Leave the server; one that was started for this home ends with its last user."""
        self._private.leave()

    def _server(self) -> Client:
        if self._options.autostart:
            return Client(self._private.enter())
        return Client(self._options.address)

    def _life(self, server: Client) -> str:
        life = server.incarnation()
        self._reached = True
        return life

    def _dispatch(self, server: Client, attempt: Attempt, life: str) -> str:
        for dispatch in dispatches.fresh_ids(attempt):
            for name, content in dispatches.files(dispatch, attempt).items():
                server.send(name, content)
            try:
                server.register(dispatches.manifest(dispatch, f"{attempt.id}@{life}"))
            except RefusedError:
                # A launch that broke off may have registered it.
                before = server.find([dispatch]).get(dispatch)
                if before is None:
                    raise
                if not _may_run(before, life):
                    continue
            server.start(dispatch)
            return dispatch
        raise AssertionError  # there is always another id

    def _see(self, server: Client, live: Sequence[Dispatch]) -> Sighting:
        for dispatch in live:
            if dispatch.status == "NEW_OBJECT":
                # Registered, and whoever did it had no time to start it: harmless if he had.
                server.start(dispatch.id)
        # Covalent says RUNNING as soon as its Dask cluster has a task queued, and core knows what
        # has begun from its files.
        return Sighting("queued")


def _live(server: Client, ids: Sequence[str], life: str) -> list[str]:
    return [each.id for each in server.find(ids).values() if _may_run(each, life)]


def _may_run(dispatch: Dispatch, life: str) -> bool:
    """Return whether the server may still start it; what it had in an earlier life it does not."""
    return dispatch.status not in _ENDED and dispatch.name.rpartition("@")[2] == life


def _end(known: Sequence[Dispatch]) -> str:
    if not known:
        return "the Covalent server does not know it"
    last = known[-1].status
    return last if last in _ENDED else "the Covalent server was started again"
