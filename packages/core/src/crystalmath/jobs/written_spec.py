"""The header of ``spec`` in a run directory, as a record.

:meth:`.JobSpec.header` writes the fields of a submission under their own names, and `spec_header`
adds who runs the job. All readers use `WrittenSpec`, so an option of a submission has one name from
the client to the worker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from attrs import fields_dict, frozen

from crystalmath.errors import BadFile, InvalidJob
from crystalmath.models.resources import Resources
from crystalmath.models.submission import JobSpec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    class _HasHeader(Protocol):
        def read_header(self) -> Mapping[str, Any]: ...


def spec_header(spec: JobSpec, engine: str, owner: Mapping[str, Any]) -> dict[str, Any]:
    """Return the header of a specification that its owner hands to an engine."""
    attempt = spec.flow["attempt"] if spec.flow else 1
    return {**spec.header(), "attempt": attempt, "engine": engine, "owner": owner}


@frozen(kw_only=True)
class WrittenSpec(JobSpec):
    """The header of ``spec``: a submission without structure and parameters, and who runs it."""

    #: The attempt that may be claimed.
    attempt: int
    #: The process that owns the job, as it describes itself; empty if the job was let go.
    owner: Any = None
    #: The capabilities of the engine that processes without the engine need.
    capabilities: Mapping[str, bool] | None = None

    @classmethod
    def of(cls, header: Mapping[str, Any]) -> Self:
        """Make the record of a header that any release has written.

        Raises
        ------
        BadFile
            The header has values that no release writes.
        """
        known = {name: header[name] for name in _NAMES if header.get(name) is not None}
        try:
            known["resources"] = Resources.read(known.get("resources", {}))
            return cls(**{"recipe": "", **known})
        except (InvalidJob, TypeError, ValueError) as error:
            raise BadFile(f"the specification of job {header.get('job_id')} has {error}") from error

    @classmethod
    def read(cls, directory: _HasHeader) -> Self:
        """Read the header of a run directory's ``spec``."""
        return cls.of(directory.read_header())

    @property
    def pass_from(self) -> int | None:
        """The attempt with which the present pass of a flow began; ``None`` for other jobs."""
        return self.flow.get("attempt") if isinstance(self.flow, dict) else None


_NAMES = tuple(fields_dict(WrittenSpec))
