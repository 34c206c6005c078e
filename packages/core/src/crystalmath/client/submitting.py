"""Submit jobs, run a recipe on many structures, and check what would be submitted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias, Unpack, cast, overload

from attrs import fields

from crystalmath.client.asking import Asking
from crystalmath.client.client_errors import answered_error, raise_answered
from crystalmath.client.follower import Follower
from crystalmath.errors import CrystalMathError
from crystalmath.models import Finding, Inputs, JobCheck, Submission

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ase import Atoms

    from crystalmath.client.future import JobFuture
    from crystalmath.client.installed import RecipeLike
    from crystalmath.client.transport import Transport
    from crystalmath.models import HasJobId, MapOptions, SubmissionOptions
    from crystalmath.models.answers import CheckedJob

#: A structure (Å), or what ``jobs.submit`` takes in its place; a job for its final geometry.
Structure: TypeAlias = "Atoms | str | Mapping[str, Any] | HasJobId"


class Submitting(Asking):
    """Submit jobs and get their futures, which one thread follows."""

    def __init__(self, transport: Transport) -> None:
        super().__init__(transport)
        self._follower = Follower(self._waiting)

    def submit(
        self,
        recipe: RecipeLike,
        atoms: Structure | None = None,
        parameters: Mapping[str, Any] | None = None,
        **options: Unpack[SubmissionOptions],
    ) -> JobFuture:
        """Submit a job; it is on record when this returns.

        Parameters
        ----------
        recipe, atoms, parameters, **options
            The fields of :class:`~crystalmath.models.Submission`.

        Raises
        ------
        InvalidJob
            The job was refused (`JobRefused` with the findings of the preflight). Nothing of it
            is left behind.
        UnknownEngine
            The engine is not installed.
        """
        asked = _asked(recipe, atoms, parameters, options)
        (answer,) = self.submit_many([asked])
        if isinstance(answer, CrystalMathError):
            raise answer
        return answer

    def submit_many(self, submissions: Sequence[Submission]) -> list[JobFuture | CrystalMathError]:
        """Submit jobs with one call, each accepted or refused on its own.

        Returns
        -------
        list of (JobFuture or CrystalMathError)
            In their order; what was refused has its error in its place. So has what was not
            answered once others were accepted, as where the server went away.
        """
        from crystalmath.client.batches import batches

        answers: list[JobFuture | CrystalMathError] = []
        for batch in batches(submissions, *self._configured()):
            refused = {i: one for i, one in batch.items() if isinstance(one, CrystalMathError)}
            given = {i: one for i, one in batch.items() if not isinstance(one, CrystalMathError)}
            try:
                told = refused | (self._submit(given) if given else {})
            except CrystalMathError as error:
                if all(isinstance(one, CrystalMathError) for one in answers):
                    raise
                # What earlier batches were answered must not be lost with this one.
                told = {**refused, **dict.fromkeys(given, error)}
            answers += [told[index] for index in batch]
        return answers

    def hand_over(self, submission: Submission) -> str:
        """Submit a job that no future is to follow, and give its id.

        Raises
        ------
        InvalidJob, UnknownEngine
            As by :meth:`submit`.
        """
        from crystalmath.client.request import document

        answer = self._transport.call("jobs.submit", document(submission, *self._configured()))
        raise_answered(answer)
        return str(answer["job_id"])

    def _submit(
        self, documents: Mapping[int, dict[str, Any]]
    ) -> dict[int, JobFuture | CrystalMathError]:
        from crystalmath.client.future import JobFuture

        answers: dict[int, JobFuture | CrystalMathError] = {}
        futures: list[JobFuture] = []
        begun = False
        with self._follower.submitting() as overheard:
            answer = self._answer("jobs.submit_many", jobs=list(documents.values()))
            for (index, document), job in zip(documents.items(), answer["jobs"], strict=True):
                if job["job_id"] is None:
                    answers[index] = answered_error(job)
                else:
                    future = JobFuture(
                        self, job["job_id"], document.get("name"), document.get("labels", {})
                    )
                    answers[index] = future
                    futures.append(future)
                    # Its key has given the job of an earlier submission.
                    begun = begun or job["status"] != "pending"
            self._follower.follow(futures, overheard=overheard, look=begun)
        return answers

    def map(
        self,
        recipe: RecipeLike,
        structures: Iterable[Structure],
        parameters: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        progress: bool | None = None,
        return_exceptions: bool = False,
        **options: Unpack[MapOptions],
    ) -> list[Any]:
        """Run a recipe on each of many structures, and wait for all results.

        Parameters
        ----------
        recipe, parameters, **options
            For all jobs alike; the fields of :class:`~crystalmath.models.Submission`.
        structures : iterable of ase.Atoms
            One job for each.
        key : str, optional
            The jobs get the keys ``key/0``, ``key/1`` and so on: the same call again, in a new
            kernel too, gives the same jobs.
        progress : bool, optional
            Whether to show a bar; default: on a terminal and in a notebook.
        return_exceptions : bool
            Give the error of a job that was refused, failed or was cancelled in its place.

        Returns
        -------
        list
            What the recipe returned for each structure, in their order.

        Raises
        ------
        InvalidJob
            A job was refused: at once. Those that were accepted go on.
        JobFailed, concurrent.futures.CancelledError
            A job has no result: the first such, once all have ended.
        """
        from crystalmath.client.gathering import gather

        submissions = [
            _asked(
                recipe,
                atoms,
                parameters,
                {**options, "key": None if key is None else f"{key}/{index}"},
            )
            for index, atoms in enumerate(structures)
        ]
        answers = self.submit_many(submissions)
        return gather(answers, progress=progress, return_exceptions=return_exceptions)

    @overload
    def check(
        self,
        recipe: RecipeLike,
        atoms: Structure | None = None,
        parameters: Mapping[str, Any] | None = None,
        *,
        inputs: Literal[False] = False,
        **options: Unpack[SubmissionOptions],
    ) -> list[Finding]: ...

    @overload
    def check(
        self,
        recipe: RecipeLike,
        atoms: Structure | None = None,
        parameters: Mapping[str, Any] | None = None,
        *,
        inputs: Literal[True],
        **options: Unpack[SubmissionOptions],
    ) -> JobCheck: ...

    def check(
        self,
        recipe: RecipeLike,
        atoms: Structure | None = None,
        parameters: Mapping[str, Any] | None = None,
        *,
        inputs: bool = False,
        **options: Unpack[SubmissionOptions],
    ) -> list[Finding] | JobCheck:
        """Return all that is wrong with a job, without submitting it.

        Parameters
        ----------
        recipe, atoms, parameters, **options
            The fields of :class:`~crystalmath.models.Submission`.
        inputs : bool
            Also tell what its programs would get, step by step.

        Returns
        -------
        list of Finding, or JobCheck
            The latter with `inputs`.
        """
        asked = _asked(recipe, atoms, parameters, options)
        answer = self._checked(asked, inputs=inputs)
        if not answer.get("findings"):
            raise_answered(answer)
        findings = [Finding(**finding) for finding in answer["findings"]]
        if not inputs:
            return findings
        told = answer.get("inputs")
        return JobCheck(findings=findings, inputs=Inputs.read(told) if told else Inputs())

    def checked(self, submission: Submission, *, inputs: bool = False) -> CheckedJob:
        """Return the whole answer of ``jobs.check``: the files that a job reads, too.

        Parameters
        ----------
        submission : Submission
            What is asked for.
        inputs : bool
            Also what its programs would get.

        Raises
        ------
        InvalidJob
            It is none that could be checked.
        """
        answer = self._checked(submission, inputs=inputs)
        raise_answered(answer)
        return cast("CheckedJob", answer)

    def _checked(self, submission: Submission, *, inputs: bool) -> dict[str, Any]:
        from crystalmath.client.request import document

        sent = document(submission, *self._configured())
        return self._transport.call("jobs.check", {**sent, "inputs": True} if inputs else sent)


def _asked(
    recipe: RecipeLike,
    atoms: Structure | None,
    parameters: Mapping[str, Any] | None,
    options: SubmissionOptions,
) -> Submission:
    known = {one.name for one in fields(Submission)}
    if unknown := [name for name in options if name not in known]:
        raise TypeError(
            f"{unknown[0]!r} is no option of a submission; if it is the recipe's, it stands in the "
            f"third argument: (recipe, atoms, {{{unknown[0]!r}: ...}})"
        )
    return Submission(recipe=recipe, atoms=atoms, parameters=parameters or {}, **options)
