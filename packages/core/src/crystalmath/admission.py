"""What a submission must pass before it becomes a job. Nothing is changed on the way."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import asdict, field, frozen

from crystalmath.errors import CrystalMathError, InvalidJob, JobRefused
from crystalmath.models import Finding, JobSpec, Pseudopotential
from crystalmath.quacc.runner import generate_job_id

if TYPE_CHECKING:
    from ase import Atoms

    from crystalmath.config import Config
    from crystalmath.quacc.engine import EngineRunner
    from crystalmath.quacc.store import NewJob

__all__ = ["Admission", "Checked", "Prepared", "Submission"]


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
    environment : mapping of str to str, optional
        The submitter's environment, of which the job sees what the home forwards. Default: the
        environment of the service.
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
    environment: Mapping[str, str] | None = field(default=None, repr=False)


@frozen(kw_only=True)
class Checked:
    """What was found of a submission, whether or not it would become a job.

    Parameters
    ----------
    findings : tuple of Finding
        All that is wrong with it.
    pseudopotentials : tuple of Pseudopotential
        The files that the job would read, as far as they are known.
    environment : tuple of str
        The names of the variables that the job would see of its submitter's environment, which all
        of this is about.
    """

    findings: tuple[Finding, ...] = ()
    pseudopotentials: tuple[Pseudopotential, ...] = ()
    environment: tuple[str, ...] = ()

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Those that refuse the job."""
        return tuple(finding for finding in self.findings if finding.severity == "error")


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
    environ : mapping of str to str
        The environment of submissions that bring none.
    """

    def __init__(
        self,
        configured: Config,
        runner_of: Callable[[str], EngineRunner],
        owner: Mapping[str, Any],
        environ: Mapping[str, str],
    ) -> None:
        self._config = configured
        self._runner_of = runner_of
        self._owner = owner
        self._environ = environ
        # Of a batch all have mostly the same.
        self._forwarded: list[tuple[Mapping[str, str], dict[str, str]]] = []

    def check(self, submission: Submission) -> Checked:
        """Say all that is wrong with a submission."""
        findings: list[Finding] = []

        def passes(check: Callable[[Submission], Sequence[Finding] | None]) -> bool:
            try:
                findings.extend(check(submission) or ())
            except (CrystalMathError, ImportError) as error:
                code = getattr(error, "code", "import")
                findings.append(Finding(severity="error", code=code, message=str(error)))
                return False
            return True

        can_be_called = passes(self._check_recipe)
        passes(self._check_values)
        if not passes(self._check_environment):
            return Checked(findings=tuple(findings))
        # What cannot be called has nothing to say for itself.
        asked = can_be_called and passes(self._preflight)
        files = self._pseudopotentials(submission) if asked else []
        if passes(self._check_engine):
            passes(self._check_ranks)
        return Checked(
            findings=tuple(findings),
            pseudopotentials=tuple(files),
            environment=tuple(sorted(self._environment(submission))),
        )

    def prepare(self, submission: Submission) -> Prepared:
        """Check a submission and encode it; `InvalidJob` says what is wrong with it.

        The engine's plugin is loaded last: a job that is refused touches no engine.
        """
        from crystalmath.plugins import plugins
        from crystalmath.quacc import codec
        from crystalmath.quacc.rows import check

        self._check_values(submission)
        self._check_environment(submission)
        findings = self._check_recipe(submission)
        plugins().require(self._engine_of(submission))
        findings += self._preflight(submission)
        if any(finding.severity == "error" for finding in findings):
            raise JobRefused(findings)
        files = self._pseudopotentials(submission)
        self._check_engine(submission)
        findings += self._check_ranks(submission)
        runner = self._runner(submission)
        spec = JobSpec(
            job_id=generate_job_id(),
            recipe=submission.recipe,
            atoms=submission.atoms,
            parameters=submission.parameters,
            cluster=submission.cluster,
            walltime_s=submission.walltime_s,
            environment=self._environment(submission),
        )
        document = codec.encode_spec(spec)
        row = self._row(submission, spec, document, findings, files)
        check(row)  # the store does so too, but only after it has made its database
        return Prepared(row, spec, document, runner)

    def _row(
        self,
        submission: Submission,
        spec: JobSpec,
        document: str,
        findings: Sequence[Finding],
        files: Sequence[Pseudopotential],
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
            pseudopotentials=[asdict(file) for file in files],
        )

    def _check_recipe(self, submission: Submission) -> list[Finding]:
        from crystalmath.quacc.arguments import check_arguments
        from crystalmath.quacc.recipes import look_up

        recipe = look_up(submission.recipe, self._config.recipes_allow)
        return check_arguments(recipe, submission.parameters)

    def _check_engine(self, submission: Submission) -> None:
        self._runner(submission).check_cluster(submission.cluster)

    def _runner(self, submission: Submission) -> EngineRunner:
        return self._runner_of(self._engine_of(submission))

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

    @staticmethod
    def _check_environment(submission: Submission) -> None:
        _check_environment(submission.environment)

    def _preflight(self, submission: Submission) -> list[Finding]:
        from crystalmath.plugins import plugins

        return plugins().preflight(**self._asked(submission))

    def _pseudopotentials(self, submission: Submission) -> list[Pseudopotential]:
        from crystalmath.plugins import plugins

        return plugins().pseudopotentials(**self._asked(submission))

    def _asked(self, submission: Submission) -> dict[str, Any]:
        return {
            "recipe": submission.recipe,
            "atoms": submission.atoms,
            "parameters": submission.parameters,
            "environment": self._environment(submission),
        }

    def _check_ranks(self, submission: Submission) -> list[Finding]:
        from crystalmath.quacc.parallel import check_ranks

        able = self._runner(submission).capabilities
        if not able.workers_here or able.workers is None:
            return []
        environment = self._environment(submission)
        finding = check_ranks(submission.recipe, environment, able.workers)
        return [] if finding is None else [finding]

    def _environment(self, submission: Submission) -> dict[str, str]:
        """Give what the job sees of its submitter's environment; the preflight sees the same."""
        from crystalmath.quacc.engine import submission_environment

        environ = self._environ_of(submission)
        for known, forwarded in self._forwarded:
            if known is environ or known == environ:
                return forwarded
        forwarded = submission_environment(self._config, environ)
        self._forwarded[:] = [(environ, forwarded)]
        return forwarded

    def _environ_of(self, submission: Submission) -> Mapping[str, str]:
        return self._environ if submission.environment is None else submission.environment

    def _engine_of(self, submission: Submission) -> str:
        from crystalmath.quacc.engines import get_workflow_engine

        if submission.engine or self._config.engine:
            return str(submission.engine or self._config.engine)
        return get_workflow_engine(self._environ_of(submission)) or "local"


def _check_walltime(walltime_s: object) -> None:
    if walltime_s is None:
        return
    if (
        not isinstance(walltime_s, (int, float))
        or isinstance(walltime_s, bool)
        or not 0 < walltime_s <= sys.float_info.max
    ):
        raise InvalidJob(f"walltime must be a positive number of seconds, not {walltime_s!r}")


def _check_environment(environment: object) -> None:
    if environment is None:
        return
    if not isinstance(environment, Mapping):
        raise InvalidJob("environment must be a flat mapping of strings")
    for name, value in environment.items():
        # The message leaves the value out: it may be a password.
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise InvalidJob(f"{name!r:.80} cannot be the name of an environment variable")
        if not isinstance(value, str) or "\0" in value:
            raise InvalidJob(f"the environment variable {name!r:.80} must be a string")


def _check_text(what: str, value: object, longest: int = 255) -> None:
    if value is None:
        return
    if not isinstance(value, str) or not 0 < len(value) <= longest or not value.isprintable():
        raise InvalidJob(f"{what} must be 1 to {longest} printable characters, not {value!r:.80}")
