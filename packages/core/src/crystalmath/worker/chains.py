"""The engine worker's side: a pool of chains, one for each call at a time."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from crystalmath.errors import BadFile, CrystalMathError
from crystalmath.jobs.rundir import RunDirectory, attempt_id
from crystalmath.jobs.written_spec import WrittenSpec
from crystalmath.processes import start_tied
from crystalmath.worker.time_left import is_nearly_over

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_STDERR = 2


class WorkerLostError(CrystalMathError):
    """The supervisor ended without an outcome; the job's owner will notice."""

    code = "lost"


def run(
    directory: str | os.PathLike[str],
    environment: Mapping[str, str] | None = None,
    *,
    only_filled: Collection[str] = (),
    shared: bool = False,
    tied: bool = False,
) -> None:
    """Run the job of a run directory, and return once its outcome is published.

    Jobs that core has packed together are run after it, one after another or in batches. Several
    threads may call it at once. A job that another process has claimed is left alone.

    Parameters
    ----------
    directory : str or path-like
        The job's run directory (``Attempt.directory``).
    environment : mapping of str to str, optional
        Environment variables of the job that only its worker can know, such as the nodes of its
        allocation. They take precedence over the submitted ones, and ``$NAME`` in these is
        filled in with them.
    only_filled : collection of str
        Names of those that are filled in, but not set as variables of the job.
    shared : bool
        Whether the worker's allocation runs other jobs, too, one after another. A job without a
        walltime that is unfinished when the allocation ends (`CRYSTALMATH_ALLOCATION_ENDS`) is
        lost then, since its next attempt may find a fresh one. In an unshared allocation it fails.
    tied : bool
        Whether the job is ended with this process, as nobody else would take its outcome.

    Raises
    ------
    WorkerLostError
        The supervisor was killed before the outcome was published.
    FileNotFoundError
        There is no such run directory on this host.
    """
    term, first = _chains.term, RunDirectory(os.path.abspath(directory))
    spec, others, batch = WrittenSpec.read(first), [], False
    with contextlib.suppress(BadFile, OSError):  # jobs that it would have begun are launched again
        if others := first.parcel(spec.attempt):
            batch = first.is_batch(spec.attempt)
    own = dict(spec.environment)
    if environment:
        own = _with(own, environment, only_filled)
    folder = os.path.dirname(first.path)
    jobs = [(first.path, spec.attempt), *((f"{folder}/{each}", n) for each, n in others)]
    shared = shared or bool(others)
    request = {"environment": own, "shared": shared, "tied": tied, "batch": batch}
    lost: list[str] = []
    while _hand_over(request, jobs, term, spec.recipe) == "lost":
        lost += [path for path, attempt in jobs if _is_unfinished(path, attempt)]
        for path, attempt in jobs:
            declare_lost(path, attempt)
        jobs = [(path, number) for path, number in jobs if not RunDirectory(path).claimed(number)]
        if not jobs or term != _chains.term or is_nearly_over(own):
            break
    if lost:
        raise WorkerLostError(f"the supervisor of {lost[0]} ended without an outcome")


def _is_unfinished(path: str, attempt: int) -> bool:
    directory = RunDirectory(path)
    return directory.claimed(attempt) and not directory.decided(attempt)


def _hand_over(request: dict[str, Any], jobs: list[tuple[str, int]], term: int, recipe: str) -> str:
    """Have a supervisor run jobs, one after another; ``lost`` if it ended before the last."""
    fresh = False
    while not fresh:
        chain, fresh = _take(request["environment"], os.path.dirname(jobs[0][0]), recipe)
        chain.recipes.add(recipe)
        reply = chain.run(request, jobs, term)
        _give_back(chain)
        # An idle chain may end at the very moment it is given work: nothing was claimed.
        if reply is not None:
            return reply
    path, _ = jobs[0]
    raise WorkerLostError(f"no supervisor could take {path}: the worker's standard error says why")


def _with(
    submitted: Mapping[str, str], known: Mapping[str, str], only_filled: Collection[str]
) -> dict[str, str]:
    def filled(value: str) -> str:
        return re.sub(r"\$(\w+)", lambda match: known.get(match[1], match[0]), value)

    own = {name: value for name, value in known.items() if name not in only_filled}
    return {**{name: filled(value) for name, value in submitted.items()}, **own}


def warm(environment: Mapping[str, str]) -> None:
    """Have quacc imported for the first job with this whole environment, and kept for it."""
    chain = _Chain()
    chain.warm(dict(environment))
    _give_back(chain)


class _Chain:
    """A supervisor, seen through the socket that ties it to this process."""

    def __init__(self) -> None:
        self.process, self._socket = start_tied(
            "crystalmath.worker.supervisor",
            stdout=subprocess.DEVNULL,
            stderr=None if _is_open(_STDERR) else subprocess.DEVNULL,
        )
        self.environment: dict[str, str] | None = None
        #: The folder of its claims and journals, after its first job.
        self.folder: str | None = None
        #: The recipes that it has run: its runner has loaded their data.
        self.recipes: set[str] = set()
        #: Whether it is kept for jobs with this environment.
        self.is_kept = False
        self.term = _chains.term
        self.is_closed = False
        self._handing = threading.Lock()
        self._is_given = False
        self._lines: IO[bytes] = self._socket.makefile("rb")

    def run(self, request: dict[str, Any], jobs: list[tuple[str, int]], term: int) -> str | None:
        """Hand over jobs; return ``done``, ``lost``, or ``None`` if they were not taken.

        If the chains were closed since `term`, only the first job begins.
        """
        self.environment, self.folder = request["environment"], os.path.dirname(jobs[0][0])
        try:
            with self._handing:
                message = {**request, "jobs": jobs if term == _chains.term else jobs[:1]}
                self._socket.sendall(json.dumps(message).encode() + b"\n")
                self._is_given = True
            if not self._lines.readline():
                raise BrokenPipeError
        except OSError:
            self.close()
            return None
        try:
            done = self._lines.readline()
        except OSError:
            done = b""
        if done:
            return "done"
        self.close()
        return "lost"

    def stop(self) -> None:
        """Have the supervisor begin no further job."""
        with self._handing, contextlib.suppress(OSError):  # it has ended
            if self._is_given:
                self._socket.shutdown(socket.SHUT_WR)

    def warm(self, environment: dict[str, str]) -> None:
        """Have the supervisor start a template, and stay while this process lives."""
        self.environment, self.is_kept = environment, True
        with contextlib.suppress(OSError):  # it has ended, as its first job will notice
            self._socket.sendall(json.dumps({"warm": environment}).encode() + b"\n")

    def close(self) -> None:
        """Disconnect: an idle supervisor ends at once, a busy one after its job."""
        self.is_closed = True
        self._lines.close()
        self._socket.close()
        # The exit code is not needed; waiting keeps the process from becoming a zombie.
        threading.Thread(target=self.process.wait, daemon=True).start()


def _is_open(descriptor: int) -> bool:
    with contextlib.suppress(OSError):
        os.fstat(descriptor)
        return True
    return False


class _Chains:
    """The chains of this process; `lock` guards the others."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        #: How often the idle chains were closed.
        self.term = 0
        self.idle: list[_Chain] = []
        self.busy: list[_Chain] = []

    def forget(self) -> None:
        """Forget all chains in a forked child: they belong to the parent."""
        self.lock = threading.Lock()  # the old one may have been held at the fork
        self.idle.clear()
        self.busy.clear()


_chains = _Chains()
os.register_at_fork(after_in_child=_chains.forget)


def _take(environment: dict[str, str], folder: str, recipe: str) -> tuple[_Chain, bool]:
    """Take an idle chain of a folder, or start one; return it, and whether it is new.

    A chain whose runner has this environment is preferred, and among these one that has run the
    recipe.
    """
    with _chains.lock:
        idle = [chain for chain in _chains.idle if chain.folder in {None, folder}]
        fitting = [chain for chain in idle if chain.environment == environment]
        fitting.sort(key=lambda chain: recipe in chain.recipes)
        for chain in reversed(fitting or [chain for chain in idle if not chain.is_kept]):
            _chains.idle.remove(chain)
            _chains.busy.append(chain)
            return chain, False
    chain = _Chain()
    with _chains.lock:
        _chains.busy.append(chain)
    return chain, True


def _give_back(chain: _Chain) -> None:
    with _chains.lock:
        if chain in _chains.busy:
            _chains.busy.remove(chain)
        if chain.is_closed:
            return
        if chain.term == _chains.term:
            _chains.idle.append(chain)
            return
    chain.close()


def close_idle() -> None:
    """End all idle chains of this process, and wait until they are gone.

    Busy chains, whose jobs go on without this process, end after their job.
    """
    with _chains.lock:
        _chains.term += 1
        chains = _chains.idle[:]
        _chains.idle.clear()
        for chain in _chains.busy:
            chain.stop()
    for chain in chains:
        chain.close()
    for chain in chains:
        chain.process.wait()


def declare_lost(path: str | os.PathLike[str], attempt: int) -> None:
    """End the processes of a killed supervisor of this host, and publish its attempt as lost.

    Only an engine's worker notices at once: the owner of the job may be on another host, and would
    wait for the lease. If this fails here, the owner does it.
    """
    # Most workers never need these modules, as their supervisors live.
    from crystalmath.jobs.changes import Publish
    from crystalmath.jobs.host import Host
    from crystalmath.jobs.reconcile import publish

    directory = RunDirectory(path)
    with contextlib.suppress(BadFile, OSError):
        if directory.decided(attempt) or directory.is_claimant_alive(attempt) is not False:
            return
        host = Host(Path(path).absolute().parent)
        if host.end_processes(attempt_id(Path(path).name, attempt)):
            claimant = directory.claimant(attempt)
            who = f"pid {claimant.pid} on {claimant.host}" if claimant else "of an unknown host"
            cancelled = directory.cancel_requested()
            error = f"the supervisor ({who}) died"
            publish(
                directory, attempt, Publish(state="lost", error=error, cancelled=cancelled), host
            )
