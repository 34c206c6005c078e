"""Prove a cluster by a small job there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crystalmath.client.client_errors import raise_answered
from crystalmath.client.job_changes import JobChanges
from crystalmath.models.checkup import Check

if TYPE_CHECKING:
    from crystalmath.models.answers import ClusterChecked


class ClusterChecks(JobChanges):
    """What is found on a cluster."""

    def check_cluster(
        self, name: str, job_id: str | None = None, *, timeout: float | None = None
    ) -> ClusterChecked:
        """Send a small job to a cluster, wait for it, and tell what it found there.

        Parameters
        ----------
        name : str
            The cluster; every engine has one named ``local``.
        job_id : str, optional
            The job that was sent there before, in place of another one.
        timeout : float, optional
            How long to wait for the job at most, in seconds.

        Returns
        -------
        dict
            ``{"job_id", "status", "checks", "error"}``; `checks`, each with ``name``, ``state``,
            ``message`` and ``remedy``, has what was found there once the job has ended.
        """
        _, environment = self._configured()
        if job_id is None:
            answer = self._answered_check(name, environment=environment)
            if answer["job_id"] is None:
                return answer
            job_id = answer["job_id"]
        for _ in self.wait([job_id], timeout=timeout):
            pass
        return self._answered_check(name, job_id=job_id)

    def _answered_check(self, name: str, **more: object) -> ClusterChecked:
        answer = self._transport.call("clusters.check", {"cluster": name, **more})
        if not answer["checks"] and answer["status"] == "error":
            raise_answered(answer)
        return {
            "job_id": answer.get("job_id"),
            "status": answer["status"],
            "checks": [Check(**check) for check in answer["checks"]],
            "error": answer["error"],
        }
