"""``crystalmath clusters``: list configured clusters, add an example, or check one."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated

import typer

from crystalmath import config
from crystalmath.cli.shared import output
from crystalmath.cli.shared.common_arguments import Json, any_client
from crystalmath.cli.shared.health import report
from crystalmath.cli.shared.parameter_options import parse_walltime
from crystalmath.errors import CrystalMathError, did_you_mean
from crystalmath.models.cluster import Check, cluster_checks
from crystalmath.models.cluster_examples import EXAMPLES
from crystalmath.models.job_notes import JobState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crystalmath.client import Client, Job
    from crystalmath.wire.answers import ClusterEntry


#: The word for a cluster with a batch system that `clusters check` has not proved yet.
_CONFIGURED = "configured"


def clusters(
    *,
    action: Annotated[
        str | None,
        typer.Argument(
            metavar="[init|check]",
            help="init adds a commented example to config.toml; check runs a test job.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help=f"The example ({', '.join(EXAMPLES)}) or cluster."),
    ] = None,
    timeout: Annotated[
        str,
        typer.Option(
            metavar="T", help="With check: the longest time for the job and its queue: 10m, 1h."
        ),
    ] = "10m",
    as_json: Json = False,
) -> int:
    """List the configured clusters, check one, or add one.

    The list shows whether the batch system of each cluster answers, and when it last passed a
    check.

    `init NAME` adds a commented example to config.toml. The example slurm runs jobs in Parsl's
    pilot jobs. The example allocations submits each job to Slurm through PSI/J; pbs, lsf and flux
    do so with their batch systems. The example workstation is this machine, with its own programs
    and defaults.

    `check NAME` submits a small job to the cluster and reports on it: host, versions, programs,
    POTCARs, clocks, and the wait in the queue. After --timeout it cancels the job. Exits 1 if the
    job cannot run.
    """
    if action is None:
        return _list(as_json=as_json)
    if action not in {"init", "check"}:
        output.refuse(f"{action!r} is not known; {did_you_mean(action, ['init', 'check'])}")
    if action == "check":
        if name is None:
            output.refuse("name the cluster: crystalmath clusters check NAME")
        checks = _checks(name, parse_walltime(timeout))
        return report(checks, as_json=as_json, cluster=name)
    if name is None:
        output.refuse(f"name the example: crystalmath clusters init {'|'.join(EXAMPLES)}")
    if name not in EXAMPLES:
        output.refuse(f"there is no example {name!r}; {did_you_mean(name, EXAMPLES)}")
    return _init(name, as_json=as_json)


def _list(*, as_json: bool) -> int:
    with any_client() as client:
        entries = client.clusters()
        if as_json:
            return output.write_json({"clusters": entries})
        words = [_word(each, client) for each in entries]
    if not entries:
        on = f", typed on {remote}," if (remote := config.remote_name()) else ""
        output.note(f"none is configured; `crystalmath clusters init slurm`{on} writes an example")
        return 0
    rows = [
        (
            each["name"],
            each["engine"],
            each["scheduler"],
            str(each["resources"].get("queue", "")),
            word,
        )
        for each, word in zip(entries, words, strict=True)
    ]
    output.table(("CLUSTER", "ENGINE", "SCHEDULER", "QUEUE", ""), rows)
    for each, word in zip(entries, words, strict=True):
        if trouble := each["error"] or each["trouble"]:
            output.note(f"{each['name']}: {trouble}")
        elif word == _CONFIGURED:
            check = f"`crystalmath clusters check {each['name']}` runs a small job there"
            output.note(f"{each['name']}: not checked yet; {check}")
    return 0


def _word(cluster: ClusterEntry, client: Client) -> str:
    """Return the state of a cluster in a few words."""
    from crystalmath.recipes.lookup import PROBE

    if cluster["error"]:
        return "cannot be used"
    if cluster["trouble"]:
        return f"{cluster['scheduler']} does not answer"
    if cluster["scheduler"] == "local":
        return "ready"
    with contextlib.suppress(CrystalMathError):  # then its last check is unknown
        for job in client.list(
            recipe=PROBE, cluster=cluster["name"], state=JobState.COMPLETED.value, limit=1
        ):
            return f"checked {output.age(job.finished_at or job.created_at)} ago"
    return _CONFIGURED


def _init(name: str, *, as_json: bool) -> int:
    if remote := config.remote_name():
        output.refuse(f"it changes the configuration here; log in to {remote} for its own", "--on")
    path = config.add_table(EXAMPLES[name], "clusters", name)
    if as_json:
        return output.write_json({"path": str(path), "cluster": name})
    output.write(f"wrote [clusters.{name}] to {path}; look it through")
    return 0


# --- check -----------------------------------------------------------------------------------


def _checks(name: str, timeout_s: float) -> Iterator[Check]:
    from crystalmath.cli.run import Interrupts, run_submission
    from crystalmath.client import Submission
    from crystalmath.recipes.lookup import PROBE

    with any_client() as client:
        entry = next((each for each in client.clusters() if each["name"] == name), None)
    checks = cluster_checks(entry) if entry is not None else []
    if any(check.state == "error" for check in checks):
        yield from checks
        return
    with Interrupts() as interrupts:
        submission = Submission(recipe=PROBE, atoms=None, cluster=name, name=f"check {name}")
        job = run_submission(submission, interrupts, timeout_s)
    interrupts.leave_if_asked()
    if not job.state.is_terminal():
        yield from checks
        yield _late(job, timeout_s)
        return
    with any_client(runs=True) as client:
        yield from client.check_cluster(name, job.job_id)["checks"]


def _late(job: Job, timeout_s: float) -> Check:
    """Return the failed check of a job that did not end in time."""
    what = "had not ended" if job.state is JobState.RUNNING else "had not begun"
    message = f"the job {what} after {timeout_s:g} s: {job.reason or 'no reason is known'}"
    remedy = "it was cancelled; a longer --timeout (1h) waits for a longer queue"
    return Check("queue", "error", message, remedy)
