"""A Slurm made of scripts, which run its jobs on this host."""

#: Each starts, lists or ends what stands in a folder: a file a job, named as its id. It says which
#: process runs the job, 0 where it waits, and the job's name.
SBATCH = """#!/bin/sh
cd $(dirname $0)/..
if [ -e refusal ]; then echo asked >> refused; cat refusal >&2; exit 1; fi
job=$(($(ls jobs | wc -l) + 1))
for script; do :; done  # the last word
name=${SBATCH_JOB_NAME:-$(basename $script)}
case $1 in --job-name=*) name=${1#*=};; esac
SLURM_JOB_ID=$job SLURM_JOB_NAME=$name setsid bash $script \
    > $script.stdout 2> $script.stderr < /dev/null &
echo $! $name > jobs/$job
if [ -e late ]; then cat late >&2; exit 1; fi
echo "Submitted batch job $job"
"""
SQUEUE = """#!/bin/sh
cd $(dirname $0)/../jobs
if [ -e ../is_busy ]; then exit; fi
for job in *; do
    [ -e $job ] || break
    read pid name < $job; state=COMPLETED
    # At first it has no group of its own.
    if kill -0 $pid 2> /dev/null || kill -0 -$pid 2> /dev/null; then state=RUNNING; fi
    [ $pid = 0 ] && state=PENDING
    echo "$job|$state|None|$name|$job"
done
"""
#: As Slurm's, it ends of the jobs that are named those that fit what is asked beside.
SCANCEL = """#!/bin/sh
cd $(dirname $0)/../jobs
for word; do case $word in
    --state=PENDING) waits=1;;
    --name=*) asked=${word#--name=};;
    --user=*) ;;
    *) read pid name < $word
        [ "${asked-$name}" = $name ] && [ $pid = 0 -o -z "$waits" ] || continue
        echo $word >> ../cancelled
        if [ $pid = 0 ]; then rm $word; else kill -TERM -$pid; fi;;
esac; done
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

    def put(self, job, name, pid=0):
        """Have a job by that id and name, which waits unless a process runs it."""
        (self._folder / "jobs" / job).write_text(f"{pid} {name}\n")
        return f"{job} {name}"

    def replace(self, command, script):
        """Have a command do something else, and give what it did."""
        file = self._folder / "bin" / command
        before = file.read_text()
        file.write_text(script if script.startswith("#!") else f"#!/bin/sh\n{script}\n")
        return before

    @property
    def jobs(self):
        return sorted(file.name for file in (self._folder / "jobs").iterdir())
