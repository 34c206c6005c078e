"""The jobs that a submission refers to: which they are, whether they have ended, what they give."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from attrs import evolve, frozen

from crystalmath.errors import (
    ID_LENGTH,
    BadFile,
    FilesRemoved,
    InvalidJob,
    NotSubmitted,
    UnknownJob,
    shown,
)
from crystalmath.models import Finding, JobFilter, JobState
from crystalmath.models.checks import check_fields, checked
from crystalmath.models.fields import properties
from crystalmath.models.filters import read_filters
from crystalmath.models.job_notes import awaited, awaits_structure, repeated, step_of
from crystalmath.models.reference import JobValue
from crystalmath.reading.job_results import recomputed
from crystalmath.recipes import codec
from crystalmath.recipes.arguments import returns_beside
from crystalmath.recipes.ase_classes import with_classes
from crystalmath.recipes.decoding import ResultDecoder
from crystalmath.recipes.encoding import (
    AS_TEXT,
    NUMPY,
    ResultEncoder,
    formless,
    with_numpy_types,
)
from crystalmath.recipes.job_structure import JobStructure, as_data, with_values
from crystalmath.recipes.json_text import place_name, structure_of
from crystalmath.recipes.lookup import is_quaccs, look_up
from crystalmath.recipes.structures import parse_and_keep, parse_structure
from crystalmath.recipes.summary import find_structures, read_structure
from crystalmath.submitting.asked_job import AskedJob, with_arguments
from crystalmath.submitting.going_on import moves_atoms_alone

if TYPE_CHECKING:
    from ase import Atoms

    from crystalmath.models import NewJob, Submission
    from crystalmath.models.job_notes import Parent
    from crystalmath.quacc.store import JobMetadata
    from crystalmath.reading.home_jobs import HomeJobs

#: So many of the jobs that one waits for are named in its reason.
_NAMED = 3
#: Through so many predecessors is looked for the atoms that a job will get.
_FAR = 100
#: So many waiting jobs are looked at to find what holds one up.
_MOST_WAITING = 10_000
#: A key by which part of a stored result is found without reading all of it; not one of our tags.
_KEY = re.compile(r"(?!(?:data|items|string)$)[A-Za-z_]\w*", re.ASCII)
#: A job of the same request, as a later one refers to it.
_POSITION = re.compile(r"#(-?[0-9]{1,5})", re.ASCII)
_AFTER = {"job_id": {}, "ends": {"type": "string", "enum": ["ok", "any"]}}


@frozen
class Outlook:
    """Whether the jobs that one waits for have ended as they should."""

    #: What it waits for; ``None`` where it can run.
    reason: str | None = None
    #: Why it has to end without having run, as was asked for in that case; and how it ends then.
    failed: str | None = None
    state: JobState = JobState.FAILED
    #: The one that has failed, or whose files were removed: it waits for a retry of that.
    held_up_by: str | None = None
    #: The job between, which waits for that too, and why that one does is `reason`.
    through: str | None = None
    #: What has become of the files of one that has completed.
    removed: str | None = None


class References:
    """Find and remember the jobs that others refer to; those in `planned` are being retried."""

    def __init__(self, jobs: HomeJobs, planned: Collection[str] = ()) -> None:
        self.jobs = jobs
        self._planned = planned
        self._listed: list[tuple[str | None, str | None]] = []
        self._found: dict[str, JobMetadata] = {}
        self._again: dict[str, list[str]] = {}
        self._values: dict[tuple[str, tuple[str | int, ...]], Any] = {}

    def plan(self, row: NewJob) -> None:
        """Know a job that is about to be recorded."""
        self._found[row.job_id] = row

    def list_next(self, job_id: str | None, name: str | None) -> None:
        """Know id and name of the next job of a request; later ones refer to it by its position."""
        self._listed.append((job_id, name))

    # --- which jobs --------------------------------------------------------------------------

    def with_ids(self, submission: Submission, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return a request with whole ids of jobs; `UnknownJob`, `InvalidJob` name the wrong place.

        Filters stay: the same filters are the same request, whichever job they fit at the time.
        """

        def whole(given: object, place: str) -> Any:
            if not isinstance(given, Mapping):
                return self._whole(given, place)
            with _said_of(place):
                return _filters(given)

        def name(value: JobValue, place: tuple[Any, ...]) -> dict[str, Any]:
            job_id = whole(value.job_id, f"params.{place_name(place)}")
            return JobValue(job_id, value.path).document()

        atoms = body["atoms"]
        if (of_job := JobStructure.read(submission.atoms)) is not None:
            atoms = of_job.of(whole(of_job.job_id, "structure")).document()
        return {"atoms": atoms, "parameters": with_values(body["parameters"], name)}

    def _named(self, asked: AskedJob, submission: Submission) -> AskedJob:
        """Put whole ids into all references, and name the jobs as parents; errors as `with_ids`."""
        parents: list[Parent] = []
        document = asked.document

        def name(value: JobValue, place: tuple[Any, ...]) -> dict[str, Any]:
            spelt = place_name(place)
            job_id = self._whole(value.job_id, f"params.{spelt}")
            path = list(value.path)
            parents.append({"job_id": job_id, "role": "value", "place": spelt, "path": path})
            return JobValue(job_id, value.path).document()

        if asked.refers:
            body = json.loads(document)
            if (of_job := JobStructure.read(body["atoms"])) is not None:
                of_job = of_job.of(self._whole(of_job.job_id, "structure"))
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
        spec = evolve(asked.spec, parents=[*asked.spec.parents, *parents])
        if submission.inherit_labels:
            spec = evolve(spec, labels=self._labels(submission, parents))
        return evolve(asked, spec=spec, document=document, submission=None)

    def _labels(self, submission: Submission, parents: Sequence[Parent]) -> dict[str, str]:
        labels: dict[str, str] = {}
        for parent in reversed(parents):
            labels |= self._job(parent["job_id"]).labels
        labels |= submission.labels
        try:
            check_fields(evolve(submission, labels=labels), {"labels"})
        except InvalidJob as error:
            raise InvalidJob(f"with the labels that it inherits: {error}") from error
        return labels

    def _after(self, item: str | Mapping[str, Any], place: str) -> Parent:
        ends = "ok"
        if isinstance(item, Mapping):
            with _said_of(place):
                given = checked(item, {"properties": _AFTER, "required": ["job_id"]})
            item, ends = given["job_id"], given.get("ends", "ok")
        job_id = self._whole(item, place)
        return cast("Parent", {"job_id": job_id, "role": "after", "awaited": ends})

    def _whole(self, given: object, place: str) -> str:
        """Return the id of the job that is meant, by its id, the beginning of it, or filters."""
        with _said_of(place):
            if isinstance(given, Mapping):
                return self._fitting(given)
            whole = len(text := str(given)) == ID_LENGTH
            if (position := _POSITION.fullmatch(text)) is not None:
                return self._at(int(position[1]), text)
            return self._job(text if whole else self.jobs.find(text)).job_id

    def _at(self, position: int, text: str) -> str:
        """Return the id of an earlier job of the request, counted from 0, or back from this one."""
        position += len(self._listed) if position < 0 else 0
        if not 0 <= position < len(self._listed):
            raise InvalidJob(
                f"{text!r} is no earlier job of the request, of which {len(self._listed)} come "
                "before this one; #0 is its first, #-1 the one before this"
            )
        job_id, name = self._listed[position]
        if job_id is None:
            raise NotSubmitted.of(position, name)
        return job_id

    def _fitting(self, filters: Mapping[str, Any]) -> str:
        """Return the one job that filters fit."""
        chosen = read_filters(cast("Any", _filters(filters)))
        left = [job.job_id for job in self.jobs.jobs(limit=100, **chosen)]
        if len(left) != 1:
            count = "no job fits" if not left else f"{len(left)} jobs fit"
            which = f": {', '.join(left[:_NAMED])}" if left else ""
            raise InvalidJob(f"{count} the filters {shown(dict(filters))}, and one must{which}")
        return left[0]

    def _job(self, job_id: str) -> JobMetadata:
        if job_id not in self._found:
            self._found[job_id] = self.jobs.job(job_id)
        return self._found[job_id]

    def look_up(self, job_ids: Iterable[str]) -> None:
        """Read jobs together that are asked for next."""
        missing = [job_id for job_id in dict.fromkeys(job_ids) if job_id not in self._found]
        self._found |= {job.job_id: job for job in self.jobs.some_jobs(missing)}

    # --- whether they have ended -------------------------------------------------------------

    def unfinished(self) -> list[JobMetadata]:
        """Return those of the jobs that were looked at that have not ended."""
        return [job for job in self._found.values() if not job.state.is_terminal()]

    def of_flow(self, job: JobMetadata, has_read: Callable[[JobMetadata], bool]) -> Outlook | None:
        """Return why a waiting step's flow does not let it go on; `has_read` the last outcome."""
        if (of_flow := step_of(job.parents)) is None:
            return None
        flow = self._job(of_flow[0])
        if flow.state.is_terminal():
            if repeated(job.parents) is not None:
                return None  # somebody wants it all the same
            told = f"its flow {flow.job_id} {flow.state.ended}"
            return Outlook(told, told, state=JobState.CANCELLED)
        # The pass that runs, or whose outcome is still to be read, may call it otherwise.
        is_open = flow.waits or (flow.stage == "pass" and flow.attempt > 1)
        return Outlook("") if is_open and not has_read(flow) else None

    def outlook(self, parents: Sequence[Parent]) -> Outlook:
        """Return what a job waits for, by its parents."""
        waits: dict[str, None] = {}
        broken: dict[str, str] = {}
        waited_for = awaited(parents)
        for parent in waited_for:
            job_id, said = parent["job_id"], self._missing(parent)
            if said == "":
                waits[job_id] = None
            elif said is not None:
                # One that is not on record is never retried.
                if parent.get("on_failure") == "fail" or job_id not in self._found:
                    return Outlook(said, f"it needs job {job_id}: {said}")
                broken[job_id] = said
        if not broken:
            return Outlook(_waits_for(list(waits), waited_for))
        job_id, said = next(iter(broken.items()))
        more = f" (so do {len(broken) - 1} more)" if len(broken) > 1 else ""
        return Outlook(
            f"waits for job {job_id}{more}: {said}; it goes on when that is retried with success "
            f"(crystalmath retry {job_id[:8]})",
            held_up_by=job_id,
            removed=said if self._found[job_id].state is JobState.COMPLETED else None,
        )

    def held_up(
        self, jobs: Iterable[JobMetadata], known: dict[str, Outlook | None] | None = None
    ) -> dict[str, Outlook]:
        """Return of those jobs that go on only after a retry why, also where others are between.

        What is found, also of those between, is kept in `known` for the next of many jobs.
        """
        known = {} if known is None else known
        waiting = [job for job in jobs if job.waits and job.stage is None]
        new = [job for job in waiting if job.job_id not in known]
        parents = dict.fromkeys(one["job_id"] for job in new for one in awaited(job.parents))
        asked = [job_id for job_id in parents if job_id not in known]
        before = self.jobs.ancestors(asked, limit=_MOST_WAITING)
        self.look_up(job_id for job_id, waits in before.items() if not waits)
        broken = {job_id for job_id in before if self._is_broken(job_id)}
        held = {job_id: outlook for job_id, outlook in known.items() if outlook is not None}
        if broken or held:
            self.look_up((*before, *parents))
            between = [self._found[one] for one in before if before[one] and one not in known]
            self._spread(held, {job.job_id: job for job in (*new, *between)}, known.keys())
        known |= dict.fromkeys((*(before.keys() - broken), *(job.job_id for job in new))) | held
        return {
            job.job_id: evolve(one, reason=f"waits for job {one.through}, which {one.reason}")
            if one.through is not None
            else one
            for job in waiting
            if (one := known[job.job_id]) is not None
        }

    def _spread(
        self, held: dict[str, Outlook], jobs: Mapping[str, JobMetadata], known: Collection[str]
    ) -> None:
        """Add to those that are held up which of some jobs are, themselves or through others."""
        seen = set(jobs).union(known)
        behind: dict[str, list[str]] = {}
        for job in (after := list(jobs.values())):
            outlook = self.outlook(job.parents) if job.waits and job.stage is None else Outlook()
            if outlook.held_up_by is not None:
                held[job.job_id] = outlook
            elif outlook.reason is not None:
                for source in (
                    self._source(one) for one in awaited(job.parents) if self._missing(one) == ""
                ):
                    behind.setdefault(source.job_id, []).append(job.job_id)
                    if source.job_id not in seen and len(after) < _MOST_WAITING:
                        seen.add(source.job_id)  # a retry, which waits itself
                        after.append(source)
        for between in (queue := list(held)):
            for job_id in behind.get(between, ()):
                if job_id not in held:
                    held[job_id] = evolve(held[between], through=between)
                    queue.append(job_id)

    def _is_broken(self, job_id: str) -> bool:
        """Return whether a job has ended, and does not give all that others may want of it."""
        job = self._found.get(job_id)
        if job is None or not job.state.is_terminal():
            return False
        return job.state is not JobState.COMPLETED or self._without_result(job) is not None

    def _without_result(self, job: JobMetadata) -> str | None:
        """Return why a completed job's result cannot be had; ``None`` while that is not known."""
        return job.without_files() or self.jobs.results.damage(job)

    def _missing(self, parent: Parent) -> str | None:
        """Return why a job is still waited for: empty while it goes on, else what went wrong."""
        try:
            self._job(parent["job_id"])
        except UnknownJob as error:
            return str(error)
        job = self._source(parent)
        if parent["awaited"] == "any":
            return None if job.state.is_terminal() else ""
        if parent.get("frame") == 0 and not (job.waits and awaits_structure(job.parents)):
            return None  # what it was given is known already
        if not job.state.is_terminal():
            return ""
        said: str | None = f"job {job.job_id} {job.state.ended}"
        if job.state is JobState.COMPLETED:
            said = self._without_result(job) if parent["role"] != "after" else None
        return "" if said and job.job_id in self._planned else said

    def _source(self, parent: Parent) -> JobMetadata:
        """Return the job that gives what is wanted: the one that is named, or a retry of it."""
        if parent.get("frame") == 0 or parent.get("awaited") == "any":
            return self._job(parent["job_id"])
        seen: set[str] = set()
        tries = [parent["job_id"]]
        for job_id in tries:
            if job_id not in seen:
                seen.add(job_id)
                job = self._job(job_id)
                if job.state is JobState.COMPLETED and not self._without_result(job):
                    return job
                if job.state.is_terminal():
                    if job_id not in self._again:
                        self._again[job_id] = self.jobs.retries_of(job_id)
                    tries += self._again[job_id]
        last = [self._job(job_id) for job_id in tries]
        unfinished = (job for job in reversed(last) if not job.state.is_terminal())
        completed = (job for job in last if job.state is JobState.COMPLETED)
        return next(unfinished, None) or next(completed, None) or last[-1]

    # --- what they give ----------------------------------------------------------------------

    def settled(self, asked: AskedJob) -> AskedJob:
        """Put in the values of the jobs that a submission refers to, once all of them have ended.

        `UnknownJob`: there is no such job. `InvalidJob`: not one job fits, or one has failed, or
        does not have that value. `FilesRemoved`: the files of one were removed.
        """
        if asked.submission is not None:
            asked = self._named(asked, asked.submission)
        parents = asked.spec.parents
        if not awaited(parents):
            return asked
        self.look_up(parent["job_id"] for parent in parents)
        while True:
            outlook, sources = self.outlook(parents), self._sources(parents)
            if outlook.reason is not None:
                return self._unsettled(asked, outlook)
            try:
                return self._with_values(asked)
            except (BadFile, FilesRemoved):
                # Now that this is known, a retry may stand in for it, or be waited for.
                if (outlook, sources) == (self.outlook(parents), self._sources(parents)):
                    raise

    def _sources(self, parents: Sequence[Parent]) -> list[str]:
        return [self._source(parent).job_id for parent in awaited(parents)]

    def _unsettled(self, job: AskedJob, outlook: Outlook) -> AskedJob:
        """Have a job wait, unless what it waits for has failed for good."""
        parents = job.spec.parents
        # A step that its flow has just called waits all the same: it fails as one that has waited,
        # and the next pass tells the body of the failure.
        if outlook.failed is not None and not (job.is_step and repeated(parents) is None):
            raise InvalidJob(outlook.failed)
        if outlook.removed is not None:
            raise FilesRemoved(recomputed(outlook.removed, str(outlook.held_up_by)))
        spec = evolve(job.spec, asked_hash=job.spec_hash)
        findings = (*job.findings, *([_waits(str(outlook.reason))] if outlook.held_up_by else ()))
        findings += tuple(self._without_geometry(parents))
        formula = self._formula(parents)
        return evolve(job, spec=spec, reason=outlook.reason, findings=findings, formula=formula)

    def _with_values(self, job: AskedJob) -> AskedJob:
        """Put in the values of jobs that have all ended well."""
        parents = job.spec.parents
        given = [self._given(parent) for parent in parents]
        spec = evolve(job.spec, parents=given, asked_hash=job.spec_hash)
        job = evolve(job, findings=(*job.findings, *self._without_large_files(parents)))
        if not job.refers:
            return evolve(job, spec=spec)
        return self._put_in(evolve(job, spec=spec, refers=False), parents)

    def _given(self, parent: Parent) -> Parent:
        """Return a parent that is not waited for any more."""
        told = {k: v for k, v in parent.items() if k not in {"awaited", "on_failure"}}
        if parent.get("awaited") == "ok":
            source = self._source(parent).job_id
            told |= {"taken_from": source} if source != parent["job_id"] else {}
        return cast("Parent", told)

    def _put_in(self, asked: AskedJob, parents: Sequence[Parent]) -> AskedJob:
        body = json.loads(asked.document)
        later = [parent for parent in parents if parent.get("frame") != 0]
        sources = {parent["job_id"]: self._source(parent) for parent in reversed(later)}
        if asked.is_step:
            body = with_values(body, lambda one, _: self._read(sources[str(one.job_id)], one.path))
            return with_arguments(evolve(asked, document=codec.body_text(body)))

        def give(value: JobValue, place: tuple[Any, ...]) -> Any:
            try:
                return as_data(self._value(sources[str(value.job_id)], value.path))
            except InvalidJob as error:
                raise InvalidJob(f"params.{place_name(place)}: {error}") from error

        atoms, structure = asked.spec.atoms, body["atoms"] and body["atoms"].get("data")
        if (of_job := JobStructure.read(body["atoms"])) is not None:
            named = of_job.frame == 0
            source = self._job(str(of_job.job_id)) if named else sources[str(of_job.job_id)]
            atoms, structure = parse_and_keep(self._geometry(source, of_job))
            told = self._without_moments(source, atoms)
            asked = evolve(asked, findings=(*asked.findings, *told))
        parameters = with_classes(
            asked.spec.recipe, codec.decode_request(with_values(body["parameters"], give))
        )
        text = codec.body_text(codec.body_of(structure, parameters))
        return evolve(
            asked, spec=evolve(asked.spec, atoms=atoms, parameters=parameters), document=text
        )

    def _value(self, job: JobMetadata, path: tuple[str | int, ...]) -> Any:
        """Return a value of a job's result as it is stored."""
        key = (job.job_id, path)
        if key not in self._values:
            try:
                found = self._read(job, path)
                self._values[key] = _without_host(found) if path[-1:] == ("dir_name",) else found
            except InvalidJob:
                if path != ("dir_name",):
                    raise
                # A recipe that does not tell where it ran has run in the job's work directory.
                place = str(self.jobs.work_directory(job.job_id))
                self._values[key] = {"@module": "pathlib", "@class": "Path", "string": place}
        return self._values[key]

    def _read(self, job: JobMetadata, path: tuple[str | int, ...]) -> Any:
        results, text, at = self.jobs.results, b"", 0
        if path and isinstance(path[0], str) and _KEY.fullmatch(path[0]):
            with contextlib.suppress(InvalidJob):  # the whole tells which keys there are
                text, at = results.part(job, results.locate(job, path[0])), 1
        node = json.loads(text or b"".join(results.chunks(job)))
        if at and not isinstance(node, dict):
            with contextlib.suppress(InvalidJob):  # nothing in it is a scalar of numpy's
                types = json.loads(results.part(job, results.locate(job, NUMPY)))
                node = with_numpy_types(node, types.get(path[0]))
        for index in range(at, len(path)):
            try:
                node = _member(node, path[index])
            except _NoMemberError as error:
                where = _indices(path[:index]) or "it"
                raise InvalidJob(
                    f"the result of job {job.job_id} ({job.recipe}) has no {_indices(path)}; "
                    f"{where} {error}"
                ) from None
        if (job.summary or {}).get("as_text"):
            self._require_form(job, node, path)
        return node

    def _require_form(self, job: JobMetadata, node: Any, path: tuple[str | int, ...]) -> None:
        """Raise `InvalidJob` if a value holds what is kept as text alone."""
        for place, kind in formless(node, path):
            raise InvalidJob(
                f"the result{_indices(place)} of job {job.job_id} ({job.recipe}) is {kind}, which "
                "has no form in JSON: only its text is kept, and no job takes that for the value; "
                "take a part of the result that has one, or have the recipe return numbers, texts, "
                "arrays, structures or dicts of such"
            )

    # --- geometries --------------------------------------------------------------------------

    def given(self, job: JobMetadata) -> dict[str, Any] | None:
        """Return the structure that a job was given, if there was one, as it is stored."""
        text = getattr(job, "specification", None) or self.jobs.specification(job.job_id)
        document = text.split("\n", 1)[1]
        structure = structure_of(json.loads(document))
        return None if structure is None or "data" not in structure else structure

    def expected(self, parents: Sequence[Parent]) -> Mapping[str, Any] | None:
        """Return a structure of the known atoms that a waiting job will get."""
        for _ in range(_FAR):
            waited_for = awaited(parents)
            sources = [parent for parent in waited_for if parent["role"] == "structure"]
            if not sources or any(parent["role"] == "value" for parent in waited_for):
                return None
            job = self._job(sources[0]["job_id"])
            if not self._gives_its_atoms(job, sources[0]):
                return None
            if (given := self.given(job)) is not None:
                return given
            parents = job.parents
        return None

    def _gives_its_atoms(self, job: JobMetadata, parent: Parent) -> bool:
        """Return whether what is taken of a job are the atoms that it was given, at most moved."""
        moves = is_quaccs(job.recipe) and moves_atoms_alone(job.recipe, self.jobs.config)
        return parent.get("frame") == 0 or (moves and parent.get("path", ["atoms"]) == ["atoms"])

    def _without_geometry(self, parents: Sequence[Parent]) -> Iterator[Finding]:
        """Find flows whose geometry is awaited and whose results have several, none of them final.

        It is a warning: of one calculation in a list the geometry is taken.
        """
        for parent in parents:
            whole = parent["role"] == "structure" and not parent.get("path")
            if not whole or parent.get("frame", -1) >= 0:
                continue
            recipe = self._job(parent["job_id"]).recipe
            with contextlib.suppress(InvalidJob):  # it may not be admitted any more
                if returns := returns_beside(look_up(recipe, self.jobs.config.recipes_allow)):
                    yield Finding(
                        severity="warning",
                        code="structure_of_several",
                        message=f"{recipe} returns calculations beside each other ({returns}); "
                        "where these are several, none is its final one, and this job fails",
                        remedy="name one by its place in the result: job:ID:static.0.atoms, or "
                        "future['static'][0]['atoms'] from Python",
                        place="structure",
                    )

    def _without_moments(self, job: JobMetadata, atoms: Atoms) -> Iterator[Finding]:
        """Find jobs that were given magnetic moments, and whose geometry has lost all of them.

        They may have vanished; or nobody has read them: of pw.x 6, ASE takes another column.
        """
        if not atoms.has("initial_magmoms") or atoms.get_initial_magnetic_moments().any():
            return
        given = self.given(job)
        if given is not None and parse_structure(given).get_initial_magnetic_moments().any():
            yield Finding(
                severity="warning",
                code="moments_lost",
                message=f"the geometry of job {job.job_id} has no magnetic moments, though the job "
                "was given some: this one begins without",
                remedy="look whether the program's output has them: ASE reads 0 from that of pw.x "
                "6; if so, submit a structure that has them",
                place="structure",
            )

    def _without_large_files(self, parents: Sequence[Parent]) -> Iterator[Finding]:
        """Find jobs whose folder is taken, and whose large files were removed.

        pw.x begins a calculation of bands from free atoms where there is no density, and says so in
        its output alone. It is a warning: a relaxation needs no wave functions.
        """
        for parent in awaited(parents):
            if parent.get("path", [])[-1:] != ["dir_name"]:
                continue
            if (job := self._source(parent)).removed == "heavy":
                yield Finding(
                    severity="warning",
                    code="large_files_removed",
                    message=f"the wave functions, densities and the like of job {job.job_id} were "
                    "removed: a calculation that goes on from them fails, or begins without",
                    remedy=f"crystalmath retry {job.job_id[:8]} makes them anew",
                    place=f"params.{parent.get('place')}",
                )

    def _formula(self, parents: Sequence[Parent]) -> str | None:
        """Return the formula of the structure that a waiting job will get, if it is known."""
        for parent in parents:
            if parent["role"] == "structure":
                job = self._job(parent["job_id"])
                return job.formula if self._gives_its_atoms(job, parent) else None
        return None

    def _geometry(self, job: JobMetadata, asked: JobStructure) -> Atoms | dict[str, Any]:
        """Return a job's geometry as a submission may have it.

        A final geometry has the tags, constraints and magnetic moments that its recipe gave it:
        where a calculation has moments of its own (VASP), quacc hands these on. What of these the
        recipe's result does not tell is as the job was given it.
        """
        if asked.frame == 0:
            given = self.given(job)
            if given is None:
                raise InvalidJob(
                    f"job {job.job_id} was given no structure: {job.recipe} takes none, and there "
                    "is none to go on with"
                )
            return given

        if asked.path is not None:
            where = "".join(f"[{step!r}]" for step in asked.path)
            text = json.dumps(self._value(job, asked.path)).encode()
            try:
                return self._completed(read_structure(text, f"its result{where} is"), job)
            except InvalidJob as error:
                raise InvalidJob(f"structure: job {job.job_id}: {error}") from error
        try:
            atoms = self._of_result(job, asked.frame)
        except InvalidJob as error:
            raise InvalidJob(f"job {job.job_id} ({job.recipe}): {error}") from error
        return self._completed(atoms, job)

    def _of_result(self, job: JobMetadata, frame: int | None) -> Atoms:
        found = find_structures(b"".join(self.jobs.results.chunks(job)))
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


def _filters(given: Mapping[str, Any]) -> Mapping[str, Any]:
    return checked(given, {"properties": properties(JobFilter)})


@contextlib.contextmanager
def _said_of(place: str) -> Iterator[None]:
    """Say at which place of a submission the error is."""
    try:
        yield
    except NotSubmitted:
        raise
    except (UnknownJob, InvalidJob) as error:
        error.args = (f"{place}: {error}",)
        raise


def _waits_for(job_ids: Sequence[str], awaited: Sequence[Parent]) -> str | None:
    """Say which jobs one waits for that go on."""
    if len(job_ids) > _NAMED:
        # How many there were at first: it would be another text at each of their ends.
        return f"waits for {len({parent['job_id'] for parent in awaited})} jobs"
    if len(job_ids) > 1:
        return f"waits for the jobs {', '.join(job_ids)}"
    return f"waits for job {job_ids[0]}" if job_ids else None


def _waits(reason: str) -> Finding:
    """Warn of a job that waits for one that has failed."""
    return Finding(severity="warning", code="predecessor_failed", message=f"the job {reason}")


class _NoMemberError(Exception):
    """A path does not go on; the text says what there is, as the end of a sentence."""


def _member(node: Any, step: str | int) -> Any:
    """Go one step on in a result as it is stored."""
    if isinstance(node, dict) and node.get(AS_TEXT) is True:
        raise _NoMemberError(f"is {node.get('type')}, which has no form in JSON")
    if isinstance(node, dict) and "@module" in node:
        tag = (node["@module"], node.get("@class"))
        if tag == ("builtins", "dict"):
            return _at({_hashable(key): item for key, item in node["items"]}, step)
        if tag == ("builtins", "tuple"):
            return _at(node["data"], step)
        if tag == ("numpy", "array"):
            return ResultEncoder().encode(_at(ResultDecoder().decode(node, ()), step), ())
        if tag[0] == "numpy":
            return _at(node["data"], step)
        if tag[0] == "pymatgen.io.ase":
            raise _NoMemberError("is a structure, into which no path leads")
    found, types = _at(node, step), node.get(NUMPY) if isinstance(node, dict) else None
    return with_numpy_types(found, types.get(step)) if isinstance(types, dict) else found


def _at(node: Any, step: str | int) -> Any:
    if isinstance(node, Mapping):
        if step in node:
            return node[step]
        keys = [repr(key) for key in node if not str(key).startswith("@")]
        more = ", ..." if len(keys) > 30 else ""  # noqa: PLR2004 - a line of them
        raise _NoMemberError(f"has the keys {', '.join(keys[:30])}{more}")
    # An array without dimensions has `__len__`, which raises.
    if isinstance(node, str) or not hasattr(node, "__len__") or getattr(node, "shape", None) == ():
        raise _NoMemberError(f"is {shown(node)}")
    if not isinstance(step, int):
        raise _NoMemberError(f"has {len(node)} items, which are counted from 0")
    try:
        return node[step]
    except IndexError:
        raise _NoMemberError(f"has {len(node)} items") from None


def _indices(path: Iterable[object]) -> str:
    return "".join(f"[{step!r}]" for step in path)


def _hashable(key: Any) -> Any:
    return json.dumps(key) if isinstance(key, (list, dict)) else key


def _without_host(node: Any) -> Any:
    """Take off the host that emmet writes before a directory, node17:/scratch/run."""
    if isinstance(node, str):
        return re.sub(r"^[\w.-]+:(?=/)", "", node)
    return node
