"""The record of the jobs of a simulated home: durable, with a crash before or after each write."""

from __future__ import annotations

import json
from types import SimpleNamespace

from attrs import evolve

from crystalmath.jobs.life import follow
from crystalmath.models import JobState, NewJob
from crystalmath.quacc.store import JobMetadata
from crystalmath.store.fetching import from_row
from crystalmath.store.insertions import _known
from crystalmath.store.rows import to_row


class Ledger:
    """What the recorder and the job store are to the recovery of jobs."""

    def __init__(self, disk, running):
        self._disk = disk
        self._running = running
        self.rows: dict[str, JobMetadata] = {}
        self.specifications: dict[str, str] = {}
        self.ends: dict[str, JobState] = {}
        self.keys: dict[str, JobMetadata] = {}
        self.changed_ends: list[str] = []
        #: The jobs that were told to have ended while something of them ran.
        self.early_ends: list[str] = []

    store = property(lambda self: self)

    def insert(self, job_id, header, body, key, owner, at):
        """Record a job, unless its key has given one before: then that one is given again."""
        new = NewJob(
            job_id=job_id, recipe="r", engine="sim", cluster="local", spec_hash="h", key=key,
            specification=f"{json.dumps(header)}\n{body}", created_at=at, owner=owner,
            stage="pass" if "flow" in header else None,
        )  # fmt: skip
        known = _known(new, self.rows, self.keys, ())
        if known is not None:
            return self.rows[known.job_id]
        with self._disk.change():
            self.rows[job_id] = self.keys[key] = JobMetadata(**from_row(to_row(new)))
            self.specifications[job_id] = new.specification
        return self.rows[job_id]

    def apply(self, *changes):
        with self._disk.change():
            for change in changes:
                if change.job_id in self.rows:
                    before = self.rows[change.job_id]
                    self.rows[change.job_id], _ = follow(before, change)
                    self._remember(before, self.rows[change.job_id])

    def _remember(self, before, after):
        if before.state.is_terminal() and after.state is not before.state:
            self.changed_ends.append(f"{before.job_id}: {before.state} became {after.state}")
        if after.state.is_terminal() and (running := self._running(after.job_id)):
            self.early_ends.append(f"{after.job_id} is told to be {after.state}: {running} live")

    def note_cancel(self, job_id, at):
        if not self.rows[job_id].state.is_terminal():
            with self._disk.change():
                self.rows[job_id] = evolve(self.rows[job_id], cancel_requested_at=at)

    def next_pass(self, row):
        """Record that a flow's next pass begins, unless it has changed since."""
        with self._disk.change():
            attempt = row.attempt + 1
            header = {**self.header(row.job_id), "flow": {"attempt": attempt}}
            self.rows[row.job_id] = evolve(row, attempt=attempt, stage="pass")
            self.specifications[row.job_id] = f"{json.dumps(header)}\nbody"

    def header(self, job_id):
        return json.loads(self.specifications[job_id].split("\n")[0])

    def specification(self, job_id):
        return self.specifications[job_id]

    def set_owner(self, job_ids, owner, reason, at):
        with self._disk.change():
            for job_id in job_ids:
                if not self.rows[job_id].state.is_terminal():
                    self.rows[job_id] = evolve(self.rows[job_id], owner=owner)

    def get_many(self, job_ids):
        return [self.rows[each] for each in job_ids if each in self.rows]

    def unfinished(self):
        return [row for row in self.rows.values() if not row.state.is_terminal()]


def settings(home, parcel):
    return SimpleNamespace(name="sim", home=home, parcel=parcel)
