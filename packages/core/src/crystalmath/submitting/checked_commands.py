"""Check that the programs that jobs start exist on the machine where they run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from crystalmath.models import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from crystalmath.plugins.report import Report
    from crystalmath.preflight.commands import Commands
    from crystalmath.quacc.engine import EngineRunner
    from crystalmath.submitting.asked_job import AskedJob


@frozen
class _Looked:
    """The findings for all jobs of an environment, and the commands to check for each job."""

    environment: Mapping[str, str]
    findings: list[Finding] = field(factory=list)
    commands: Commands | None = None


class CheckedCommands:
    """Checks of the commands that start the programs of a batch."""

    def __init__(self) -> None:
        self._looked: dict[tuple[object, ...], _Looked] = {}

    def check(self, job: AskedJob, runner: EngineRunner) -> list[Finding]:
        """Return findings about the commands of a job that runs on this machine.

        Checks that do not depend on structure and parameters run once for each environment, as
        they read quacc's settings.
        """
        spec = job.spec
        if not runner.runs_here(spec.cluster):
            return []
        own = _gives_command(spec.parameters)
        key = (spec.recipe, spec.engine, spec.cluster, own)
        looked = self._looked.get(key)
        if looked is None or looked.environment is not spec.environment:
            looked = self._looked[key] = _look(job, runner, own=own)
        if looked.commands is None:
            return looked.findings
        return [*looked.findings, *_steps(job, looked.commands)]


def _look(job: AskedJob, runner: EngineRunner, *, own: bool) -> _Looked:
    from crystalmath.preflight.commands import check_ranks, commands_of

    recipe, environment = job.spec.recipe, job.spec.environment
    commands = None if own else commands_of(recipe, environment)
    missing = commands if isinstance(commands, Finding) else commands and commands.check()
    workers = runner.workers()
    ranks = None if workers is None else check_ranks(recipe, environment, workers)
    return _Looked(
        environment,
        [finding for finding in (missing, ranks) if finding],
        None if missing or isinstance(commands, Finding) else commands,
    )


def _steps(job: AskedJob, commands: Commands) -> list[Finding]:
    from crystalmath.preflight import inspector

    def ask(*, exact: bool) -> Report:
        return inspector.ask(**job.of_hooks(), inputs=exact)

    try:
        finding = commands.check_steps(ask)
    except inspector.CannotAsk:  # another check reports it
        return []
    return [finding] if finding else []


def _gives_command(parameters: Mapping[str, Any]) -> bool:
    """Return whether the parameters of a job, or of a flow's step, have a command."""
    return any(
        (key == "command" and value is not None)
        or (isinstance(value, Mapping) and _gives_command(value))
        for key, value in parameters.items()
    )


def unless_set_there(findings: Sequence[Finding], cluster: str) -> list[Finding]:
    """Return findings with warnings for settings that a cluster's commands may still make.

    Errors about unset variables, programs that are not on ``PATH``, and the file of quacc's
    settings, which variables override, become warnings.
    """
    return [_softened(finding, cluster) for finding in findings]


def unless_there(
    findings: Sequence[Finding], shares_files: Callable[[], bool]
) -> Sequence[Finding]:
    """Return findings with warnings for files and programs that the worker's machine may have.

    Errors about variables, settings, programs and their files become warnings. `shares_files` is
    called only if there are such errors.
    """
    from crystalmath.engines.registry import plugins

    kinds = tuple(program.files.code for program in plugins().programs())

    def is_of_machine(finding: Finding) -> bool:
        of_files = finding.code.startswith(kinds) or finding.code.endswith("_unset")
        of_others = finding.code in {"command_missing", "quacc_settings", "settings_relative"}
        return finding.severity == "error" and (of_files or of_others)

    if not any(map(is_of_machine, findings)) or shares_files():
        return findings
    remedy = "nothing, if the machine of the workers has it: it shares no files with this one"
    return [
        replace(each, severity="warning", remedy=remedy) if is_of_machine(each) else each
        for each in findings
    ]


def _softened(finding: Finding, cluster: str) -> Finding:
    # Another PATH does not help a program that is named by its path.
    on_path = finding.code == "command_missing" and finding.path is None
    in_file = finding.code == "quacc_settings" and not (finding.source or "").isidentifier()
    if finding.severity != "error" or not (on_path or in_file or finding.code.endswith("_unset")):
        return finding
    table = f"[clusters.{cluster}]"
    remedy = (
        f"{finding.remedy}; worker_init of {table} may do so, which only its nodes know: "
        f"the environment of {table} can be checked"
    )
    return replace(finding, severity="warning", remedy=remedy)
