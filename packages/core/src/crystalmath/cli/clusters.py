"""``crystalmath clusters``: list configured clusters, add an example, or check one."""

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
#: Tables for config.toml, by the names of the clusters in them.
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
    # Flux allocates no memory.
    "flux": _allocations(
        "flux", "flux", also=_EXCLUSIVE, launcher=FLUX_RUN, queue="pbatch", more=""
    ),
    "workstation": _WORKSTATION,
}


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
    from crystalmath import config

    configured = config.load()  # raises if the file cannot be read, before anything is written
    if name in configured.clusters:
        raise ConfigError(f"[clusters.{name}] stands in {configured.home / 'config.toml'} already")
    make_own(configured.home)
    path = configured.home / "config.toml"
    path.touch(mode=0o600)  # a file that others can write to would be refused
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
    with any_client(runs=True) as client:
        yield from client.check_cluster(name, job.job_id)["checks"]


def _late(job: Job, timeout_s: float) -> Check:
    """Return the failed check of a job that did not end in time."""
    what = "had not ended" if job.state is JobState.RUNNING else "had not begun"
    message = f"the job {what} after {timeout_s:g} s: {job.reason or 'no reason is known'}"
    remedy = "it was cancelled; a longer --timeout (1h) waits for a longer queue"
    return Check("queue", "error", message, remedy)
