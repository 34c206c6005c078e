"""What a submission must pass before it becomes a job. Nothing is changed on the way."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import asdict, frozen

from crystalmath.errors import CrystalMathError, JobRefused
from crystalmath.models import Finding, JobSpec, Pseudopotential
from crystalmath.quacc.runner import generate_job_id
from crystalmath.service.submission import check_environment, check_values

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from crystalmath.config import Config
    from crystalmath.quacc.engine import EngineRunner
    from crystalmath.quacc.store import NewJob
    from crystalmath.service.submission import Submission

__all__ = ["Admission", "Checked", "Prepared"]


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
    environ : mapping of str to str
        The environment of submissions that bring none.
    """

    def __init__(
        self,
        configured: Config,
        runner_of: Callable[[str], EngineRunner],
        environ: Mapping[str, str],
    ) -> None:
        self._config = configured
        self._runner_of = runner_of
        self._environ = environ
        # Of a batch all have mostly the same.
        self._forwarded: list[tuple[Mapping[str, str], dict[str, str]]] = []
        self._commands: dict[tuple[object, ...], tuple[Mapping[str, str], list[Finding]]] = {}

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
        passes(check_values)
        if not passes(check_environment):
            return Checked(findings=tuple(findings))
        # What cannot be called has nothing to say for itself.
        asked = can_be_called and passes(self._preflight)
        files, told = self._pseudopotentials(submission) if asked else ([], [])
        findings += told
        if passes(self._check_engine):
            passes(self._engine_preflight)
            passes(self._check_commands)
            passes(self._check_sources)
        return Checked(
            findings=tuple(_once(findings)),
            pseudopotentials=tuple(files),
            environment=tuple(sorted(self._environment(submission))),
        )

    def is_of(self, submission: Submission, spec_hash: str) -> bool:
        """Tell whether this is what a job on record was made of."""
        from crystalmath.recipes import codec

        try:
            check_values(submission)
            check_environment(submission)
            document = codec.encode_spec(self._spec(submission))
        except CrystalMathError:
            return False  # `prepare` says what is wrong
        return _hash(self._what(submission), document) == spec_hash

    def prepare(self, submission: Submission) -> Prepared:
        """Check a submission and encode it; `InvalidJob` says what is wrong with it.

        The engine's plugin is loaded last: a job that is refused touches no engine.
        """
        from crystalmath.engines.registry import plugins
        from crystalmath.recipes import codec
        from crystalmath.store.rows import check

        check_values(submission)
        check_environment(submission)
        findings = self._check_recipe(submission)
        plugins().require(self._engine_of(submission))
        findings += self._preflight(submission)
        if any(finding.severity == "error" for finding in findings):
            raise JobRefused(findings)
        files, told = self._pseudopotentials(submission)
        self._check_engine(submission)
        findings += [*told, *self._engine_preflight(submission), *self._check_commands(submission)]
        findings += self._check_sources(submission)
        findings = _once(findings)
        if any(finding.severity == "error" for finding in findings):
            raise JobRefused(findings)
        runner = self._runner(submission)
        spec = self._spec(submission, files)
        document = codec.encode_spec(spec)
        row = self._row(submission, spec, document, findings, files)
        check(row)  # the store does so too, but only after it has made its database
        return Prepared(row, spec, document, runner)

    def _spec(self, submission: Submission, files: Sequence[Pseudopotential] = ()) -> JobSpec:
        return JobSpec(
            job_id=generate_job_id(),
            recipe=submission.recipe,
            atoms=submission.atoms,
            parameters=submission.parameters,
            cluster=submission.cluster,
            walltime_s=submission.walltime_s,
            environment=self._environment(submission),
            files={file.path: file.sha256 for file in files},
        )

    def _what(self, submission: Submission) -> dict[str, Any]:
        return {
            "recipe": submission.recipe,
            "engine": self._engine_of(submission),
            "cluster": submission.cluster,
            "walltime_s": submission.walltime_s,
        }

    def _row(
        self,
        submission: Submission,
        spec: JobSpec,
        document: str,
        findings: Sequence[Finding],
        files: Sequence[Pseudopotential],
    ) -> NewJob:
        from crystalmath.quacc.store import NewJob

        what = self._what(submission)
        more = {"environment": dict(spec.environment), "files": dict(spec.files)}
        header = json.dumps({**what, **more})
        return NewJob(
            job_id=spec.job_id,
            **what,
            spec_hash=_hash(what, document),
            specification=f"{header}\n{document}",
            created_at=time.time(),
            name=submission.name,
            labels=submission.labels,
            key=submission.key,
            formula=submission.atoms.get_chemical_formula(),
            warnings=[asdict(finding) for finding in findings],
            pseudopotentials=[asdict(file) for file in files],
        )

    def _check_recipe(self, submission: Submission) -> list[Finding]:
        from crystalmath.recipes.arguments import check_arguments
        from crystalmath.recipes.lookup import look_up

        recipe = look_up(submission.recipe, self._config.recipes_allow)
        return check_arguments(recipe, submission.parameters)

    def _check_engine(self, submission: Submission) -> None:
        self._runner(submission).check_cluster(submission.cluster)

    def _runner(self, submission: Submission) -> EngineRunner:
        return self._runner_of(self._engine_of(submission))

    def _preflight(self, submission: Submission) -> list[Finding]:
        from crystalmath.engines.registry import plugins

        return plugins().preflight(**self._asked(submission))

    def _engine_preflight(self, submission: Submission) -> list[Finding]:
        from crystalmath.engines.registry import plugins

        return plugins().engine_preflight(self._engine_of(submission), **self._asked(submission))

    def _pseudopotentials(
        self, submission: Submission
    ) -> tuple[list[Pseudopotential], list[Finding]]:
        from crystalmath.engines.registry import plugins

        told = plugins().pseudopotentials(**self._asked(submission))
        files = [each for each in told if isinstance(each, Pseudopotential)]
        return files, [each for each in told if isinstance(each, Finding)]

    def _asked(self, submission: Submission) -> dict[str, Any]:
        return {
            "recipe": submission.recipe,
            "atoms": submission.atoms,
            "parameters": submission.parameters,
            "environment": self._environment(submission),
        }

    def _check_commands(self, submission: Submission) -> list[Finding]:
        """Look at what would start the program; of a batch once, for it reads quacc's settings."""
        environment = self._environment(submission)
        own = _gives_command(submission.parameters)
        key = (submission.recipe, self._engine_of(submission), own)
        seen, findings = self._commands.get(key, (None, []))
        if seen is not environment:
            findings = self._commands_of(submission, own=own)
            self._commands[key] = (environment, findings)
        return findings

    def _check_sources(self, submission: Submission) -> list[Finding]:
        """Look for the folders that files are taken from, where this machine's are the worker's."""
        from crystalmath.preflight.source_folders import check_sources

        if not self._runner(submission).capabilities.workers_here:
            return []
        return check_sources(submission.recipe, submission.parameters)

    def _commands_of(self, submission: Submission, *, own: bool) -> list[Finding]:
        from crystalmath.preflight.commands import check_commands
        from crystalmath.preflight.ranks import check_ranks

        runner = self._runner(submission)
        if not runner.capabilities.workers_here:
            return []
        recipe, environment = submission.recipe, self._environment(submission)
        found = [None if own else check_commands(recipe, environment)]
        if (workers := runner.workers()) is not None:
            found.append(check_ranks(recipe, environment, workers))
        return [finding for finding in found if finding is not None]

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


def _gives_command(parameters: Mapping[str, Any]) -> bool:
    """Tell whether a job, or one of a flow's, has a command of its own."""
    return any(
        (key == "command" and value is not None)
        or (isinstance(value, Mapping) and _gives_command(value))
        for key, value in parameters.items()
    )


def _once(findings: Sequence[Finding]) -> list[Finding]:
    """Leave out what several have to say of one parameter's name, after the first."""
    told: set[str | None] = set()
    kept = []
    for finding in findings:
        if finding.code == "parameter_unknown":
            if finding.source is not None and finding.source in told:
                continue
            told.add(finding.source)
        kept.append(finding)
    return kept


def _hash(what: Mapping[str, Any], document: str) -> str:
    # The environment is left out: another shell must not make the same job another one.
    # So is the order of the names: JSON objects have none.
    hashed = json.dumps([what, json.loads(document)], sort_keys=True)
    return hashlib.sha256(hashed.encode()).hexdigest()
