"""Whether what a job starts is there, on the machine where it runs."""

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
    """What was found for all jobs of an environment, and what differs from one to the next."""

    environment: Mapping[str, str]
    findings: list[Finding] = field(factory=list)
    commands: Commands | None = None


class CheckedCommands:
    """Look at what would start the programs of a batch."""

    def __init__(self) -> None:
        self._looked: dict[tuple[object, ...], _Looked] = {}

    def check(self, asked: AskedJob, runner: EngineRunner) -> list[Finding]:
        """Look for what starts a job's program, where its engine runs it on this machine.

        Of jobs of one environment all is done once that does not depend on structure and
        parameters, for it reads quacc's settings.
        """
        spec = asked.spec
        if not runner.runs_here(spec.cluster):
            return []
        own = _gives_command(spec.parameters)
        key = (spec.recipe, spec.engine, spec.cluster, own)
        looked = self._looked.get(key)
        if looked is None or looked.environment is not spec.environment:
            looked = self._looked[key] = _look(asked, runner, own=own)
        if looked.commands is None:
            return looked.findings
        return [*looked.findings, *_steps(asked, looked.commands)]


def _look(asked: AskedJob, runner: EngineRunner, *, own: bool) -> _Looked:
    from crystalmath.preflight.commands import check_ranks, commands_of

    recipe, environment = asked.spec.recipe, asked.spec.environment
    commands = None if own else commands_of(recipe, environment)
    missing = commands if isinstance(commands, Finding) else commands and commands.check()
    workers = runner.workers()
    ranks = None if workers is None else check_ranks(recipe, environment, workers)
    return _Looked(
        environment,
        [finding for finding in (missing, ranks) if finding],
        None if missing or isinstance(commands, Finding) else commands,
    )


def _steps(asked: AskedJob, commands: Commands) -> list[Finding]:
    from crystalmath.preflight import inspector

    def ask(*, exact: bool) -> Report:
        return inspector.ask(**asked.of_hooks(), inputs=exact)

    try:
        found = commands.check_steps(ask)
    except inspector.CannotAsk:  # which was told
        return []
    return [found] if found else []


def _gives_command(parameters: Mapping[str, Any]) -> bool:
    """Return whether a job, or one of a flow's, has a command of its own."""
    return any(
        (key == "command" and value is not None)
        or (isinstance(value, Mapping) and _gives_command(value))
        for key, value in parameters.items()
    )


def unless_set_there(findings: Sequence[Finding], cluster: str) -> list[Finding]:
    """Let a job pass for which a cluster's commands may set what its submitter has not set.

    Errors about variables that are not set, programs that are not on ``PATH``, or the file of
    quacc's settings, before which variables go, become warnings.
    """
    return [_softened(finding, cluster) for finding in findings]


def unless_there(
    findings: Sequence[Finding], shares_files: Callable[[], bool]
) -> Sequence[Finding]:
    """Let a job pass for which this machine lacks what the machine of its workers may have.

    Errors about variables, settings, programs and the files that these read become warnings. The
    engine is asked only where there are such.
    """
    from crystalmath.engines.registry import plugins

    kinds = tuple(program.files.code for program in plugins().programs())

    def is_of_machine(finding: Finding) -> bool:
        of_files = finding.code.startswith(kinds) or finding.code.endswith("_unset")
        of_others = finding.code in {"command_missing", "quacc_settings", "settings_relative"}
        return finding.severity == "error" and (of_files or of_others)

    if not any(map(is_of_machine, findings)) or shares_files():
        return findings
    remedy = "nothing, if the machine of the workers has it: they share no files with this one"
    return [
        replace(each, severity="warning", remedy=remedy) if is_of_machine(each) else each
        for each in findings
    ]


def _softened(finding: Finding, cluster: str) -> Finding:
    # A program that is named by its path is not found on another PATH, either.
    on_path = finding.code == "command_missing" and finding.path is None
    in_file = finding.code == "quacc_settings" and not (finding.source or "").isidentifier()
    if finding.severity != "error" or not (on_path or in_file or finding.code.endswith("_unset")):
        return finding
    table = f"[clusters.{cluster}]"
    remedy = (
        f"{finding.remedy}; worker_init of {table} may do so, which is known on its nodes alone: "
        f"what stands in environment of {table} can be checked"
    )
    return replace(finding, severity="warning", remedy=remedy)
