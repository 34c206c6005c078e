"""The terms of a flow and of its steps: what the first pass runs on, and settings by step."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import evolve

from crystalmath.errors import Finding, InvalidJob, JobRefused, did_you_mean, shown
from crystalmath.models import JobSpec, Resources
from crystalmath.models.fields import plain
from crystalmath.models.job_notes import step_of
from crystalmath.models.submission import MOST_PRIORITY, MOST_STEPS, merged, step_matches
from crystalmath.preflight.unread_parameters import job_faults
from crystalmath.reading.flow_steps import has_result
from crystalmath.recipes import codec
from crystalmath.recipes.lookup import look_up
from crystalmath.submitting.retrying import environment_before

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from crystalmath.config import Config
    from crystalmath.models.inputs import StepCheck
    from crystalmath.models.retry import Retry
    from crystalmath.quacc.store import JobMetadata
    from crystalmath.reading.home_jobs import HomeJobs

#: The suffix that numbers the steps of one recipe: ``relax_job#2``.
_NUMBER = re.compile(r"#.*")


def first_pass(
    spec: JobSpec,
    taken: Sequence[Mapping[str, Any]],
    repeats: str | None,
    on_cluster: Sequence[str],
) -> JobSpec:
    """Return the specification of a flow's first pass.

    The terms of the flow are for its steps: a pass runs beside its owner, without them. Passes of
    a flow that `on_cluster` matches run where its steps run, on the same terms. `taken` has the
    entries of the steps that a retried flow keeps.
    """
    flow_terms = {name: plain(value) for name, value in spec.terms().items()}
    flow_terms["engine"] = spec.engine
    # A pass precedes all other waiting jobs: it is short, and its steps depend on it.
    priority = MOST_PRIORITY
    if not runs_on_cluster(spec, on_cluster):
        spec = evolve(
            spec,
            engine="local",
            cluster=spec.cluster if spec.engine == "local" else "local",
            environment=environment_before(spec.header()),
            replaced={},
            resources=Resources(),
            walltime_s=None,
        )
        priority += 1  # Reserved for passes: they start without a free worker of the engine.
    return evolve(
        spec,
        walltime_s=least(spec.walltime_s, spec.walltime_total_s),
        continue_lost=None,
        priority=priority,
        flow={
            "pass": 1,
            "attempt": 1,
            "serial": spec.serial,
            "most": MOST_STEPS,
            "repeats": repeats,
            "steps": list(taken),
            "asked": flow_terms,
            "walltime_s": spec.walltime_s,
        },
    )


def runs_on_cluster(spec: JobSpec, on_cluster: Sequence[str]) -> bool:
    """Return whether the passes of a flow run where its steps run."""
    return any(step_matches(pattern, spec.recipe, spec.recipe) for pattern in on_cluster)


def least(*times: float | None) -> float | None:
    """Return the shortest of the times that are set, in seconds."""
    return min((time for time in times if time is not None), default=None)


def terms_by_step(
    terms: Mapping[str, Any], settings: Mapping[str, Any], configured: Config
) -> dict[str, Any]:
    """Return the terms of a step, engine included: its own `settings`, else those of its flow."""
    own = {name: value for name, value in settings.items() if value is not None}
    own.pop("params", None)
    resources = Resources(**own.pop("resources", {})).over(terms["resources"])
    if (cluster := configured.clusters.get(own.get("cluster", ""))) is not None:
        own.setdefault("engine", cluster.engine)
    return {**terms, **own, "resources": resources}


def by_step_faults(
    by_step: Mapping[str, Mapping[str, Any]],
    steps: Iterable[StepCheck],
    configured: Config,
    awaits: str | None,
) -> tuple[list[Finding], list[str]]:
    """Check settings by step: each pattern matches a step, and each parameter fits its recipe.

    `awaits` says why the flow may call more steps than `steps`. Also return the patterns that may
    match such later steps.
    """
    called = [(step.recipe, step.name) for step in steps if step.recipe]
    findings: list[Finding] = []
    unknown = []
    for pattern, settings in by_step.items():
        findings += _changed_faults(pattern, settings, called, configured)
        # A later step of a recipe that is already called counts as known.
        likely = _NUMBER.sub("*", pattern) if awaits else pattern
        remedy = _suggestion(pattern, called, awaits and "")
        if any(step_matches(pattern, *one) for one in called):
            continue
        if awaits and (not remedy or any(step_matches(likely, *one) for one in called)):
            unknown.append(pattern)
            continue
        known = " that is known before it has begun" if awaits else ""
        findings.append(
            Finding(
                severity="warning",
                code="step_unknown",
                message=f"{pattern!r} matches no step of the flow{known}",
                remedy=remedy,
                place=f"by_step.{pattern}",
            )
        )
    return findings, unknown


def _suggestion(
    pattern: str, called: Collection[tuple[str, str]], otherwise: str | None = None
) -> str:
    """Suggest steps for a pattern that matches none."""
    anywhere = f"*{pattern}"  # also in subflows
    if "#" in pattern and any(step_matches(anywhere, *one) for one in called):
        return f"did you mean {anywhere!r}?"
    return did_you_mean(pattern, sorted({one[0].rpartition(".")[2] for one in called}), otherwise)


def _changed_faults(
    pattern: str,
    settings: Mapping[str, Any],
    called: Iterable[tuple[str, str]],
    configured: Config,
) -> Iterator[Finding]:
    """Check the changed parameters of some steps against the signatures of their recipes."""
    parameters = codec.decode_request(settings.get("params") or {})
    recipes = {one[0] for one in called if step_matches(pattern, *one)} if parameters else ()
    for recipe in sorted(recipes):
        with contextlib.suppress(InvalidJob):  # Another check reports a recipe that is gone.
            declared = look_up(recipe, configured.recipes_allow)
            yield from job_faults(declared, parameters, f"{pattern}.")


def changes_by_step(
    changes: Retry, flow: JobMetadata, jobs: HomeJobs
) -> tuple[Retry, tuple[Finding, ...]]:
    """Turn changed parameters that are named after steps into changes by step.

    Also return warnings about changes by step.

    Raises
    ------
    InvalidJob
        A name is neither a parameter of the flow nor one of its steps.
    JobRefused
        A step does not take a parameter.
    """
    signature = look_up(flow.recipe, jobs.config.recipes_allow).signature
    parameters = {} if signature is None else signature.parameters
    others = changes.parameters.keys() - parameters.keys()
    if not (others or changes.by_step):
        return changes, ()
    takes_any = signature is None or any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    own, by_step = dict(changes.parameters), dict(changes.by_step)
    header = json.loads(jobs.specification(flow.job_id).partition("\n")[0])
    kept = [entry["job_id"] for entry in header["flow"]["steps"]]
    # Recipe and name of each step, and whether it has completed.
    called: dict[tuple[str, str], bool] = {}
    for job in jobs.some_jobs([*kept, *jobs.step_ids(flow.job_id)]):
        if of_flow := step_of(job.parents):
            step = (job.recipe, of_flow[1])
            called[step] = called.get(step, False) or has_result(jobs, job)
    for name in sorted(others):
        if not any(step_matches(name, *one) for one in called):
            if takes_any:
                continue
            known = sorted({recipe.rpartition(".")[2] for recipe, _ in called})
            hint = did_you_mean(name, [*known, *parameters])
            raise InvalidJob(
                f"{shown(name)} is no parameter of {flow.recipe}, and no step of flow "
                f"{flow.job_id} has that name; {hint}"
            )
        value = own.pop(name)
        if not isinstance(value, Mapping):
            raise InvalidJob(
                f"{name!r} is a step of flow {flow.job_id}, and takes its parameters by their "
                f"names ({name}.PARAMETER=VALUE), not {shown(value)}"
            )
        by_step[name] = merged(by_step.get(name, {}), {"params": codec.encode_request(value)})
    findings = [
        finding
        for pattern, settings in by_step.items()
        for finding in _changed_faults(pattern, settings, called, jobs.config)
    ]
    if any(finding.severity == "error" for finding in findings):
        raise JobRefused(findings)
    findings += [] if own else _changes_of_kept_steps(by_step, called)
    findings += _misspelt_patterns(changes.by_step, called, flow)
    return evolve(changes, parameters=own, by_step=by_step), tuple(findings)


def _misspelt_patterns(
    by_step: Iterable[str], called: Collection[tuple[str, str]], flow: JobMetadata
) -> Iterator[Finding]:
    """Warn of patterns that match no step and resemble the name of one."""
    for pattern in by_step:
        near = _suggestion(pattern, called, "")
        if near and not any(step_matches(pattern, *one) for one in called):
            yield Finding(
                severity="warning",
                code="step_unknown",
                message=f"{pattern!r} matches no step that flow {flow.job_id} has called",
                remedy=near,
                place=f"by_step.{pattern}",
            )


def _changes_of_kept_steps(
    by_step: Iterable[str], called: Mapping[tuple[str, str], bool]
) -> Iterator[Finding]:
    """Warn of changes that only match completed steps: a retry keeps these."""
    for pattern in by_step:
        states = [completed for one, completed in called.items() if step_matches(pattern, *one)]
        if states and all(states):
            which = "the step" if len(states) == 1 else f"each of the {len(states)} steps"
            yield Finding(
                severity="warning",
                code="step_taken_over",
                message=f"{which} that {pattern!r} matches has completed, and the retry keeps its "
                "result where the flow calls it with the same arguments",
                remedy="to compute it with the change, submit the flow anew, or retry the step "
                "alone (crystalmath retry STEP)",
                place=f"by_step.{pattern}",
            )
