"""What a submission must pass before it becomes a job. Nothing is changed on the way."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from attrs import asdict, field, frozen

from crystalmath.errors import CrystalMathError, InvalidJob, JobRefused
from crystalmath.models import Finding, JobSpec
from crystalmath.quacc.runner import generate_job_id

if TYPE_CHECKING:
    from ase import Atoms

    from crystalmath.config import Config
    from crystalmath.quacc.engine import EngineRunner
    from crystalmath.quacc.store import NewJob

__all__ = ["Admission", "Prepared", "Submission"]


@frozen(kw_only=True)
class Submission:
    """What somebody asks for.

    Parameters
    ----------
    recipe : str
        Full dotted name of the recipe.
    atoms : ase.Atoms
        The structure.
    parameters : mapping of str to object
        The recipe's parameters.
    engine : str, optional
        Default: the configured one, else ``local``.
    cluster : str
        One of the engine's clusters.
    key : str, optional
        Idempotency key: the same key gives the same job.
    name : str, optional
        For people; never passed to the recipe.
    labels : mapping of str to str
        For people and filters; never passed to the recipe.
    walltime_s : float, optional
        Time after which the job is stopped, in seconds.
    """

    recipe: str
    atoms: Atoms
    parameters: Mapping[str, Any] = field(factory=dict)
    engine: str | None = None
    cluster: str = "local"
    key: str | None = None
    name: str | None = None
    labels: Mapping[str, str] = field(factory=dict)
    walltime_s: float | None = None


@frozen
class Prepared:
    """A submission that has passed: its row, and what its engine is to be told."""

    row: NewJob
    spec: JobSpec
    document: str
    runner: EngineRunner


class Admission:
    """Check submissions, and make them ready to be recorded; one for each batch.

    Parameters
    ----------
    configured : Config
        The home's configuration.
    runner_of : callable
        Gives the runner of an engine by its name.
    owner : mapping
        The process whose jobs they will be.
    """

    def __init__(
        self,
        configured: Config,
        runner_of: Callable[[str], EngineRunner],
        owner: Mapping[str, Any],
    ) -> None:
        from crystalmath.quacc.engine import submission_environment

        self._config = configured
        self._runner_of = runner_of
        self._owner = owner
        self._environment = submission_environment(configured)

    def check(self, submission: Submission) -> list[Finding]:
        """Say all that is wrong with a submission."""
        findings = []
        for check in (self._check_recipe, self._check_values, self._check_engine):
            try:
                check(submission)
            except (CrystalMathError, ImportError) as error:
                code = getattr(error, "code", "import")
                findings.append(Finding(severity="error", code=code, message=str(error)))
        return findings + self._preflight(submission)

    def prepare(self, submission: Submission) -> Prepared:
        """Check a submission and encode it; `InvalidJob` says what is wrong with it."""
        from crystalmath.quacc import codec
        from crystalmath.quacc.rows import check

        self._check_recipe(submission)
        self._check_values(submission)
        runner = self._check_engine(submission)
        findings = self._preflight(submission)
        if any(finding.severity == "error" for finding in findings):
            raise JobRefused(findings)
        spec = JobSpec(
            job_id=generate_job_id(),
            recipe=submission.recipe,
            atoms=submission.atoms,
            parameters=submission.parameters,
            cluster=submission.cluster,
            walltime_s=submission.walltime_s,
            environment=self._environment,
        )
        document = codec.encode_spec(spec)
        row = self._row(submission, spec, document, findings)
        check(row)  # the store does so too, but only after it has made its database
        return Prepared(row, spec, document, runner)

    def _row(
        self, submission: Submission, spec: JobSpec, document: str, findings: list[Finding]
    ) -> NewJob:
        from crystalmath.quacc.store import NewJob

        what: dict[str, Any] = {
            "recipe": spec.recipe,
            "engine": self._engine_of(submission),
            "cluster": spec.cluster,
            "walltime_s": spec.walltime_s,
        }
        # The environment is left out: another shell must not make the same job another one.
        # So is the order of the names: JSON objects have none.
        hashed = json.dumps([what, json.loads(document)], sort_keys=True)
        header = json.dumps({**what, "environment": dict(spec.environment)})
        return NewJob(
            job_id=spec.job_id,
            **what,
            spec_hash=hashlib.sha256(hashed.encode()).hexdigest(),
            specification=f"{header}\n{document}",
            created_at=time.time(),
            name=submission.name,
            labels=submission.labels,
            key=submission.key,
            formula=submission.atoms.get_chemical_formula(),
            owner=self._owner,
            warnings=[asdict(finding) for finding in findings],
        )

    def _check_recipe(self, submission: Submission) -> None:
        from crystalmath.quacc import recipes

        recipe = recipes.look_up(submission.recipe, self._config.recipes_allow)
        recipes.check_arguments(recipe, submission.parameters)

    def _check_engine(self, submission: Submission) -> EngineRunner:
        runner = self._runner_of(self._engine_of(submission))
        runner.check_cluster(submission.cluster)
        return runner

    @staticmethod
    def _check_values(submission: Submission) -> None:
        _check_walltime(submission.walltime_s)
        _check_text("key", submission.key)
        _check_text("name", submission.name)
        labels: object = submission.labels
        if not isinstance(labels, Mapping) or not all(
            isinstance(part, str) for pair in labels.items() for part in pair
        ):
            raise InvalidJob(f"labels must be a flat mapping of strings, not {labels!r}")

    def _preflight(self, submission: Submission) -> list[Finding]:
        from crystalmath.plugins import plugins

        return plugins().preflight(
            recipe=submission.recipe,
            atoms=submission.atoms,
            parameters=submission.parameters,
            environment=self._environment,
        )

    def _engine_of(self, submission: Submission) -> str:
        from crystalmath.quacc.engines import get_workflow_engine

        return (submission.engine or self._config.engine) or get_workflow_engine() or "local"


def _check_walltime(walltime_s: object) -> None:
    if walltime_s is None:
        return
    if (
        not isinstance(walltime_s, (int, float))
        or isinstance(walltime_s, bool)
        or not 0 < walltime_s <= sys.float_info.max
    ):
        raise InvalidJob(f"walltime must be a positive number of seconds, not {walltime_s!r}")


def _check_text(what: str, value: object, longest: int = 255) -> None:
    if value is None:
        return
    if not isinstance(value, str) or not 0 < len(value) <= longest or not value.isprintable():
        raise InvalidJob(f"{what} must be 1 to {longest} printable characters, not {value!r:.80}")
