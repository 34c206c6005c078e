"""Geometries of jobs: what a job was given, what it ended with, and what lies between."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from crystalmath.errors import InvalidJob
from crystalmath.models import JobState

if TYPE_CHECKING:
    from ase import Atoms

    from crystalmath.models.job_notes import Parent
    from crystalmath.quacc.store import JobMetadata
    from crystalmath.recipes.job_structure import JobStructure
    from crystalmath.service.job_results import JobResults

_FULL = 36  # characters of an id


class Geometries:
    """Give the structures that stand as jobs' in submissions.

    Parameters
    ----------
    jobs : JobResults
        Tells what is on record of jobs, and their results.
    """

    def __init__(self, jobs: JobResults) -> None:
        self._jobs = jobs

    def take(self, asked: JobStructure) -> tuple[Atoms | dict[str, Any], Parent]:
        """Return a job's geometry as a submission may have it, and whose it was.

        A final geometry has the tags, constraints and magnetic moments that its recipe gave it:
        where a calculation has moments of its own (VASP), quacc hands these on. What of these the
        recipe's result does not tell is as the job was given it.

        Raises
        ------
        UnknownJob
            There is no such job.
        InvalidJob
            It has no such geometry.
        """
        parent = self._parent(asked)
        job = self._jobs.job(parent["job_id"])
        return self._geometry(job, asked.frame), parent

    def _parent(self, asked: JobStructure) -> Parent:
        whole = len(asked.job_id) == _FULL
        return asked.parent(asked.job_id if whole else self._jobs.find(asked.job_id))

    def given_from(self, asked: JobStructure, child: JobMetadata) -> dict[str, Any] | None:
        """Return a job's geometry as a later job was given it; ``None`` where it had another."""
        return self.given(child) if self._parent(asked) in child.parents else None

    def given(self, job: JobMetadata) -> dict[str, Any] | None:
        """Return the structure that a job was given, if there was one, as it is stored."""
        _, document = self._jobs.specification(job.job_id).split("\n", 1)
        atoms = json.loads(document)["atoms"]
        return None if atoms is None else {"format": "ase-json", "data": atoms["data"]}

    def _geometry(self, job: JobMetadata, frame: int | None) -> Atoms | dict[str, Any]:
        if frame == 0:
            given = self.given(job)
            if given is None:
                raise InvalidJob(
                    f"job {job.job_id} was given no structure: {job.recipe} takes none, and there "
                    "is none to go on with"
                )
            return given
        if not job.state.is_terminal():
            raise InvalidJob(
                f"job {job.job_id} is {job.state.value}, and has no final geometry yet; wait for "
                f"it (crystalmath wait {job.job_id[:8]}), or take what it was given: "
                f"job:{job.job_id[:8]}@0"
            )
        if job.state is not JobState.COMPLETED:
            raise InvalidJob(
                f"job {job.job_id} {job.state.ended}, and has no final geometry; what it was "
                f"given is job:{job.job_id[:8]}@0, and crystalmath retry --continue "
                f"{job.job_id[:8]} goes on from its last one"
            )
        try:
            atoms = self._of_result(job, frame)
        except InvalidJob as error:
            raise InvalidJob(f"job {job.job_id} ({job.recipe}): {error}") from error
        return self._completed(atoms, job)

    def _of_result(self, job: JobMetadata, frame: int | None) -> Atoms:
        from crystalmath.recipes.summary import find_structures, read_structure

        found = find_structures(b"".join(self._jobs.result_chunks(job)))
        frames = found.trajectory
        if frame is None or frame == -1:
            return read_structure(found.final)
        if not frames:
            raise InvalidJob(
                f"its result holds no trajectory, so that there is no geometry {frame}; there are "
                "0, what it was given, and the final one"
            )
        try:
            return read_structure(frames[frame])
        except IndexError:
            raise InvalidJob(
                f"its trajectory has {len(frames)} geometries; there is none numbered {frame}"
            ) from None

    def _completed(self, atoms: Atoms, job: JobMetadata) -> Atoms:
        """Add what a recipe did not hand on of what its job was given, atom by atom."""
        import numpy as np

        from crystalmath.recipes.structures import parse_structure

        document = self.given(job)
        given = None if document is None else parse_structure(document)
        if given is None or not np.array_equal(given.numbers, atoms.numbers):
            return atoms
        for name in ("tags", "initial_magmoms", "initial_charges"):
            if given.has(name) and not atoms.has(name):
                atoms.set_array(name, given.get_array(name))
        if given.constraints and not atoms.constraints:
            atoms.set_constraint(given.constraints)
        return atoms
