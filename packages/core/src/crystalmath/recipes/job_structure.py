"""References to geometries and values of other jobs, on the wire and as people write them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from attrs import evolve, frozen

from crystalmath.errors import InvalidJob, UnknownJob, did_you_mean, shown
from crystalmath.models.reference import JOB, JobValue, read_reference
from crystalmath.recipes.json_text import place_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from crystalmath.models.job_notes import Parent

_FORMAT = "job"


def with_values(
    value: Any, replace: Callable[[JobValue, tuple[Any, ...]], Any], place: tuple[Any, ...] = ()
) -> Any:
    """Return parameters in which `replace` has replaced each reference."""
    if isinstance(value, JobValue):
        return replace(value, place)
    if isinstance(value, dict):
        if JOB in value:
            return replace(read_reference(value, place_name(place)), place)
        return {key: with_values(item, replace, (*place, key)) for key, item in value.items()}
    for kind in (list, tuple, set, frozenset):
        if isinstance(value, kind):
            return kind(with_values(item, replace, (*place, at)) for at, item in enumerate(value))
    return value


def as_data(value: Any) -> Any:
    """Return a value as JSON data with no dict that reads as a reference (``$job``)."""
    if isinstance(value, dict):
        members = {key: as_data(item) for key, item in value.items()}
        if JOB not in members:
            return members
        items = [[key, item] for key, item in members.items()]
        return {"@module": "builtins", "@class": "dict", "items": items}
    return [as_data(item) for item in value] if isinstance(value, list) else value


def references_in(value: object) -> dict[str, JobValue]:
    """Return the references in parameters by their places."""
    references: dict[str, JobValue] = {}
    with_values(value, lambda one, place: references.update({place_name(place): one}))
    return references


@frozen
class JobStructure:
    """A reference to a geometry of a job."""

    #: The job's id, its beginning, or filters that fit it alone.
    job_id: str | Mapping[str, Any]
    #: Counted from 0, the geometry that the job started from; negative numbers count from the end.
    #: Default: its final geometry.
    frame: int | None = None
    #: The path of the geometry in the result; ``None``: that of the job's own geometry.
    path: tuple[str | int, ...] | None = None

    @classmethod
    def read(cls, structure: object) -> Self | None:
        """Read a document of :meth:`document`; ``None`` for a structure that is no reference.

        Raises `InvalidJob`: a part of it cannot be used. `UnknownJob`: its id can be no job's.
        """
        if isinstance(structure, JobValue):
            return cls(structure.job_id, path=structure.path)
        if not isinstance(structure, Mapping):
            return None
        if JOB in structure:
            return cls.read(read_reference(structure, "structure"))
        if structure.get("format") != _FORMAT:
            return None
        for name in structure.keys() - {"format", "job_id", "frame"}:
            raise InvalidJob(
                f"the structure has an unknown key {shown(name)} beside format, job_id and frame"
            )
        job_id, frame = structure.get("job_id"), structure.get("frame")
        if not isinstance(job_id, (str, Mapping)) or not job_id:
            raise UnknownJob(job_id)
        if frame is not None and (not isinstance(frame, int) or isinstance(frame, bool)):
            raise InvalidJob(f"the structure's 'frame' must be an integer, not {shown(frame)}")
        return cls(job_id, frame)

    def document(self) -> dict[str, Any]:
        """Return the reference as ``jobs.submit`` takes it."""
        if self.path is not None:
            return JobValue(self.job_id, self.path).document()
        frame = {} if self.frame is None else {"frame": self.frame}
        return {"format": _FORMAT, "job_id": self.job_id, **frame}

    def of(self, job_id: str) -> Self:
        """Return the reference with the whole id of its job."""
        return evolve(self, job_id=job_id)

    def parent(self, job_id: str) -> Parent:
        """Return the record of the parent, by its whole id."""
        parent: Parent = {"job_id": job_id, "role": "structure"}
        if self.frame is not None:
            parent["frame"] = self.frame
        if self.path is not None:
            parent["path"] = list(self.path)
        return parent


def geometry_of(structure: object) -> JobValue | None:
    """Return a reference to a job's final geometry as a value; ``None`` for other structures.

    Raises `InvalidJob`: it refers to another geometry of the job.
    """
    of_job = JobStructure.read(structure)
    if of_job is None:
        return None
    if of_job.frame not in {None, -1}:
        raise InvalidJob(
            "structures that are taken together can be the final geometries of jobs (job:ID), "
            f"not @{of_job.frame}"
        )
    path = ("atoms",) if of_job.path is None else of_job.path
    return JobValue(of_job.job_id, path)


_TEXT = re.compile(
    r"""job:(?P<job>(?:[^:@"']|"[^"]*"|'[^']*')+)(?::(?P<path>[^:@]*))?(?:@(?P<frame>-?[0-9]{1,9}))?"""
)
#: The filters of lists that may replace an id.
_FILTERS = ("label", "name", "recipe", "state", "formula", "engine", "cluster", "error")


def read_job_text(text: str) -> JobStructure | None:
    """Read ``job:ID@0`` and its like; ``None``: no reference. `InvalidJob`: an incomplete one."""
    if not text.startswith("job:") or "\n" in text:
        return None
    match = _TEXT.fullmatch(text)
    if match is None or (match["path"] is not None and match["frame"] is not None):
        raise InvalidJob(
            f"{shown(text)} names no job's geometry; write job:ID for the final one of a job, "
            "job:ID@0 for its first one, job:ID:results.energy for a part of its result; filters "
            "that fit one job may replace its id: job:label step=relax"
        )
    path, frame = match["path"], match["frame"]
    return JobStructure(
        read_job(match["job"]),
        None if frame is None else int(frame),
        None if path is None else read_path(path),
    )


def as_value(of_job: JobStructure) -> dict[str, Any]:
    """Return a reference as a parameter; without a path it is the job's directory."""
    if of_job.frame is not None:
        raise InvalidJob(
            f"job:ID@{of_job.frame} cannot be a parameter; job:ID is the job's directory, "
            'job:ID:atoms its final geometry, "job:..." in quotes a text'
        )
    path = ("dir_name",) if of_job.path is None else of_job.path
    return JobValue(of_job.job_id, path).document()


def read_job(text: str) -> str | dict[str, Any]:
    """Read an id, or filters of one job, ``label step=relax recipe emt.core`` (`InvalidJob`)."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InvalidJob(f"{shown(text)} cannot be read: {error}") from error
    if len(words) <= 1:  # an id
        return text
    if len(words) % 2:
        raise InvalidJob(
            f"{shown(text)} must be filters with their values, as label step=relax, or an id"
        )
    filters: dict[str, Any] = {}
    for name, value in zip(words[::2], words[1::2], strict=True):
        key, equals, of_label = value.partition("=")
        if name not in _FILTERS:
            raise InvalidJob(f"there is no filter {name!r}; {did_you_mean(name, _FILTERS)}")
        if name != "label":
            if name in filters:
                raise InvalidJob(f"{shown(text)} has the filter {name!r} twice")
            filters[name] = value
        elif not equals or not key or key in filters.get("labels", {}):
            raise InvalidJob(f"{shown(text)}: write each label once, label KEY=VALUE")
        else:
            filters.setdefault("labels", {})[key] = of_label
    return filters


def read_path(text: str) -> tuple[str | int, ...]:
    """Read a path into a result, ``static.0.atoms``; an empty one is the whole result."""
    keys = text.split(".") if text else []
    return tuple(int(key) if re.fullmatch(r"-?[0-9]{1,9}", key) else key for key in keys)
