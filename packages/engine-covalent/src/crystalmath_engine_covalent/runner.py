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

    Covalent's status shows whether a task may still begin; the run directory shows the outcome of
    its job. (A stopped server marks uncancelled tasks as ``CANCELLED``. A killed one leaves the
    status ``RUNNING``, and the processes of a cancelled task live on.)

    Parameters
    ----------
    settings : EngineSettings
        ``address`` of a running server (default: that of Covalent's own configuration), or
        ``autostart = true`` for a server of this home alone, with ``workers`` workers.
    """

    # A launch takes a tenth of a second, and no other call of the engine runs meanwhile.
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
                # Jobs do not wait for a server that was never there.
                if isinstance(error, NotListening):
                    raise ServerNotRunningError(f"{error}: {config.REMEDY}") from error
                if isinstance(error, NotStarted):
                    raise ServerNotRunningError(str(error)) from error
            if not handles:
                raise
            self.log.warning("%d of %d launched: %s", len(handles), len(attempts), error)
        return handles

    def probe(self, attempts: Sequence[Attempt]) -> Mapping[str, Sighting]:
        """Look up all attempts with few requests."""
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
        """Leave the server; a server of this home alone ends with its last user."""
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
                # An interrupted launch may have registered it.
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
                # Registered, but perhaps not started; a second start does nothing.
                server.start(dispatch.id)
        # Covalent's status is RUNNING as soon as its Dask cluster has queued the task. Core knows
        # from files which jobs have begun.
        return Sighting("queued")


def _live(server: Client, ids: Sequence[str], life: str) -> list[str]:
    return [each.id for each in server.find(ids).values() if _may_run(each, life)]


def _may_run(dispatch: Dispatch, life: str) -> bool:
    """Return whether the server may still start a dispatch: not one of an earlier run of it."""
    return dispatch.status not in _ENDED and dispatch.name.rpartition("@")[2] == life


def _end(known: Sequence[Dispatch]) -> str:
    if not known:
        return "the Covalent server does not know it"
    last = known[-1].status
    return last if last in _ENDED else "the Covalent server was started again"
