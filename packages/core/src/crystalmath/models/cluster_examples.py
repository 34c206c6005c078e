"""Commented tables of clusters for ``config.toml``."""

from __future__ import annotations

from crystalmath.models.cluster import FLUX_RUN

_OF_ALLOCATIONS = """\
walltime = "04:00:00"            # for jobs without a walltime
launcher = "{launcher}"   # starts a job's ranks
# queue = "{queue}"{more}
# account = "my-project"
# nodes = 1                      # defaults for jobs that set no resources
# ranks = 16
# cores_per_rank = 1
{also}# worker_init = "module load vasp"             # before anything else
# environment = {{ VASP_PP_PATH = "/sw/potcars" }}   # override your variables in jobs there
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
# cores_per_node = 64            # requested on each node; default: whole nodes (exclusive)
# memory_mb = 128000             # of a pilot job, on all its nodes together
# options = { constraint = "skylake" }         # more options of sbatch, without dashes
# worker_init = "module load vasp"             # on each node, before anything else
# environment = { VASP_PP_PATH = "/sw/potcars" }   # override your variables in jobs there
# scratch = "$TMPDIR"            # calculations run on the node's own disk
"""


_WORKSTATION = """
[clusters.workstation]           # --cluster workstation
engine = "local"                 # this machine: its workers are those of --cluster local
scheduler = "local"
launcher = "mpirun -np {ranks}"  # starts a job's ranks
# ranks = 8                      # defaults for jobs that set no resources
# cores_per_rank = 1
# walltime = "24:00:00"
# worker_init = "module load vasp"             # before anything else
# environment = { VASP_PP_PATH = "/sw/potcars" }   # override your variables in jobs there
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
