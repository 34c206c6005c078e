"""References of a submission to other jobs: resolve them to ids, and put in the values."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from attrs import evolve

from crystalmath.errors import (
    ID_LENGTH,
    BadFile,
    FilesRemoved,
    InvalidJob,
    NotSubmitted,
    UnknownJob,
    shown,
)
from crystalmath.models import Finding, JobFilter
from crystalmath.models.checks import check_fields, checked
from crystalmath.models.fields import properties
from crystalmath.models.filters import read_filters
from crystalmath.models.job_notes import awaited, repeated
from crystalmath.models.reference import JobValue
from crystalmath.reading.job_results import recomputed
from crystalmath.reading.predecessors import Outlook, Predecessors
from crystalmath.recipes import codec
from crystalmath.recipes.arguments import returns_beside
from crystalmath.recipes.ase_classes import with_classes
from crystalmath.recipes.job_structure import JobStructure, as_data, with_values
from crystalmath.recipes.json_text import place_name
from crystalmath.recipes.lookup import look_up
from crystalmath.recipes.structures import parse_and_keep, parse_structure
from crystalmath.submitting.asked_job import AskedJob, with_arguments
from crystalmath.submitting.predecessor_values import PredecessorValues

if TYPE_CHECKING:
    from ase import Atoms

    from crystalmath.models import NewJob, Submission
    from crystalmath.models.job_notes import Parent
    from crystalmath.quacc.store import JobMetadata
    from crystalmath.reading.home_jobs import HomeJobs

__all__ = ["References"]

#: An error names this many jobs at most.
_NAMED = 3
#: An earlier job of the same request: ``#0`` is its first, ``#-1`` the one before.
_POSITION = re.compile(r"#(-?[0-9]{1,5})", re.ASCII)
_AFTER = {"job_id": {}, "ends": {"type": "string", "enum": ["ok", "any"]}}


class References:
    """Resolve references of submissions, of a request one after the other.

    Parameters
    ----------
    jobs : HomeJobs
        The jobs of the home.
    planned : collection of str, optional
        Ids of jobs whose retry is being submitted: their failure counts as pending.
    """

    def __init__(self, jobs: HomeJobs, planned: Collection[str] = ()) -> None:
        self.jobs = jobs
        self._predecessors = Predecessors(jobs, planned)
        self._values = PredecessorValues(jobs, self._predecessors)
        self._listed: list[tuple[str | None, str | None]] = []

    def plan(self, row: NewJob) -> None:
        """Add a job that is about to be recorded."""
        self._predecessors.add(row)

    def list_next(self, job_id: str | None, name: str | None) -> None:
        """Add the next job of the request, to which later ones refer by its position."""
        self._listed.append((job_id, name))

    # --- ids ---------------------------------------------------------------------------------

    def with_ids(self, submission: Submission, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return a body whose references have whole ids; filters stay, as the job may change.

        Raises
        ------
        UnknownJob, InvalidJob
            No job, or several, fit a reference; the message names its place.
        """

        def whole(reference: object, place: str) -> Any:
            if not isinstance(reference, Mapping):
                return self._job_id(reference, place)
            with _errors_at(place):
                return _filters(reference)

        def name(value: JobValue, place: tuple[Any, ...]) -> dict[str, Any]:
            job_id = whole(value.job_id, f"params.{place_name(place)}")
            return JobValue(job_id, value.path).document()

        atoms = body["atoms"]
        if (of_job := JobStructure.read(submission.atoms)) is not None:
            atoms = of_job.of(whole(of_job.job_id, "structure")).document()
        return {"atoms": atoms, "parameters": with_values(body["parameters"], name)}

    def _with_parents(self, job: AskedJob, submission: Submission) -> AskedJob:
        """Resolve all references, and add their jobs to the parents; errors as `with_ids`."""
        parents: list[Parent] = []
        document = job.document

        def name(value: JobValue, place: tuple[Any, ...]) -> dict[str, Any]:
            parameter = place_name(place)
            job_id = self._job_id(value.job_id, f"params.{parameter}")
            path = list(value.path)
            parents.append({"job_id": job_id, "role": "value", "place": parameter, "path": path})
            return JobValue(job_id, value.path).document()

        if job.refers:
            body = json.loads(document)
            if (of_job := JobStructure.read(body["atoms"])) is not None:
                of_job = of_job.of(self._job_id(of_job.job_id, "structure"))
                body["atoms"] = of_job.document()
                parents.append(of_job.parent(str(of_job.job_id)))
            body["parameters"] = with_values(body["parameters"], name)
            document = codec.body_text(body)
        for parent in parents:
            parent["awaited"] = "ok"
        for index, item in enumerate(submission.after):
            parents.append(self._after(item, f"after[{index}]"))
        if submission.on_failure == "fail":
            for parent in parents:
                parent["on_failure"] = "fail"
        spec = evolve(job.spec, parents=[*job.spec.parents, *parents])
        if submission.inherit_labels:
            spec = evolve(spec, labels=self._labels(submission, parents))
        return evolve(job, spec=spec, document=document, submission=None)

    def _labels(self, submission: Submission, parents: Sequence[Parent]) -> dict[str, str]:
        labels: dict[str, str] = {}
        for parent in reversed(parents):
            labels |= self._predecessors.job(parent["job_id"]).labels
        labels |= submission.labels
        try:
            check_fields(evolve(submission, labels=labels), {"labels"})
        except InvalidJob as error:
            raise InvalidJob(f"with the labels that it inherits: {error}") from error
        return labels

    def _after(self, item: str | Mapping[str, Any], place: str) -> Parent:
        ends = "ok"
        if isinstance(item, Mapping):
            with _errors_at(place):
                entry = checked(item, {"properties": _AFTER, "required": ["job_id"]})
            item, ends = entry["job_id"], entry.get("ends", "ok")
        job_id = self._job_id(item, place)
        return cast("Parent", {"job_id": job_id, "role": "after", "awaited": ends})

    def _job_id(self, reference: object, place: str) -> str:
        """Return the id of a job that is named by its id, the start of it, or by filters."""
        with _errors_at(place):
            if isinstance(reference, Mapping):
                return self._fitting(reference)
            text = str(reference)
            if (position := _POSITION.fullmatch(text)) is not None:
                return self._earlier(int(position[1]), text)
            whole = text if len(text) == ID_LENGTH else self.jobs.find(text)
            return self._predecessors.job(whole).job_id

    def _earlier(self, position: int, text: str) -> str:
        """Return the id of an earlier job of the request, counted from 0, or back from this one."""
        position += len(self._listed) if position < 0 else 0
        if not 0 <= position < len(self._listed):
            raise InvalidJob(
                f"{text!r} is no earlier job of the request: {len(self._listed)} come before this "
                "one; #0 is its first, #-1 the one before this"
            )
        job_id, name = self._listed[position]
        if job_id is None:
            raise NotSubmitted.of(position, name)
        return job_id

    def _fitting(self, filters: Mapping[str, Any]) -> str:
        """Return the id of the one job that fits the filters."""
        selection = read_filters(cast("Any", _filters(filters)))
        fitting = [job.job_id for job in self.jobs.jobs(limit=100, **selection)]
        if len(fitting) != 1:
            count = "no job fits" if not fitting else f"{len(fitting)} jobs fit"
            which = f": {', '.join(fitting[:_NAMED])}" if fitting else ""
            raise InvalidJob(f"{count} the filters {shown(dict(filters))}, and one must{which}")
        return fitting[0]

    # --- values ------------------------------------------------------------------------------

    def expected(self, parents: Sequence[Parent]) -> Mapping[str, Any] | None:
        """Return a structure of the atoms that a waiting job will get, if these are known."""
        return self._values.expected(parents)

    def settled(self, job: AskedJob) -> AskedJob:
        """Put in the values of other jobs, or the reason why the job waits for them.

        Raises
        ------
        UnknownJob
            There is no such job.
        InvalidJob
            No job, or several, fit a reference; one has failed, or lacks the value.
        FilesRemoved
            The files of one were removed.
        """
        if job.submission is not None:
            job = self._with_parents(job, job.submission)
        parents = job.spec.parents
        if not awaited(parents):
            return job
        before = self._predecessors
        before.read(parent["job_id"] for parent in parents)
        while True:
            outlook, sources = before.outlook(parents), before.sources(parents)
            if outlook.reason is not None:
                return self._waiting(job, outlook)
            try:
                return self._with_values(job)
            except (BadFile, FilesRemoved):
                # Reading has shown the damage: a retry may take the place of the job now.
                if (outlook, sources) == (before.outlook(parents), before.sources(parents)):
                    raise

    def _waiting(self, job: AskedJob, outlook: Outlook) -> AskedJob:
        """Add to a job why it waits; raise where waiting is in vain."""
        parents = job.spec.parents
        # A step that its flow has just called waits even so: it fails as one that has waited, and
        # the next pass raises the failure in the body.
        if outlook.failed is not None and not (job.is_step and repeated(parents) is None):
            raise InvalidJob(outlook.failed)
        if outlook.removed is not None:
            raise FilesRemoved(recomputed(outlook.removed, str(outlook.held_up_by)))
        spec = evolve(job.spec, asked_hash=job.spec_hash)
        findings = list(job.findings)
        if outlook.held_up_by:
            message = f"the job {outlook.reason}"
            findings.append(Finding(severity="warning", code="predecessor_failed", message=message))
        findings += self._without_final_geometry(parents)
        formula = self._values.formula(parents)
        return evolve(
            job, spec=spec, reason=outlook.reason, findings=tuple(findings), formula=formula
        )

    def _with_values(self, job: AskedJob) -> AskedJob:
        """Put in the values of jobs that have all completed."""
        parents = job.spec.parents
        ended = [self._ended(parent) for parent in parents]
        spec = evolve(job.spec, parents=ended, asked_hash=job.spec_hash)
        job = evolve(job, findings=(*job.findings, *self._without_large_files(parents)))
        if not job.refers:
            return evolve(job, spec=spec)
        return self._put_in(evolve(job, spec=spec, refers=False), parents)

    def _ended(self, parent: Parent) -> Parent:
        """Return a parent without its wait, and with the retry that took its place."""
        ended = {
            key: value for key, value in parent.items() if key not in {"awaited", "on_failure"}
        }
        if parent.get("awaited") == "ok":
            source = self._predecessors.source(parent).job_id
            ended |= {"taken_from": source} if source != parent["job_id"] else {}
        return cast("Parent", ended)

    def _put_in(self, job: AskedJob, parents: Sequence[Parent]) -> AskedJob:
        body = json.loads(job.document)
        later = [parent for parent in parents if parent.get("frame") != 0]
        sources = {
            parent["job_id"]: self._predecessors.source(parent) for parent in reversed(later)
        }
        if job.is_step:
            body = with_values(
                body, lambda value, _: self._values.read(sources[str(value.job_id)], value.path)
            )
            return with_arguments(evolve(job, document=codec.body_text(body)))

        def put_in(value: JobValue, place: tuple[Any, ...]) -> Any:
            try:
                return as_data(self._values.value(sources[str(value.job_id)], value.path))
            except InvalidJob as error:
                raise InvalidJob(f"params.{place_name(place)}: {error}") from error

        atoms, structure = job.spec.atoms, body["atoms"] and body["atoms"].get("data")
        if (of_job := JobStructure.read(body["atoms"])) is not None:
            job_id = str(of_job.job_id)
            source = self._predecessors.job(job_id) if of_job.frame == 0 else sources[job_id]
            atoms, structure = parse_and_keep(self._values.geometry(source, of_job))
            job = evolve(job, findings=(*job.findings, *self._without_moments(source, atoms)))
        parameters = with_classes(
            job.spec.recipe, codec.decode_request(with_values(body["parameters"], put_in))
        )
        text = codec.body_text(codec.body_of(structure, parameters))
        return evolve(job, spec=evolve(job.spec, atoms=atoms, parameters=parameters), document=text)

    # --- warnings ----------------------------------------------------------------------------

    def _without_final_geometry(self, parents: Sequence[Parent]) -> Iterator[Finding]:
        """Warn of a pending geometry of a flow whose result may hold several, none of them final.

        It is no error: a list of one calculation has one geometry.
        """
        for parent in parents:
            whole = parent["role"] == "structure" and not parent.get("path")
            if not whole or parent.get("frame", -1) >= 0:
                continue
            recipe = self._predecessors.job(parent["job_id"]).recipe
            with contextlib.suppress(InvalidJob):  # The home may no longer admit the recipe.
                if returns := returns_beside(look_up(recipe, self.jobs.config.recipes_allow)):
                    yield Finding(
                        severity="warning",
                        code="structure_of_several",
                        message=f"{recipe} returns calculations beside each other ({returns}): of "
                        "several, none is the final one, and this job then fails",
                        remedy="name one by its place in the result: job:ID:static.0.atoms, or "
                        "future['static'][0]['atoms'] from Python",
                        place="structure",
                    )

    def _without_moments(self, job: JobMetadata, atoms: Atoms) -> Iterator[Finding]:
        """Warn of a geometry whose magnetic moments are all zero, though the job began with some.

        They may have vanished, or ASE has not read them: from the output of pw.x 6 it takes
        another column.
        """
        if not atoms.has("initial_magmoms") or atoms.get_initial_magnetic_moments().any():
            return
        before = self._values.input_structure(job)
        if before is not None and parse_structure(before).get_initial_magnetic_moments().any():
            yield Finding(
                severity="warning",
                code="moments_lost",
                message=f"the geometry of job {job.job_id} has no magnetic moments, though the job "
                "began with some: this one begins without",
                remedy="look whether the program's output has them: ASE reads 0 from that of pw.x "
                "6; if so, submit a structure that has them",
                place="structure",
            )

    def _without_large_files(self, parents: Sequence[Parent]) -> Iterator[Finding]:
        """Warn of a folder whose large files were removed.

        It is no error: a relaxation needs no wave functions. But pw.x starts a calculation of bands
        without a density from free atoms, and reports that in its output only.
        """
        for parent in awaited(parents):
            if parent.get("path", [])[-1:] != ["dir_name"]:
                continue
            if (job := self._predecessors.source(parent)).removed == "heavy":
                yield Finding(
                    severity="warning",
                    code="large_files_removed",
                    message=f"the wave functions, densities and the like of job {job.job_id} were "
                    "removed: a calculation that continues from them fails, or begins without",
                    remedy=f"crystalmath retry {job.job_id[:8]} makes them anew",
                    place=f"params.{parent.get('place')}",
                )


def _filters(filters: Mapping[str, Any]) -> Mapping[str, Any]:
    return checked(filters, {"properties": properties(JobFilter)})


@contextlib.contextmanager
def _errors_at(place: str) -> Iterator[None]:
    """Add the place in the submission to an error's message."""
    try:
        yield
    except NotSubmitted:
        raise
    except (UnknownJob, InvalidJob) as error:
        error.args = (f"{place}: {error}",)
        raise
