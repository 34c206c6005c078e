"""Makes keys of jobs: for many that are submitted with one key, and for those without any."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def own_key(key: str, request: object, before: Counter[str]) -> str:
    """Return the key of one of many jobs: the common key, and a fingerprint of its request.

    It depends neither on the other jobs nor on the places of files. Equal requests get numbered
    keys: `before` counts them.
    """
    text = json.dumps(request, sort_keys=True)
    fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]
    before[fingerprint] += 1
    number = f"-{before[fingerprint]}" if before[fingerprint] > 1 else ""
    return f"{key}/{fingerprint}{number}"


def with_keys(method: str, params: Mapping[str, Any]) -> tuple[Mapping[str, Any], set[int]]:
    """Add a key to each submission without one, so that a request sent twice makes one job.

    Returns the parameters, and the numbers of the jobs that got one.
    """
    if method == "jobs.submit_many" and isinstance(params.get("jobs"), list):
        jobs, many = list(params["jobs"]), True
    elif method == "jobs.submit":
        jobs, many = [params], False
    else:
        return params, set()
    name = secrets.token_hex(16)
    ours = {at for at, job in enumerate(jobs) if job.get("key") is None}
    for at in ours:
        jobs[at] = {**jobs[at], "key": f"{name}-{at}"}
    return ({**params, "jobs": jobs} if many else jobs[0]), ours
