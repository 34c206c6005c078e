"""Submits jobs, checks them, runs them again and cancels them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import fields

from crystalmath import server
from crystalmath.client.client_errors import answered_error, raise_answered, warn_of
from crystalmath.client.request import RecipeLike, Writer, ask_again, batched, keyed
from crystalmath.client.transport import LONG_S, Caller, chosen, parts, requests
from crystalmath.errors import CrystalMathError, InvalidJob, did_you_mean
from crystalmath.models import Finding, FlowCheck, Inputs, JobCheck, Submission
from crystalmath.models.notebook import Findings, Jobs
from crystalmath.models.submission import OF_FLOW

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from contextlib import AbstractContextManager

    from crystalmath.client.chaining import StepLike
    from crystalmath.client.future import JobFuture
    from crystalmath.client.request import Written
    from crystalmath.client.tracker import Tracker
    from crystalmath.client.transport import JobsLike
    from crystalmath.models import Filters, MapOptions, SubmissionOptions
    from crystalmath.wire.answers import CancelledJob


class Submitter:
    """Submits jobs and returns their futures.

    Parameters
    ----------
    caller : Caller
        Calls the server.
    writer : Writer
        Writes submissions with the configuration of the client's home.
    tracker : Tracker
        Makes the futures and has them followed.
    """

    def __init__(self, caller: Caller, writer: Writer, tracker: Tracker) -> None:
        self._caller = caller
        self._writer = writer
        self._tracker = tracker

    def submit(self, submission: Submission) -> JobFuture:
        """Submit one job; raise the error if it is refused."""
        (answer,) = self.submit_many([submission])
        if isinstance(answer, CrystalMathError):
            raise answer
        return answer

    def submit_many(self, submissions: Iterable[Submission]) -> Jobs[JobFuture | CrystalMathError]:
        """Submit jobs in requests of a fair size; see :meth:`.Client.submit_many`."""
        answers: Jobs[JobFuture | CrystalMathError] = Jobs()
        every = list(submissions)
        for submission in every:
            if not isinstance(submission, Submission):
                raise TypeError(
                    f"submit_many takes a list of Submission(...), not of {submission!r:.100}"
                )
        for batch in self._writer.batches(every):
            answers += self._submit_batch(batch, after_accepted=bool(_accepted(answers)))
        return answers

    def submit_each(
        self,
        recipe: RecipeLike,
        structures: Iterable[Any],
        parameters: Mapping[str, Any] | None,
        key: str | None,
        options: MapOptions,
    ) -> Jobs[JobFuture | CrystalMathError]:
        """Submit a recipe once for each structure; see :meth:`.Client.map`."""
        # The command line's fingerprint has swept values, too; here there are none.
        with_keys = keyed(_several(structures), key, lambda structure: [structure, {}])
        return self.submit_many(
            submission_of(recipe, atoms, parameters, {**options, "key": own_key})
            for atoms, own_key in with_keys
        )

    def submit_chains(
        self,
        structures: Iterable[Any],
        steps: Mapping[str, StepLike],
        key: str | None,
        options: MapOptions,
    ) -> list[dict[str, JobFuture | CrystalMathError]]:
        """Submit a chain of steps for each structure; see :meth:`.Client.chain`."""
        from crystalmath.client.chaining import Chain

        chain = Chain(steps, self._writer.configured()[0].recipes_allow)
        with_keys = keyed(_several(structures), key, lambda structure: structure)
        documents = chain.written(
            ((atoms, {**options, "key": own_key}) for atoms, own_key in with_keys),
            self._writer.document,
        )
        answers: list[JobFuture | CrystalMathError] = []
        for batch in batched(enumerate(documents), len(chain.names)):
            answers += self._submit_batch(
                dict(batch), after_accepted=bool(_accepted(answers)), all_or_none=True
            )
        return [dict(zip(chain.names, jobs, strict=True)) for jobs in parts(answers, len(steps))]

    def recording(self, options: MapOptions) -> AbstractContextManager[None]:
        """Have calls of quacc submit jobs; see :meth:`.Client.recording`."""
        from crystalmath.recipes.recording import recording

        for_jobs = {name: value for name, value in options.items() if name not in OF_FLOW}

        def submit(
            recipe: RecipeLike, atoms: Any, parameters: Mapping[str, Any], *, is_flow: bool
        ) -> JobFuture:
            terms = options if is_flow else for_jobs
            return self.submit(submission_of(recipe, atoms, parameters, terms))

        return recording(submit, self._writer.configured()[0].recipes_allow)

    def _submit_batch(
        self, batch: Mapping[int, Written], *, after_accepted: bool, all_or_none: bool = False
    ) -> list[JobFuture | CrystalMathError]:
        """Submit jobs with one request, and return a future or an error for each, in order.

        Once jobs of earlier requests were accepted (`after_accepted`), an error of the request
        stands in the place of each of its jobs, so that the earlier futures are not lost.
        """
        answers: dict[int, JobFuture | CrystalMathError] = {}
        documents: dict[int, dict[str, Any]] = {}
        for index, written in batch.items():
            if isinstance(written, CrystalMathError):
                answers[index] = written
            else:
                documents[index] = written
        try:
            if documents:
                answers |= self._send(documents, all_or_none=all_or_none)
        except CrystalMathError as error:
            if not after_accepted:
                raise
            answers |= dict.fromkeys(documents, error)
        return [answers[index] for index in batch]

    def _send(
        self, documents: Mapping[int, dict[str, Any]], *, all_or_none: bool
    ) -> dict[int, JobFuture | CrystalMathError]:
        answers: dict[int, JobFuture | CrystalMathError] = {}
        has_begun = False
        with self._tracker.follower.submitting() as overheard:
            answer = self._caller.ask(
                server.JOBS_SUBMIT_MANY,
                jobs=list(documents.values()),
                all_or_none=all_or_none or None,
            )
            for (index, document), job in zip(documents.items(), answer["jobs"], strict=True):
                if job["job_id"] is None:
                    answers[index] = answered_error(job)
                else:
                    answers[index] = self._tracker.new(
                        job["job_id"], document.get("name"), document.get("labels", {})
                    )
                    # A key returns the job of an earlier submission, which may run already.
                    has_begun = has_begun or job["status"] != "pending"
            self._tracker.follower.follow(
                _accepted(answers.values()), overheard=overheard, look=has_begun
            )
        warn_of(answer["jobs"])
        return answers

    # --- checks and retries ------------------------------------------------------------------

    def check(self, submission: Submission, *, inputs: bool) -> JobCheck:
        """Return the findings for a job, and with `inputs` the inputs of its programs."""
        document = self._writer.document(submission)
        if inputs:
            document["inputs"] = True
        answer = self._caller.call(server.JOBS_CHECK, document)
        if not answer.get("findings"):
            raise_answered(answer)
        programs, flow = answer.get("inputs"), answer.get("flow")
        return JobCheck(
            findings=Findings(Finding(**finding) for finding in answer["findings"]),
            inputs=Inputs.read(programs) if programs else Inputs(),
            flow=FlowCheck.read(flow) if flow else None,
        )

    def retry(
        self, job_ids: Sequence[str] | None, filters: Filters | None, changes: Mapping[str, Any]
    ) -> Jobs[JobFuture | CrystalMathError]:
        """Submit jobs again with changes, and return the futures of the new jobs."""
        with self._tracker.follower.submitting() as overheard:
            jobs = ask_again(self._caller.ask, changes, job_ids=job_ids, filters=filters)
            answers = Jobs(
                answered_error(job)
                if job["job_id"] is None
                else self._tracker.new(job["job_id"], job["name"], job["labels"])
                for job in jobs
                if job.get("code") != "retried"
            )
            self._tracker.follower.follow(_accepted(answers), overheard=overheard)
        warn_of(jobs)
        return answers

    def would_retry(
        self, job_ids: Sequence[str] | None, filters: Filters | None, changes: Mapping[str, Any]
    ) -> list[CrystalMathError | None]:
        """Return for each job why it would not run again, or ``None`` if it would."""
        jobs = ask_again(self._caller.ask, changes, job_ids=job_ids, filters=filters, dry_run=True)
        warn_of(jobs)
        return [
            answered_error(job) if job["status"] == "error" else None
            for job in jobs
            if job.get("code") != "retried"
        ]


def submission_of(
    recipe: RecipeLike,
    atoms: Any,
    parameters: Mapping[str, Any] | None,
    options: SubmissionOptions | Mapping[str, Any],
) -> Submission:
    """Return the submission that a method's arguments describe; refuse unknown options."""
    known = {one.name for one in fields(Submission)}
    refuse_options([name for name in options if name not in known])
    return Submission(recipe=recipe, atoms=atoms, parameters=parameters or {}, **options)


def refuse_options(names: Iterable[str]) -> None:
    """Raise `TypeError` for keywords that are no options of a submission, if there are any."""
    for name in names:
        hint = did_you_mean(
            name,
            {one.name for one in fields(Submission)},
            "if it is the recipe's, it stands in the third argument: (recipe, atoms, "
            f"{{{name!r}: ...}})",
        )
        raise TypeError(f"{name!r} is no option of a submission; {hint}")


def cancel_jobs(
    ask: server.Ask,
    job_ids: JobsLike | None,
    filters: Filters,
    *,
    with_successors: bool,
) -> list[CancelledJob]:
    """Cancel jobs by their ids, or those that fit filters; see :meth:`.Client.cancel_many`."""
    options = {"with_successors": True} if with_successors else {}
    cancelled: list[CancelledJob] = []
    for which in requests(chosen(ask, job_ids, filters), filters):
        answer = ask(server.JOBS_CANCEL_MANY, timeout=LONG_S, **which, **options)
        cancelled += answer["jobs"]
    return cancelled


def _several(structures: Iterable[Any]) -> Iterable[Any]:
    """Refuse one structure in place of several; iterating it would yield its atoms."""
    if isinstance(structures, str | Mapping) or hasattr(structures, "get_positions"):
        raise InvalidJob("the structures must be a list, with a job for each; submit() takes one")
    return structures


def _accepted(answers: Iterable[JobFuture | CrystalMathError]) -> list[JobFuture]:
    return [answer for answer in answers if not isinstance(answer, CrystalMathError)]
