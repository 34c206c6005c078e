"""``crystalmath clusters``: which are configured, an example of one, and whether one works."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated

import typer

from crystalmath._permissions import make_own
from crystalmath.cli.shared import output
from crystalmath.cli.shared.common_arguments import Json, any_client
from crystalmath.cli.shared.health import report
from crystalmath.cli.shared.parameter_options import parse_walltime
from crystalmath.errors import ConfigError, CrystalMathError, did_you_mean
from crystalmath.models.cluster import FLUX_RUN, Check, cluster_checks
from crystalmath.models.job_notes import JobState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crystalmath.client import Client, Job
    from crystalmath.wire.answers import ClusterEntry


_OF_ALLOCATIONS = """\
walltime = "04:00:00"            # of a job that gives none
launcher = "{launcher}"   # starts a job's ranks
# queue = "{queue}"{more}
# account = "my-project"
# nodes = 1                      # these are of a job that asks for nothing else
# ranks = 16
# cores_per_rank = 1
{also}# worker_init = "module load vasp"             # before anything else
# environment = {{ VASP_PP_PATH = "/sw/potcars" }}   # what jobs see there in place of yours
# scratch = "$TMPDIR"            # calculations run on the node's own disk
"""

_SLURM = """
[clusters.slurm]                 # --cluster slurm
engine = "parsl"                 # pilot jobs that run many of yours, one after another
scheduler = "slurm"
walltime = "04:00:00"            # of a pilot job
# queue = "main"                 # the partition; default: Slurm's own
# account = "my-project"
# nodes = 1                      # of a pilot job
# workers_per_node = 8           # jobs at a time on a node; default: its cores
# max_blocks = 2                 # pilot jobs at a time
# max_idletime = "2m"            # one without work ends after this time
# mpi = "srun"                   # jobs take --nodes and --ranks; without ..._per_node
# cores_per_node = 64            # asked for on each node; default: whole nodes (exclusive)
# memory_mb = 128000             # of a pilot job, on all its nodes together
# options = { constraint = "skylake" }         # more options of sbatch, without dashes
# worker_init = "module load vasp"             # on each node, before anything else
# environment = { VASP_PP_PATH = "/sw/potcars" }   # what jobs see there in place of yours
# scratch = "$TMPDIR"            # calculations run on the node's own disk
"""


_WORKSTATION = """
[clusters.workstation]           # --cluster workstation
engine = "local"                 # this machine: its workers are those of --cluster local
scheduler = "local"
launcher = "mpirun -np {ranks}"  # starts a job's ranks
# ranks = 8                      # these are of a job that asks for nothing else
# cores_per_rank = 1
# walltime = "24:00:00"
# worker_init = "module load vasp"             # before anything else
# environment = { VASP_PP_PATH = "/sw/potcars" }   # what jobs see there in place of yours
# scratch = "$TMPDIR"            # calculations run on the node's own disk
"""


_MEMORY = "# memory_mb = 64000              # of a job, on all its nodes together\n"
_EXCLUSIVE = '# options = { exclusive = "" }    # more options of flux batch, without dashes\n'


def _allocations(name: str, scheduler: str, also: str = _MEMORY, **said: str) -> str:
    return f"""
[clusters.{name}]{" " * (22 - len(name))}# --cluster {name}
engine = "psij"                  # one allocation for each job
scheduler = "{scheduler}"
{_OF_ALLOCATIONS.format(also=also, **said)}"""


_MPIRUN = "mpirun -np {ranks}"
#: The table of each is named as the example is.
EXAMPLES = {
    "slurm": _SLURM,
    "allocations": _allocations(
        "allocations",
        "slurm",
        launcher="srun --ntasks={ranks} --cpus-per-task={cores_per_rank}",
        queue="main",
        more="                 # the partition; default: Slurm's own",
    ),
    "pbs": _allocations("pbs", "pbs", launcher=_MPIRUN, queue="workq", more=""),
    "lsf": _allocations("lsf", "lsf", launcher=_MPIRUN, queue="normal", more=""),
    # It hands out no memory.
    "flux": _allocations(
        "flux", "flux", also=_EXCLUSIVE, launcher=FLUX_RUN, queue="pbatch", more=""
    ),
    "workstation": _WORKSTATION,
}


#: Of a cluster with a batch system that no job of `clusters check` has proved.
_CONFIGURED = "configured"


def clusters(
    *,
    action: Annotated[
        str | None,
        typer.Argument(
            metavar="[init|check]",
            help="init writes a commented example; check sends a probe job to a cluster.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help=f"The example ({', '.join(EXAMPLES)}) or cluster."),
    ] = None,
    timeout: Annotated[
        str, typer.Option(metavar="T", help="check: how long its job may take, with the queue.")
    ] = "10m",
    as_json: Json = False,
) -> int:
    """List the configured clusters, check one, or add one.

    The list says of each whether its batch system answers, and when a check was passed there.
    ``init NAME`` adds a commented example to config.toml: slurm (Parsl's pilot jobs), allocations
    (one of Slurm for each job, through PSI/J), pbs, lsf or flux (the same there), or workstation
    (this machine, with programs and defaults of its own; it needs none, as each engine has a
    cluster local). ``check NAME`` runs a small job there, as a submission
    would, and says what it found: host, versions, programs, POTCARs, clocks, how long it waited.
    One that has not ended after --timeout is cancelled. Exits 1 where that job cannot run.
    """
    if action is None:
        return _list(as_json=as_json)
    if action not in {"init", "check"}:
        hint = did_you_mean(action, ["init", "check"])
        output.refuse(f"{action!r} is not known; {hint}")
    if action == "check":
        if name is None:
            output.refuse("name the cluster: crystalmath clusters check NAME")
        checks = _checks(name, parse_walltime(timeout))
        return report(checks, as_json=as_json, cluster=name)
    if name is None:
        names = "|".join(EXAMPLES)
        output.refuse(f"name the example: crystalmath clusters init {names}")
    if name not in EXAMPLES:
        hint = did_you_mean(name, EXAMPLES)
        output.refuse(f"there is no example {name!r}; {hint}")
    return _init(name, as_json=as_json)


def _list(*, as_json: bool) -> int:
    with any_client() as client:
        entries = client.clusters()
        if as_json:
            output.write_json({"clusters": entries})
            return 0
        words = [_word(each, client) for each in entries]
    if not entries:
        output.note("none is configured; `crystalmath clusters init slurm` writes an example")
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
    """Return what is known of a cluster."""
    from crystalmath.recipes.lookup import PROBE

    if cluster["error"]:
        return "cannot be used"
    if cluster["trouble"]:
        return f"{cluster['scheduler']} does not answer"
    if cluster["scheduler"] == "local":
        return "ready"
    with contextlib.suppress(CrystalMathError):  # then it is not known
        for job in client.list(
            recipe=PROBE, cluster=cluster["name"], state=JobState.COMPLETED.value, limit=1
        ):
            return f"checked {output.age(job.finished_at or job.created_at)} ago"
    return _CONFIGURED


def _init(name: str, *, as_json: bool) -> int:
    from crystalmath import config

    configured = config.load()  # a file that cannot be read is not written to
    if name in configured.clusters:
        raise ConfigError(f"[clusters.{name}] stands in {configured.home / 'config.toml'} already")
    make_own(configured.home)
    path = configured.home / "config.toml"
    path.touch(mode=0o600)  # one that others can write to is refused
    with path.open("a", encoding="utf-8") as file:
        file.write(EXAMPLES[name])
    if as_json:
        output.write_json({"path": str(path), "cluster": name})
    else:
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
    if interrupts.received is not None:
        raise SystemExit(128 + interrupts.received)
    if not job.state.is_terminal():
        yield from checks
        yield _late(job, timeout_s)
        return
    with any_client() as client:
        yield from client.check_cluster(name, job.job_id)["checks"]


def _late(job: Job, timeout_s: float) -> Check:
    """Say of a job that had not ended in time what it waited for."""
    what = "had not ended" if job.state is JobState.RUNNING else "had not begun"
    message = f"the job {what} after {timeout_s:g} s: {job.reason or 'no reason is known'}"
    remedy = "it was cancelled; a longer --timeout (1h) waits for a longer queue"
    return Check("queue", "error", message, remedy)
