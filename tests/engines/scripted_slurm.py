"""A Slurm made of scripts, which run its jobs on this host."""

from __future__ import annotations

#: Each starts, lists or ends what stands in a folder: a file a job, named as its id.
SBATCH = """#!/bin/sh
cd $(dirname $0)/..
if [ -e refusal ]; then echo asked >> refused; cat refusal >&2; exit 1; fi
job=$(($(ls jobs | wc -l) + 1))
SLURM_JOB_ID=$job setsid bash $1 > printed-$job 2>&1 < /dev/null &
echo $! $(basename $1) > jobs/$job
if [ -e late ]; then cat late >&2; exit 1; fi
echo "Submitted batch job $job"
"""
SQUEUE = """#!/bin/sh
cd $(dirname $0)/../jobs
if [ -e ../is_busy ]; then exit; fi
for job in *; do
    read pid name < $job; state=COMPLETED
    # At first it has no group of its own.
    if kill -0 $pid 2> /dev/null || kill -0 -$pid 2> /dev/null; then state=RUNNING; fi
    echo "$job|$state|None|$name"
done
"""
SCANCEL = """#!/bin/sh
cd $(dirname $0)/../jobs
[ $1 = --state=PENDING ] && exit  # none waits
for job; do read pid name < $job; echo $job >> ../cancelled; kill -TERM -$pid; done
exit 0
"""


class Slurm:
    """What was asked of it, and what it is to say."""

    def __init__(self, folder):
        self._folder = folder
        (folder / "bin").mkdir(parents=True)
        (folder / "jobs").mkdir()
        scripts = {"sbatch": SBATCH, "squeue": SQUEUE, "scancel": SCANCEL}
        for name, text in {**scripts, "sacct": "#!/bin/sh\nexit 1\n"}.items():
            (folder / "bin" / name).write_text(text)
            (folder / "bin" / name).chmod(0o755)
        #: What sbatch says that takes nothing, and one whose job is taken after all.
        self.refusal = folder / "refusal"
        self.late = folder / "late"
        #: While it is there, squeue shows nothing.
        self.is_busy = folder / "is_busy"

    def lines(self, name):
        file = self._folder / name
        return file.read_text().split() if file.exists() else []

    @property
    def jobs(self):
        return sorted(file.name for file in (self._folder / "jobs").iterdir())
