"""A part of another job's result, also before that job has ended."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any, NoReturn

from attrs import frozen

from crystalmath.errors import InvalidJob, shown

__all__ = ["Reference"]

#: The member of a parameter on the wire that names the job of the result.
JOB = "$job"
#: The member that names the step of the result, in reports of a pass of a flow to its owner.
STEP = "$step"


@frozen
class JobValue:
    """The place of a value in a job's result, as submissions are read.

    This record is plain. A `Reference` has the methods of values, to refuse them, so abstract
    classes as `os.PathLike` and `Sized`, and checks of parameters, would take it for a value.
    """

    job_id: str | Mapping[str, Any]
    path: tuple[str | int, ...] = ()

    def document(self) -> dict[str, Any]:
        """Write it as ``jobs.submit`` takes it, as the structure or inside the parameters."""
        return {JOB: self.job_id, "path": list(self.path)}


@frozen(repr=False)
class Reference(JobValue):
    """A part of a job's result, in whatever state the job is.

    ``future["atoms"]`` makes one. It can be indexed further, copied, and given to a submission as
    its structure or anywhere inside its parameters: that job waits until this one has completed,
    and gets the value then. All other use raises `TypeError`, because there is no value yet; only
    `repr` and `str` name it.

    Parameters
    ----------
    job_id : str or mapping
        The job's id, its beginning, or filters that fit it alone; in the steps of a chain the name
        of an earlier step.
    path : tuple of (str or int)
        Keys and positions in the result; empty for the whole of it.
    """

    def __getitem__(self, key: str | int) -> Reference:
        """Return the reference to a member of the value, which need not exist."""
        if not isinstance(key, str):
            try:
                key = operator.index(key)
            except TypeError:
                raise TypeError(
                    f"{self!r} is indexed by a key of the result or a position, "
                    f"not by {key!r:.80} ({type(key).__name__})"
                ) from None
        return Reference(self.job_id, (*self.path, key))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Reference):
            raise TypeError(_refusal(self, "the method '__eq__'"))
        return (self.job_id, self.path) == (other.job_id, other.path)

    def __hash__(self) -> int:
        return hash((self.job_id, self.path))

    def __repr__(self) -> str:
        keys = "".join(f"[{key!r}]" for key in self.path)
        return f"<Reference to result{keys} of job {self.job_id}>"

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(_refusal(self, f"the attribute {name!r}"))


def read_reference(value: Mapping[str, Any], place: str) -> JobValue:
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
    return JobValue(job_id, tuple(path))


def _refusal(reference: Reference, missing: str) -> str:
    keys = "".join(f"[{key!r}]" for key in reference.path)
    return (
        f"{reference!r} is not the value itself, and lacks {missing}; pass it to a submission, or "
        f"wait for the value: client.future({reference.job_id!r}).result(){keys}"
    )


#: The methods of values that Python looks up on the type. Without `__iter__` a loop would index for
#: ever.
_OF_VALUES = [
    *("bool", "len", "iter", "contains", "call", "int", "float", "complex", "index", "round"),
    *("lt", "le", "gt", "ge", "neg", "pos", "abs", "setitem", "delitem", "array", "fspath"),
    *("format", "divmod", "rdivmod", "lshift", "rlshift", "rshift", "rrshift", "xor", "rxor"),
    *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or"),
    *("radd", "rsub", "rmul", "rtruediv", "rfloordiv", "rmod", "rpow", "rmatmul", "rand", "ror"),
]


def _refuse(name: str) -> Any:
    def method(self: Reference, *_: object, **__: object) -> NoReturn:
        raise TypeError(_refusal(self, f"the method {name!r}"))

    return method


for _name in _OF_VALUES:
    setattr(Reference, f"__{_name}__", _refuse(f"__{_name}__"))
