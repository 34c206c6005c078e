"""Asks about clusters and presets, for jobs in the present environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crystalmath import server
from crystalmath.client.client_errors import raise_answered
from crystalmath.models import Preset
from crystalmath.models.cluster import Check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from crystalmath.client.transport import Caller
    from crystalmath.wire.answers import ClusterChecked


def check_cluster(
    caller: Caller,
    name: str,
    job_id: str | None,
    environment: Mapping[str, str] | None,
    wait: Callable[[str], Iterable[object]],
) -> ClusterChecked:
    """Send a small job to a cluster unless there is one, wait, and return its checks."""
    if job_id is None:
        checked = _checked(caller, name, environment=environment)
        if checked["job_id"] is None:
            return checked
        job_id = checked["job_id"]
    for _ in wait(job_id):
        pass
    return _checked(caller, name, job_id=job_id)


def _checked(caller: Caller, name: str, **more: object) -> ClusterChecked:
    sent = {key: value for key, value in more.items() if value is not None}
    answer = caller.call(server.CLUSTERS_CHECK, {"cluster": name, **sent})
    if not answer["checks"] and answer["status"] == "error":
        raise_answered(answer)
    return {
        "job_id": answer.get("job_id"),
        "status": answer["status"],
        "checks": [Check(**check) for check in answer["checks"]],
        "error": answer["error"],
    }


def list_presets(
    ask: server.Ask, name: str | None, environment: Mapping[str, str] | None
) -> list[Preset]:
    """Return quacc's presets as jobs in an environment see them."""
    answer = ask(server.PRESETS_LIST, name=name, environment=environment)
    return [Preset.read(preset) for preset in answer["presets"]]
