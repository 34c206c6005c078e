"""The thread of a supervisor that publishes small outcomes while the next job runs."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from typing import TYPE_CHECKING, TypeVar

from crystalmath.jobs.journal import Journal
from crystalmath.jobs.rundir import RunDirectory, attempt_id
from crystalmath.worker.disk_space import FULL, when_there_is_room

if TYPE_CHECKING:
    from collections.abc import Callable

    from crystalmath.jobs.identities import IdentityFile

_T = TypeVar("_T")

#: A journal ends at this many outcomes or bytes, and another one begins: the whole journal is read
#: for each of its outcomes, and stays on the disk until the last of its jobs is removed.
_OUTCOMES = 64
_BYTES = 2**18
#: How long outcomes are gathered for one write, unless `flush` waits for them, in seconds.
GATHER_S = 0.02


class Publisher:
    """Publishes outcomes of ended jobs; those that come during a write share the next one.

    `identity` has claimed the attempts. `is_wanted` is called while the disk is full.
    """

    def __init__(
        self, jobs_directory: str, identity: IdentityFile, is_wanted: Callable[[], bool]
    ) -> None:
        self._jobs_directory = jobs_directory
        self._identity = identity
        self._is_wanted = is_wanted
        self._changed = threading.Condition()
        self._waiting: list[tuple[str, int, bytes]] = []
        self._busy = False
        self._hurries = False
        self._ends = False
        self._error: Exception | None = None
        self._journal: Journal | None = None
        self._closing: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._work, name="crystalmath-publisher")
        self._thread.start()

    def add(self, directory: RunDirectory, attempt: int, content: bytes) -> None:
        """Publish an outcome soon; raise the error of an earlier one that failed."""
        with self._changed:
            # On a full disk the jobs stop when this many outcomes wait.
            self._changed.wait_for(lambda: len(self._waiting) < _OUTCOMES or self._error)
            self._check()
            self._waiting.append((directory.path, attempt, content))
            if len(self._waiting) == 1:
                self._changed.notify_all()

    def flush(self) -> None:
        """Wait until all outcomes are published; raise the error if that fails."""
        with self._changed:
            self._hurries = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not (self._waiting or self._busy) or self._error)
            self._hurries = False
            self._check()

    def close(self) -> None:
        """Publish the waiting outcomes, and end the thread."""
        with self._changed:
            self._ends = True
            self._changed.notify_all()
        self._thread.join()
        self._turn_over()
        for thread in self._closing:
            thread.join()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ends)
                self._changed.wait_for(lambda: self._hurries or self._ends, GATHER_S)
                batch, self._waiting = self._waiting, []
                self._busy = bool(batch)
                self._changed.notify_all()
            if not batch:
                return
            try:
                self._publish(batch)
            except Exception as error:  # noqa: BLE001 - `add` and `flush` raise it
                self._error = error
            with self._changed:
                self._busy = False
                self._changed.notify_all()
            if self._error is not None:
                return

    def _publish(self, batch: list[tuple[str, int, bytes]]) -> None:
        path = self._with_room(lambda: self._append(batch))
        for directory, attempt, content in batch:
            link = functools.partial(_link, RunDirectory(directory), attempt, content, path)
            self._with_room(link)

    def _with_room(self, write: Callable[[], _T]) -> _T:
        return when_there_is_room(write, self._jobs_directory, is_wanted=self._is_wanted)

    def _append(self, batch: list[tuple[str, int, bytes]]) -> str:
        if self._journal and (self._journal.count >= _OUTCOMES or self._journal.size >= _BYTES):
            self._turn_over()
        if self._journal is None:
            self._journal = Journal(self._jobs_directory, self._identity.identity)
        try:
            self._journal.append(
                [
                    (directory, attempt_id(os.path.basename(directory), attempt), content)
                    for directory, attempt, content in batch
                ]
            )
        except OSError:
            self._turn_over()  # records that have reached the disk stay valid
            raise
        return self._journal.path

    def _turn_over(self) -> None:
        """Let another thread sync and close the journal, and begin a new one."""
        journal, self._journal = self._journal, None
        if journal is not None:
            self._closing = [each for each in self._closing if each.is_alive()]
            end = functools.partial(journal.close, published=self._error is None)
            self._closing.append(threading.Thread(target=end))
            self._closing[-1].start()


def _link(directory: RunDirectory, attempt: int, content: bytes, path: str) -> None:
    try:
        directory.publish_in(attempt, path)
    except OSError as error:
        if error.errno in FULL:
            raise
        # The journal or the job was removed, or the file system allows no more links.
        with contextlib.suppress(FileNotFoundError):
            directory.publish_document(attempt, content)
