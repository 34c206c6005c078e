"""References to other jobs: to a geometry in the place of a structure, to a value in parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from attrs import evolve, frozen

from crystalmath.errors import InvalidJob, UnknownJob, shown
from crystalmath.models.reference import JOB
from crystalmath.recipes.json_text import place_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from crystalmath.models.job_notes import Parent

_FORMAT = "job"


@frozen
class JobValue:
    """Which value of which job's result is meant."""

    #: The job's id, its beginning, or filters that fit it alone.
    job_id: str | Mapping[str, Any]
    #: The keys and numbers that lead to the value; empty: the whole result.
    path: tuple[str | int, ...] = ()

    @classmethod
    def read(cls, value: Mapping[str, Any], place: str) -> Self:
        """Read ``{"$job": ID, "path": [...]}``; `InvalidJob` names the place where it stands."""
        for name in value.keys() - {JOB, "path"}:
            raise InvalidJob(
                f"{place}: a reference to a job has an unknown key {shown(name)} beside "
                f"'{JOB}' and 'path'"
            )
        job_id, path = value[JOB], value.get("path")
        if not isinstance(job_id, (str, Mapping)) or not job_id:
            raise InvalidJob(f"{place}: '{JOB}' must be a job's id, not {shown(job_id)}")
        path = [] if path is None else path
        if not isinstance(path, (list, tuple)) or not all(type(x) in {str, int} for x in path):
            raise InvalidJob(
                f"{place}: 'path' must be a list of keys and whole numbers, not {shown(path)}"
            )
        return cls(job_id, tuple(path))

    def document(self) -> dict[str, Any]:
        """Write it as ``jobs.submit`` takes it."""
        return {JOB: self.job_id, "path": list(self.path)}


def with_values(
    value: Any, give: Callable[[JobValue, tuple[Any, ...]], Any], place: tuple[Any, ...] = ()
) -> Any:
    """Return parameters as JSON with what `give` returns in the place of each reference."""
    if isinstance(value, dict):
        if JOB in value:
            return give(JobValue.read(value, place_name(place)), place)
        return {key: with_values(item, give, (*place, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [with_values(item, give, (*place, at)) for at, item in enumerate(value)]
    return value


def values_in(value: object, place: tuple[Any, ...] = ()) -> Iterator[tuple[str, object]]:
    """Find the references in decoded parameters, each with its place."""
    if isinstance(value, JobValue) or (isinstance(value, Mapping) and JOB in value):
        yield place_name(place), value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from values_in(item, (*place, key))
    elif isinstance(value, (list, tuple)):
        for at, item in enumerate(value):
            yield from values_in(item, (*place, at))


@frozen
class JobStructure:
    """Which geometry of which job is meant."""

    #: The job's id, its beginning, or filters that fit it alone.
    job_id: str | Mapping[str, Any]
    #: Counted from 0, which is what the job was given; from the end where it is negative. Default:
    #: its final geometry.
    frame: int | None = None
    #: Where in the result it stands; ``None``: the job's geometry, wherever that is.
    path: tuple[str | int, ...] | None = None

    @classmethod
    def read(cls, structure: object) -> Self | None:
        """Read what :meth:`document` wrote; ``None`` for a structure that is meant otherwise.

        Raises `InvalidJob`: something in it cannot be used. `UnknownJob`: its id can be no job's.
        """
        if isinstance(structure, JobValue):
            return cls(structure.job_id, path=structure.path)
        if not isinstance(structure, Mapping):
            return None
        if JOB in structure:
            return cls.read(JobValue.read(structure, "structure"))
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
        """Write it as ``jobs.submit`` takes it."""
        if self.path is not None:
            return JobValue(self.job_id, self.path).document()
        frame = {} if self.frame is None else {"frame": self.frame}
        return {"format": _FORMAT, "job_id": self.job_id, **frame}

    def of(self, job_id: str) -> Self:
        """Return the same of a job that is named by its whole id."""
        return evolve(self, job_id=job_id)

    def parent(self, job_id: str) -> Parent:
        """Record whose geometry it was, by the whole id."""
        parent: Parent = {"job_id": job_id, "role": "structure"}
        if self.frame is not None:
            parent["frame"] = self.frame
        if self.path is not None:
            parent["path"] = list(self.path)
        return parent
