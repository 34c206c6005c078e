"""Stop jobs, and have them run again."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Unpack, cast

from crystalmath.client.caller import LONG_S, Caller
from crystalmath.client.filters_document import filters_document
from crystalmath.client.transport import PAGE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from crystalmath.models import Filters
    from crystalmath.models.answers import CancelledJob
    from crystalmath.models.retry import RetriedJob


class JobControl(Caller):
    """What changes the course of jobs."""

    def cancel(self, job_id: str) -> bool:
        """Ask for a job to be stopped; ``False`` if it had ended.

        It reads cancelled once none of its processes is alive.
        """
        return bool(self._answer("jobs.cancel", job_id=job_id)["cancelled"])

    def cancel_many(
        self, job_ids: Sequence[str] | None = None, **filters: Unpack[Filters]
    ) -> list[CancelledJob]:
        """Ask for jobs to be stopped: exactly these, or all unfinished ones that fit filters.

        Parameters
        ----------
        job_ids : sequence of str, optional
            The jobs.
        **filters
            See :meth:`list`.

        Returns
        -------
        list of dict
            Of each job ``{"job_id", "cancelled", "error"}``; ``error`` tells why it cannot be
            stopped, as one that had ended.

        Raises
        ------
        InvalidJob
            Nothing says which jobs are meant. Nothing was stopped.
        """
        asked = filters_document(filters)
        if job_ids is None:
            return cast(
                "list[CancelledJob]", self._answered("jobs.cancel_many", asked, LONG_S)["jobs"]
            )
        answers: list[CancelledJob] = []
        for start in range(0, len(job_ids), PAGE):
            part = {**asked, "job_ids": list(job_ids[start : start + PAGE])}
            answers += self._answered("jobs.cancel_many", part, LONG_S)["jobs"]
        return answers

    def asked_again(
        self,
        changes: Mapping[str, Any],
        *,
        job_ids: Sequence[str] | None = None,
        filters: Mapping[str, Any] | None = None,
        dry_run: bool = False,
    ) -> list[RetriedJob]:
        """Have jobs run again, and give what was answered of each; :meth:`Client.retry` uses it.

        Parameters
        ----------
        changes : mapping
            What is other this time, the fields of :class:`~crystalmath.models.retry.Retry`.
        job_ids, filters, dry_run
            As ``jobs.retry`` takes them.
        """
        from crystalmath.client.request import retry_document

        # With a key the request can be made again where its answer is lost.
        key = changes.get("key") or secrets.token_hex(16)
        asked = {**retry_document(changes), "dry_run": dry_run, "key": key}
        if filters is not None:
            asked["filters"] = filters_document(filters)
        if job_ids is None:
            return cast("list[RetriedJob]", self._answered("jobs.retry", asked, LONG_S)["jobs"])
        found: list[RetriedJob] = []
        for at in range(0, len(job_ids) or 1, PAGE):
            part = {**asked, "job_ids": list(job_ids[at : at + PAGE])}
            found += self._answered("jobs.retry", part, LONG_S)["jobs"]
        return found
