"""The record of the jobs of a simulated home: durable, with a crash before or after each write."""

from __future__ import annotations

from types import SimpleNamespace

from attrs import evolve

from crystalmath.models import JobState
from crystalmath.quacc.store import JobMetadata
from crystalmath.store.transitions import follow


class Ledger:
    """What the recorder and the job store are to the recovery of jobs."""

    def __init__(self, disk):
        self._disk = disk
        self.rows: dict[str, JobMetadata] = {}
        self.specifications: dict[str, str] = {}
        self.ends: dict[str, JobState] = {}
        self.changed_ends: list[str] = []

    store = property(lambda self: self)

    def insert(self, job_id, specification, owner, at):
        values = dict.fromkeys(field.name for field in JobMetadata.__attrs_attrs__)
        values |= {
            "job_id": job_id, "recipe": "r", "engine": "sim", "cluster": "local",
            "labels": {}, "spec_hash": "", "state": JobState.PENDING, "revision": 0,
            "attempt": 1, "created_at": at, "owner": owner, "warnings": [],
        }  # fmt: skip
        with self._disk.change():
            self.rows[job_id] = JobMetadata(**values)
            self.specifications[job_id] = specification

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

    def note_cancel(self, job_id, at):
        if not self.rows[job_id].state.is_terminal():
            with self._disk.change():
                self.rows[job_id] = evolve(self.rows[job_id], cancel_requested_at=at)

    def specification(self, job_id):
        return self.specifications[job_id]

    def set_owner(self, job_ids, owner, reason, at):
        with self._disk.change():
            for job_id in job_ids:
                if not self.rows[job_id].state.is_terminal():
                    self.rows[job_id] = evolve(self.rows[job_id], owner=owner)

    def unfinished(self):
        return [row for row in self.rows.values() if not row.state.is_terminal()]


def settings(home):
    return SimpleNamespace(name="sim", home=home)
