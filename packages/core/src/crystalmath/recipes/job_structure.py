"""A job's geometry in the place of a structure: ``job:ID``, or an object on the wire."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from attrs import frozen

from crystalmath.errors import InvalidJob, UnknownJob, shown

if TYPE_CHECKING:
    from crystalmath.models.job_notes import Parent

_FORMAT = "job"
_TEXT = re.compile(r"job:(?P<job_id>[^@\s]+)(?:@(?P<frame>-?[0-9]{1,9}))?")


@frozen
class JobStructure:
    """Which geometry of which job is meant."""

    #: The job's id, or its beginning.
    job_id: str
    #: Counted from 0, which is what the job was given; from the end where it is negative. Default:
    #: its final geometry.
    frame: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read ``job:ID`` and ``job:ID@N``; ``None`` for a text that is meant otherwise.

        Raises `InvalidJob`: it begins so, and goes on otherwise.
        """
        if not text.startswith("job:") or "\n" in text:
            return None
        found = _TEXT.fullmatch(text)
        if found is None:
            raise InvalidJob(
                f"{shown(text)} names no job's geometry; write job:ID for the final one of a job, "
                "job:ID@0 for what it was given"
            )
        frame = found["frame"]
        return cls(found["job_id"], None if frame is None else int(frame))

    @classmethod
    def read(cls, structure: object) -> Self | None:
        """Read what :meth:`document` wrote; ``None`` for a structure that is meant otherwise.

        Raises `InvalidJob`: something in it cannot be used. `UnknownJob`: its id can be no job's.
        """
        if not isinstance(structure, Mapping) or structure.get("format") != _FORMAT:
            return None
        for name in structure.keys() - {"format", "job_id", "frame"}:
            raise InvalidJob(
                f"the structure has an unknown key {shown(name)} beside format, job_id and frame"
            )
        job_id, frame = structure.get("job_id"), structure.get("frame")
        if not isinstance(job_id, str) or not job_id:
            raise UnknownJob(job_id)
        if frame is not None and (not isinstance(frame, int) or isinstance(frame, bool)):
            raise InvalidJob(f"the structure's 'frame' must be an integer, not {shown(frame)}")
        return cls(job_id, frame)

    def document(self) -> dict[str, Any]:
        """Write it as ``jobs.submit`` takes it."""
        frame = {} if self.frame is None else {"frame": self.frame}
        return {"format": _FORMAT, "job_id": self.job_id, **frame}

    def parent(self, job_id: str) -> Parent:
        """Record whose geometry it was, by the whole id."""
        parent: Parent = {"job_id": job_id, "role": "structure"}
        if self.frame is not None:
            parent["frame"] = self.frame
        return parent
