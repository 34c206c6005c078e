"""Run jobs again that have ended, and read the calculations of failed ones again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crystalmath.errors import CrystalMathError
from crystalmath.service.intake import Intake
from crystalmath.service.reread_job import reading_again
from crystalmath.service.retrying import Again, again

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from crystalmath.models.retry import Retry
    from crystalmath.quacc.store import JobMetadata
    from crystalmath.service.intake import Answers

#: So many jobs are run again in one transaction: their structures are in memory meanwhile.
_RETRIED = 200


class Rerunning(Intake):
    """Submissions that are made of jobs on record."""

    def retry(
        self,
        job_ids: Sequence[str],
        changes: Retry,
        *,
        dry_run: bool = False,
        once: bool = False,
        wanted: Callable[[], bool] = lambda: True,
    ) -> Answers:
        """Run jobs again that have ended, each as a new job that points to the old one.

        Parameters
        ----------
        job_ids : sequence of str
            The jobs.
        changes : Retry
            What is other this time; the rest is as it was submitted.
        dry_run : bool
            Record and start nothing.
        once : bool
            Refuse each job that another has run again by the time that its retry is recorded
            (`AlreadyRetried`).
        wanted : callable
            Whether the next ones are still to be recorded.

        Returns
        -------
        list of (JobMetadata or CrystalMathError or ImportError)
            For each in turn the new job, or why there is none: it passes what any submission must
            pass. In a dry run, the new job as it would be.
        """
        answers: Answers = []
        for start in range(0, len(job_ids), _RETRIED):
            some = job_ids[start : start + _RETRIED]
            submit = self._rehearse if dry_run else self._submit
            try:
                answers += self._retry(some, changes, submit, wanted, once=once)
            except CrystalMathError as error:
                # What was recorded before is told: who asked for it again would have it twice.
                if not start:
                    raise
                answers += [error.with_traceback(None)] * (len(job_ids) - start)
                break
        return answers

    def reread(
        self, job_id: str, changes: Retry, settings: Mapping[str, str] | None = None
    ) -> JobMetadata:
        """Read the calculations of a failed job again; see :mod:`.reread_job` for what it takes."""
        job, text = self.job(job_id), self.specification(job_id)
        told = changes, settings or {}
        where = self.config, self._directory(job_id)
        asked = reading_again(job, text, *where, told, environ=self._environ)
        (answer,) = self._submit([asked], lambda: True)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _retry(
        self,
        job_ids: Sequence[str],
        changes: Retry,
        submit: Callable[[Sequence[Again], Callable[[], bool]], Answers],
        wanted: Callable[[], bool],
        *,
        once: bool,
    ) -> Answers:
        refused: dict[int, Any] = {}
        asked: dict[int, Again] = {}
        for index, job_id in enumerate(job_ids):
            try:
                job, text = self.job(job_id), self.specification(job_id)
                where = self.config, self._directory(job_id)
                asked[index] = again(job, text, changes, *where, environ=self._environ, once=once)
            except CrystalMathError as error:
                refused[index] = error
        told = submit(list(asked.values()), wanted)
        answers = refused | dict(zip(asked, told, strict=True))
        return [answers[index] for index in range(len(job_ids))]

    def _rehearse(self, asked: Sequence[Again], wanted: Callable[[], bool]) -> Answers:
        """Return what would be submitted, and record nothing of it."""
        answers, prepared = self._prepare(asked, wanted)
        answers |= {index: item.row for index, item in prepared.items()}
        return [answers[index] for index in range(len(asked))]
