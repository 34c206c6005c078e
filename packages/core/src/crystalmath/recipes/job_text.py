"""Another job as people write it: ``job:ID``, ``job:ID@FRAME``, ``job:ID:PATH``."""

from __future__ import annotations

import re
import shlex
from typing import Any

from crystalmath.errors import InvalidJob, did_you_mean, shown
from crystalmath.models.reference import Reference
from crystalmath.recipes.job_structure import JobStructure

_TEXT = re.compile(
    r"""job:(?P<job>(?:[^:@"']|"[^"]*"|'[^']*')+)(?::(?P<path>[^:@]*))?(?:@(?P<frame>-?[0-9]{1,9}))?"""
)
#: The filters of lists that may stand in the place of an id.
_FILTERS = ("label", "name", "recipe", "state", "formula", "engine", "cluster", "error")


def read_job_text(text: str) -> JobStructure | None:
    """Read such a text; ``None`` for one that does not begin with ``job:``.

    Raises `InvalidJob`: it begins so, and goes on otherwise.
    """
    if not text.startswith("job:") or "\n" in text:
        return None
    found = _TEXT.fullmatch(text)
    if found is None or (found["path"] is not None and found["frame"] is not None):
        raise InvalidJob(
            f"{shown(text)} names no job's geometry; write job:ID for the final one of a job, "
            "job:ID@0 for what it was given, job:ID:results.energy for a part of its result; "
            "filters that fit one job may stand for its id, job:label step=relax"
        )
    path, frame = found["path"], found["frame"]
    return JobStructure(
        read_job(found["job"]),
        None if frame is None else int(frame),
        None if path is None else read_path(path),
    )


def as_value(asked: JobStructure) -> dict[str, Any]:
    """Write what such a text means inside parameters: without a path the job's directory.

    Raises `InvalidJob`: it names a frame.
    """
    if asked.frame is not None:
        raise InvalidJob(
            f"as a parameter job:ID@{asked.frame} means nothing; job:ID is the job's directory, "
            'job:ID:atoms its final geometry, "job:..." in quotes a text'
        )
    path = ("dir_name",) if asked.path is None else asked.path
    return Reference(asked.job_id, path).document()


def read_job(text: str) -> str | dict[str, Any]:
    """Read an id, or filters that fit one job: ``label step=relax recipe emt.core``.

    Raises `InvalidJob`: there is no such filter, or one has no value.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InvalidJob(f"{shown(text)} cannot be read: {error}") from error
    if len(words) < 2:  # noqa: PLR2004 - a filter and its value
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
    """Read a path into a result, ``static.0.atoms``; empty for the whole of it."""
    keys = text.split(".") if text else []
    return tuple(int(key) if re.fullmatch(r"-?[0-9]{1,9}", key) else key for key in keys)
