"""A job's specification: the record of its first line, and the hash that tells two apart."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from attrs import evolve, fields_dict

from crystalmath.models import JobSpec
from crystalmath.recipes.json_text import json_pieces

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["read_header", "spec_hash"]


def spec_hash(identity: Mapping[str, Any], body: Mapping[str, Any]) -> str:
    """Return the hash of a specification: its :meth:`.JobSpec.identity` and its body.

    The environment is no part of the identity: a job submitted from another shell is the same.
    """
    hashed = hashlib.sha256()
    # JSON objects have no order.
    for piece in json_pieces([identity, body], sort_keys=True):
        hashed.update(piece.encode())
    return hashed.hexdigest()


def read_header(header: Mapping[str, Any]) -> tuple[JobSpec, JobSpec]:
    """Return a job as it runs and as it was submitted, from :meth:`.JobSpec.header`.

    The two differ for a flow: its passes run on terms of their own.
    """
    fields = {name: header[name] for name in fields_dict(JobSpec) if name in header}
    spec = JobSpec(atoms=None, **fields)
    return spec, spec if spec.flow is None else evolve(spec, **spec.flow["asked"])
