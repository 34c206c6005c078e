"""What a job asks for stands in the script that a batch system gets, or is refused."""

import contextlib
import functools
import json
import logging
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk
from attrs import evolve

from commands import finish, ran, start
from conftest import eventually
from crystalmath.errors import ConfigError, EngineUnavailable
from crystalmath.models import Attempt, Cluster, EngineSettings, Resources
from rundirs import write_job

pytest.importorskip("psij")

from crystalmath_engine_psij import allocation, batch_jobs, options
from crystalmath_engine_psij.batch_queues import QUEUES
from crystalmath_engine_psij.directives import LACKS
from crystalmath_engine_psij.runner import PsijRunner

ID = "3f2a91c4-0000-4000-8000-000000000000.1"
ALL = Resources(
    nodes=2,
    ranks=8,
    ranks_per_node=4,
    cores_per_rank=3,
    gpus_per_rank=1,
    memory_mb=4000,
    queue="long",
    account="ab12",
    reservation="maintenance",
)
#: Each resource in each script.
LINES = {
    "slurm": [
        f"#SBATCH --job-name={ID}",
        "#SBATCH --no-requeue",
        "#SBATCH --nodes=2",
        "#SBATCH --ntasks=8",
        "#SBATCH --ntasks-per-node=4",
        "#SBATCH --cpus-per-task=3",
        "#SBATCH --gpus-per-task=1",
        "#SBATCH --mem=2048000K",  # on each node
        '#SBATCH --partition="long"',
        '#SBATCH --account="ab12"',
        '#SBATCH --reservation="maintenance"',
        "#SBATCH --time=1-1:0:30",
    ],
    "pbs": [
        f"#PBS -N {ID}",
        "#PBS -r n",
        "#PBS -l select=2:ncpus=12:mpiprocs=4:ompthreads=3:ngpus=4:mem=2000mb",
        "#PBS -A ab12",
        "#PBS -q maintenance",  # a reservation is a queue there
        "#PBS -l walltime=25:0:30",
    ],
    "lsf": [
        f"#BSUB -J {ID}",
        "#BSUB -rn",
        "#BSUB -nnodes 2",
        "#BSUB -n 8",
        '#BSUB -R "span[ptile=4]"',
        '#BSUB -R "affinity[core(3)]"',
        "#BSUB -gpu num=1/task",
        "#BSUB -M 4096000KB",
        '#BSUB -q "long"',
        '#BSUB -P "ab12"',
        '#BSUB -U "maintenance"',
        "#BSUB -W 25:1",
    ],
    "flux": [
        f"#FLUX: --job-name={ID}",
        "#FLUX: --nodes=2",
        "#FLUX: --nslots=8",
        "#FLUX: --cores-per-slot=3",
        "#FLUX: --gpus-per-slot=1",
        "#FLUX: --queue=long",
        "#FLUX: --bank=ab12",
        "#FLUX: --time-limit=90030s",  # without a unit it would be minutes
    ],
}
#: What each batch system's command for submitting says.
ANSWERS = {
    "sbatch": "Submitted batch job 17",
    "qsub": "17.server",
    "bsub": "Job <17> is submitted",
    "flux": "ƒM7Zq9AKHno",
}
COMMANDS = {"slurm": "sbatch", "pbs": "qsub", "lsf": "bsub", "flux": "flux"}
NATIVES = {"slurm": "17", "pbs": "17.server", "lsf": "17", "flux": "fM7Zq9AKHno"}
#: Keeps the last of its arguments, the script; and tells how long an allocation of Flux lasts.
COMMAND = """\
if [ "$1 $2" = "job timeleft" ]; then echo ${{FLUX_LEFT:-4294967295}}; exit; fi
for file; do :; done
cp $file {place}/script
echo '{answer}'
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Where commands of batch systems are made of scripts."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def write(name, script):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)

    written: Any = write
    written.path = tmp_path
    return written


def runner_on(scheduler, home, *names):
    names = names or ("there",)
    clusters = {each: Cluster(name=each, engine="psij", scheduler=scheduler) for each in names}
    return PsijRunner(EngineSettings(name="psij", home=home, clusters=clusters))


def attempt_at(home, handle, number=1, cluster="there"):
    id_ = f"{ID[:-2]}.{number}"
    return Attempt(id=id_, job_id=ID[:-2], directory=home, cluster=cluster, handle=handle)


@pytest.fixture(params=list(LINES))
def scheduler(request):
    return request.param


@pytest.fixture
def submit(tmp_path, scheduler, place):
    """Submit to a command that keeps the script; give handle and script."""
    name = COMMANDS[scheduler]
    place(name, COMMAND.format(place=tmp_path, answer=ANSWERS[name]))
    jobs = batch_jobs.BatchJobs(scheduler, tmp_path / "engine", logging.getLogger("test"))
    directory = tmp_path / "run"
    directory.mkdir()

    def submit(asked, asked_s=90030.0, **cluster):
        attempt = evolve(attempt_at(directory, None), resources=asked, walltime_s=asked_s)
        made = Cluster(name="there", engine="psij", scheduler=scheduler, **cluster)
        handle = jobs.launch([attempt], made)[ID]
        if isinstance(handle, Exception):
            raise handle
        return handle, (tmp_path / "script").read_text()

    command: Any = submit
    command.says = functools.partial(place, name)
    return command


def test_every_resource_is_in_the_script(submit, scheduler):
    handle, script = submit(evolve(ALL, **dict.fromkeys(LACKS.get(scheduler, ()))))
    assert handle == NATIVES[scheduler]
    lines = script.splitlines()
    assert [line for line in LINES[scheduler] if line not in lines] == []
    assert lines[0] == "#!/bin/bash"
    # A directive behind the first command is none.
    sign = LINES[scheduler][0].split()[0]
    first = next(n for n, line in enumerate(lines) if line and not line.startswith("#"))
    assert not [line for line in lines[first:] if line.startswith(sign)]


def test_a_clusters_defaults_are_for_what_a_job_leaves_out(submit, scheduler):
    defaults = Resources(queue="short", account="cd34")
    _, script = submit(Resources(queue="long"), None, resources=defaults, walltime_s=3600.0)
    assert "long" in script
    assert "short" not in script
    assert "cd34" in script
    words = {"slurm": "--time=1:0:0", "pbs": "walltime=1:0:0", "lsf": "-W 1:0"}
    assert {**words, "flux": "--time-limit=3600s"}[scheduler] in script


def test_who_asks_for_no_walltime_gets_the_queues(submit):
    _, script = submit(Resources(), None)
    assert not [word for word in ("--time", "-l walltime", "#BSUB -W") if word in script]


def told_end(script, **environ):
    """Have a shell do what the script does before anything else: how long from now is told?"""
    lines = script.splitlines()
    first, *more = (line for line in lines if line and not line.startswith("#"))
    assert first.startswith("export CRYSTALMATH_ALLOCATION_ENDS=")
    command = "\n".join([first, *(line for line in more if "CRYSTALMATH_ALLOCATION_ENDS" in line)])
    environ = {"PATH": os.environ["PATH"], "CRYSTALMATH_ALLOCATION_ENDS": "the server's"} | environ
    before = int(time.time())
    command = ("bash", "-c", f"{command}\nprintenv CRYSTALMATH_ALLOCATION_ENDS")
    told = ran(*command, env=environ, check=True).stdout.strip()
    return int(told) - before if told else None


def test_the_worker_is_told_when_its_allocation_ends(submit, scheduler):
    given = {"SLURM_JOB_START_TIME": "1000", "SLURM_JOB_END_TIME": "1600"}
    is_told = scheduler in {"slurm", "flux"}
    if scheduler == "flux":
        given = {"FLUX_LEFT": "600"}
    _, script = submit(Resources(), None, walltime_s=14410.0)
    # Two of them count minutes.
    asked = {"slurm": 14460, "pbs": 14410, "lsf": 14460, "flux": 14410}[scheduler]
    assert asked <= told_end(script) < asked + 60
    assert asked <= told_end(script, SLURM_JOB_START_TIME="1000") < asked + 60
    assert (600 <= told_end(script, **given) < 660) is is_told
    _, script = submit(Resources(), None)
    assert told_end(script) is None
    if is_told:
        assert 600 <= told_end(script, **given) < 660


def test_an_allocation_outlasts_a_jobs_walltime_as_far_as_its_cluster_asks_for(submit, scheduler):
    words = {"slurm": "--time={}", "pbs": "walltime={}", "lsf": "-W {}", "flux": "--time-limit={}"}
    for asked_s, cluster_s, lasts in [
        (600.0, 3600.0, ("0:12:0", "0:12", "720s")),
        (3540.0, 3600.0, ("1:0:0", "1:0", "3600s")),
        (3600.0, 1800.0, ("1:0:0", "1:0", "3600s")),
        (3600.0, None, ("1:0:0", "1:0", "3600s")),
    ]:
        _, script = submit(Resources(), asked_s, walltime_s=cluster_s)
        expected = words[scheduler].format(lasts[{"lsf": 1, "flux": 2}.get(scheduler, 0)])
        assert any(line.endswith(expected) for line in script.splitlines()), (asked_s, cluster_s)


def test_free_options(submit, scheduler):
    _, script = submit(Resources(options={"x": "two words", "exclusive": ""}))
    is_long = scheduler in {"slurm", "flux"}
    dashes, between = ("--", "=") if is_long else ("-", " ")
    sign = LINES[scheduler][0].split()[0]
    words = r"two\ words" if scheduler == "flux" else "'two words'"
    assert f"{sign} {dashes}x{between}{words}\n" in script
    assert f"{sign} {dashes}exclusive\n" in script


@pytest.mark.parametrize("option", ["account", "job-name", "A", "N", "q", "J", "mem", "o", "time"])
def test_an_option_that_contradicts_a_resource_is_refused(submit, scheduler, option):
    from crystalmath_engine_psij.directives import _TAKEN

    if option in _TAKEN[scheduler]:
        with pytest.raises(ConfigError, match=f"{option}.* is not free"):
            submit(Resources(options={option: "1"}))
    else:
        assert f"-{option}" in submit(Resources(options={option: "1"}))[1]


def test_worker_init_is_sourced_before_the_worker(submit, tmp_path):
    _, script = submit(Resources(), worker_init="module load vasp")
    (file,) = (tmp_path / "engine").glob("there.*.worker_init.sh")
    assert file.read_text().endswith("\nmodule load vasp\n")
    assert str(file) in script


def test_a_refusal_says_why(submit):
    submit.says("echo 'invalid partition' >&2; exit 1")
    with pytest.raises(ConfigError, match="refused it: invalid partition"):
        submit(Resources())


@pytest.mark.parametrize(
    "told",
    [
        "Unable to contact slurm controller",
        "Batch job submission failed: Protocol authentication error",
        "Connection refused",
        "flux-batch: ERROR: [Errno 22] job submission to batch is disabled: maintenance",
    ],
)
def test_a_scheduler_that_is_away_is_asked_again(submit, told):
    submit.says(f"echo '{told}' >&2; exit 1")
    with pytest.raises(EngineUnavailable, match=re.escape(told)):
        submit(Resources())


@pytest.mark.parametrize("answer", ["", "<html>17</html>", "\\377\\376"])
def test_an_answer_to_a_submission_that_cannot_be_read_is_no_verdict(submit, answer):
    submit.says(f"printf '{answer}'")
    with pytest.raises(EngineUnavailable, match="cannot be read"):
        submit(Resources())


def test_a_scheduler_that_hangs_is_asked_again(submit, monkeypatch):
    monkeypatch.setattr("crystalmath.engines.schedulers.ANSWER_S", 0.2)
    submit.says("exec sleep 30")
    with pytest.raises(EngineUnavailable, match=r"did not answer in 0\.2 s"):
        submit(Resources())


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"scheduler": "local"}, "scheduler must be one of slurm, pbs, lsf, flux, not 'local'"),
        ({"scheduler": "flux", "resources": Resources(memory_mb=1)}, "memory_mb cannot be used"),
        ({"scheduler": "slurm", "engine_options": {"nods": 2}}, "'nods' is not known"),
        ({"scheduler": "slurm", "resources": Resources(options={"mem": "1"})}, "memory_mb"),
    ],
)
def test_what_a_cluster_cannot_be_is_refused(tmp_path, table, told):
    cluster = Cluster(name="there", engine="psij", **table)
    settings = EngineSettings(name="psij", home=tmp_path, clusters={"there": cluster})
    with pytest.raises(ConfigError, match=told):
        options.clusters(settings)


def test_a_home_that_scripts_cannot_name_is_refused(tmp_path):
    cluster = Cluster(name="there", engine="psij", scheduler="slurm")
    home = tmp_path / "with blanks"
    settings = EngineSettings(name="psij", home=home, clusters={"there": cluster})
    with pytest.raises(ConfigError, match="must be a plain path"):
        options.clusters(settings)


def test_a_poll_of_500_allocations_on_two_clusters_costs_the_scheduler_one_call(place):
    names = ("one", "other")
    attempts = [
        attempt_at(place.path, str(number), number, names[number % 2]) for number in range(1, 501)
    ]
    told = "".join(f"{each.handle}|RUNNING|None|{each.id}|{each.handle}\n" for each in attempts)
    (place.path / "told").write_text(told)
    place("squeue", f"echo $* >> {place.path}/calls; cat {place.path}/told")
    seen = runner_on("slurm", place.path, *names).probe(attempts)
    assert {each.id: seen[each.id].state for each in attempts} == {
        each.id: "running" for each in attempts
    }
    assert len((place.path / "calls").read_text().splitlines()) == 1


def test_the_id_of_the_allocation_is_recorded_with_the_claim(home, monkeypatch):
    directory = write_job(home, "lab_recipes.value")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    subprocess.run(allocation.command(Path(directory.path), "a.1"), check=True, timeout=300)
    assert directory.containment(1)["allocation"] == "17"


QSTAT = """\
for id; do
    case $id in
        18.*|20.*) echo "qstat: Unknown Job Id $id.domain" >&2; status=153 ;;
    esac
done
echo '{"Jobs": {"17.server": {"job_state": "R", "Job_Name": "JOB.17"},
                "19.server": {"job_state": "Q", "Job_Name": "JOB.19"}}}'
exit $status
""".replace("JOB", ID[:-2])


#: Where the server forgets what has ended.
NO_HISTORY = """\
if [ $1 = -x ]; then echo "qstat: PBS is not configured to maintain job history" >&2; exit 1; fi
"""


@pytest.mark.parametrize(
    ("scheduler", "command", "script", "states"),
    [
        ("pbs", "qstat", QSTAT, ["running", "gone", "queued", "gone"]),
        ("pbs", "qstat", NO_HISTORY + QSTAT, ["running", "gone", "queued", "gone"]),
        ("pbs", "qstat", QSTAT.replace("18.*|20.*", "*.server"), ["gone"] * 4),
        ("lsf", "bjobs", "echo 'No job found' >&2; exit 255", ["gone"] * 4),
    ],
)
def test_what_a_batch_system_has_forgotten_hides_nothing_else(
    place, scheduler, command, script, states
):
    attempts = [attempt_at(place.path, f"{number}.server", number) for number in (17, 18, 19, 20)]
    place(command, script)
    seen = runner_on(scheduler, place.path).probe(attempts)
    assert [seen[each.id].state for each in attempts] == states
    gone = [seen[each.id] for each in attempts if seen[each.id].state == "gone"]
    assert all(each.unseen and "does not know it" in each.reason for each in gone)


#: The job 17 by the id that is recorded for an attempt; its name, and how it is cancelled.
ANOTHERS = {
    "slurm": ("squeue", "17|RUNNING|None|THIS|17", "scancel"),
    "pbs": ("qstat", '{"Jobs": {"17": {"Job_Name": "THIS", "job_state": "R"}}}', "qdel"),
    "lsf": ("bjobs", '{"RECORDS": [{"JOBID": "17", "STAT": "RUN", "JOB_NAME": "THIS"}]}', "bkill"),
    "flux": (
        "flux",
        '{"jobs": [{"id": 17, "jobid": "f17", "name": "THIS", "state": "RUN"}]}',
        "flux",
    ),
}


@pytest.mark.parametrize("scheduler", list(ANOTHERS))
def test_an_id_that_is_another_jobs_by_now_is_never_cancelled(place, scheduler):
    asks, answer, cancels = ANOTHERS[scheduler]
    handle = "f17" if scheduler == "flux" else "17"
    place(cancels, f'echo "$@" >> {place.path}/cancelled')

    def says(name):
        done = f'[ "$1" = cancel ] && {{ echo "$@" >> {place.path}/cancelled; exit; }}'
        place(asks, f"{done}\necho '{answer.replace('THIS', name)}'")

    says("my own work")
    runner, attempt = runner_on(scheduler, place.path), attempt_at(place.path, handle)
    seen = runner.probe([attempt])[ID]
    assert (seen.state, seen.unseen) == ("gone", True)
    assert f"job {handle} is another one by now" in seen.reason
    runner.release([attempt])
    assert not (place.path / "cancelled").exists()
    says(ID)
    assert runner.probe([attempt])[ID].state == "running"
    runner.release([attempt])
    cancelled = (place.path / "cancelled").read_text()
    assert handle in cancelled.split()
    assert scheduler != "slurm" or f"--name={ID}" in cancelled.split()


def test_anothers_job_of_the_same_id_and_name_is_not_ours(place):
    job = {"Job_Name": ID, "job_state": "R", "Job_Owner": "somebody.else@login"}
    place("qstat", f"echo '{json.dumps({'Jobs': {'17': job}})}'")
    seen = runner_on("pbs", place.path).probe([attempt_at(place.path, "17")])
    assert seen[ID].state == "gone"


def test_a_cancel_that_the_batch_system_was_not_told_of_is_tried_again(place):
    place("squeue", f"echo '17|PENDING|Priority|{ID}|17'")
    place(
        "scancel", "echo 'Kill job error on job id 17: Protocol authentication error' >&2; exit 1"
    )
    with pytest.raises(EngineUnavailable, match="authentication error"):
        runner_on("slurm", place.path).release([attempt_at(place.path, "17")])


def test_each_attempt_is_told_its_own_refusal(place):
    """One asks for a partition that is not there; one meets what nobody knows; two are taken."""
    place(
        "sbatch",
        f"number=$(sed -n 's/#SBATCH --job-name=.*\\.//p' $1); echo $number >> {place.path}/asked\n"
        "[ $number = 1 ] && { echo 'invalid partition specified: nosuch' >&2; exit 1; }\n"
        "[ $number = 2 ] && { echo 'Unspecified error' >&2; exit 1; }\n"
        'echo "Submitted batch job $number"',
    )
    place("squeue", "")
    attempts = [attempt_at(place.path, None, number) for number in (1, 2, 3, 4)]
    answers = list(runner_on("slurm", place.path).launch(attempts).values())
    assert isinstance(answers[0], ConfigError)
    assert "nosuch" in str(answers[0])
    assert isinstance(answers[1], EngineUnavailable)
    assert "Unspecified error" in str(answers[1])
    assert answers[2:] == ["3", "4"]


@pytest.mark.parametrize(
    ("says", "times"),
    [("Protocol authentication error", 1), ("AssocMaxSubmitJobLimit", 1), ("Unspecified error", 3)],
)
def test_a_batch_system_that_takes_nothing_is_not_asked_for_each(place, says, times):
    place("sbatch", f"echo x >> {place.path}/asked; echo '{says}' >&2; exit 1")
    place("squeue", "")
    attempts = [attempt_at(place.path, None, number) for number in range(1, 21)]
    answers = runner_on("slurm", place.path).launch(attempts)
    assert [says in str(each) for each in answers.values()] == [True] * 20
    assert all(isinstance(each, EngineUnavailable) for each in answers.values())
    assert len((place.path / "asked").read_text().split()) == times


def test_what_was_taken_though_sbatch_did_not_say_so_is_not_asked_for_twice(place):
    place(
        "sbatch",
        f"echo x >> {place.path}/asked; touch {place.path}/taken; echo timed out >&2; exit 1",
    )
    place("squeue", f"[ -e {place.path}/taken ] && echo '17|PENDING|Priority|{ID}|17'; exit 0")
    runner, attempt = runner_on("slurm", place.path), attempt_at(place.path, None)
    assert isinstance(runner.launch([attempt])[ID], EngineUnavailable)
    assert runner.launch([attempt]) == {ID: "17"}
    assert len((place.path / "asked").read_text().split()) == 1


def test_what_a_hanging_sbatch_submits_after_all_is_one_of_ours(place, monkeypatch):
    """Both allocations are found, and dropped, by the name; the claim lets one of them begin."""
    monkeypatch.setattr("crystalmath.engines.schedulers.ANSWER_S", 0.5)
    taken = f"echo '17|PENDING|Priority|{ID}|17' >> {place.path}/queue"
    late = f"{{ sleep 3; {taken}; }} > /dev/null 2>&1 &"
    place("sbatch", f"{late}\nexec sleep 30")
    place("squeue", f"cat {place.path}/queue")
    place("scancel", f'echo "$@" >> {place.path}/cancelled')
    (place.path / "queue").touch()
    runner, attempt = runner_on("slurm", place.path), attempt_at(place.path, None)
    assert "sbatch did not answer" in str(runner.launch([attempt])[ID])
    taken = f"echo '18|PENDING|Priority|{ID}|18' >> {place.path}/queue"
    place("sbatch", f"{taken}; echo Submitted batch job 18")
    assert runner.launch([attempt]) == {ID: "18"}
    eventually(lambda: len((place.path / "queue").read_text().splitlines()) == 2, 60)
    assert runner.probe([attempt])[ID].state == "queued"
    runner.release([attempt])
    cancelled = (place.path / "cancelled").read_text().split()
    assert {"17", "18"} <= set(cancelled)


def test_an_allocation_says_what_its_script_printed_or_that_it_left_nothing(place):
    place("squeue", f"echo '17|FAILED|NonZeroExitCode|{ID}|17'")
    runner, attempt = runner_on("slurm", place.path), attempt_at(place.path, "17")
    seen = runner.probe([attempt])[ID]
    assert seen.reason == "FAILED: its script left nothing, as on a node that does not see the home"
    assert seen.ended
    (place.path / "1.allocation").mkdir()
    (place.path / "1.allocation/17.out").write_text("loading\n\nmodule: command not found\n")
    assert runner.probe([attempt])[ID].reason == "FAILED: loading; module: command not found"


def test_a_batch_system_that_is_away_says_nothing_of_other_clusters(place):
    place("squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    there, here = attempt_at(place.path, "17"), attempt_at(place.path, None, 2, "local")
    seen = runner_on("slurm", place.path).probe([there, here])
    assert (seen[here.id].state, seen[here.id].reason) == ("gone", None)
    assert seen[there.id].state == "unknown"
    assert "slurm cannot be queried: Unable to contact" in seen[there.id].reason


@pytest.fixture
def full(home, place):
    """Have a Slurm whose queue is full; give the file that holds the name of what waits there."""
    waits = place.path / "waits"
    place("sbatch", f"sed -n 's/#SBATCH --job-name=//p' $1 > {waits}; echo Submitted batch job 17")
    place("squeue", f'[ -s {waits} ] && echo "17|PENDING|Resources|$(head -1 {waits})|17"; exit 0')
    place("scancel", f"rm {waits}")
    (home / "config.toml").write_text('[clusters.there]\nengine = "psij"\nscheduler = "slurm"\n')
    yield waits
    finish(start("stop", "--cancel"))


def test_a_check_of_a_full_queue_ends_and_leaves_nothing_queued(full):
    done = finish(start("clusters", "check", "there", "--timeout", "15s"))
    assert done.code == 1, done.err
    assert "the job had not begun after 15 s: Resources" in " ".join(done.out.split())
    assert not full.exists()


def test_a_check_that_is_interrupted_leaves_nothing_queued(full):
    checking = start("clusters", "check", "there")
    eventually(full.exists, 120)
    checking.send_signal(signal.SIGINT)
    assert finish(checking).code == 130
    assert not full.exists()


def test_a_scheduler_that_does_not_answer_is_said(full, place):
    assert "does not answer" not in finish(start("clusters")).out
    place("squeue", "echo 'squeue: error: Protocol authentication error' >&2; exit 1")
    listed = finish(start("clusters"))
    assert "slurm does not answer" in listed.out
    assert "Protocol authentication error" in listed.err
    told = finish(start("doctor")).out
    assert "slurm does not answer (there)" in told
    assert "Protocol authentication error" in told
    checked = finish(start("clusters", "check", "there"))
    assert (checked.code, full.exists()) == (1, False)
    assert "slurm does not answer" in checked.out


def rows(scheduler, text):
    asked = []

    def run(command):
        asked.append(command)
        return text

    found = QUEUES[scheduler].rows(run, ["17.server"])
    assert len(asked) == 1  # for all of them
    return [(row.native_id, row.name, row.state, row.reason) for row in found]


def test_reasons_of_slurm_may_have_blanks_and_names_bars():
    text = (
        "1|PENDING|ReqNodeNotAvail, UnavailableNodes:node1|a|b|1\n2|OUT_OF_MEMORY|OutOfMemory|c|2\n"
        "3|RUNNING|None|d|3\n4|COMPLETING|None|e|4\n5|NEW_WORD|None|f|5\n"
    )
    assert rows("slurm", text) == [
        ("1", "a|b", "queued", "ReqNodeNotAvail, UnavailableNodes:node1"),
        ("2", "c", "gone", "OUT_OF_MEMORY"),
        ("3", "d", "running", None),
        ("4", "e", "running", "COMPLETING"),
        ("5", "f", "unknown", "NEW_WORD"),
    ]


def test_the_queue_of_pbs():
    jobs = {
        "17.server": {"Job_Name": "a", "job_state": "Q", "comment": "Not Running: no node"},
        "18.server": {"Job_Name": "b", "job_state": "F", "Exit_status": -29},
        "19.server": {"Job_Name": "c", "job_state": "R"},
        **{
            f"{number}.server": {"Job_Name": "d", "job_state": "F", "Exit_status": -number}
            for number in (26, 27, 28)
        },
    }
    assert rows("pbs", json.dumps({"Jobs": jobs})) == [
        ("17.server", "a", "queued", "Not Running: no node"),
        ("18.server", "b", "gone", "TIMEOUT"),
        ("19.server", "c", "running", None),
        ("26.server", "d", "gone", "OUT_OF_MEMORY"),
        ("27.server", "d", "gone", "OUT_OF_MEMORY"),
        ("28.server", "d", "gone", "CPU_TIME"),
    ]


def test_the_queue_of_lsf():
    ended = {"EXIT_REASON": "TERM_MEMLIMIT: job killed", "PEND_REASON": ""}
    records = [
        {"JOBID": "17", "STAT": "PEND", "JOB_NAME": "a", "PEND_REASON": "New job is waiting;"},
        {"JOBID": "18", "STAT": "EXIT", "JOB_NAME": "b", **ended},
        {"JOBID": "19", "STAT": "RUN", "JOB_NAME": "c", "PEND_REASON": "", "EXIT_REASON": ""},
    ]
    assert rows("lsf", json.dumps({"RECORDS": records})) == [
        ("17", "a", "queued", "New job is waiting;"),
        ("18", "b", "gone", "OUT_OF_MEMORY"),
        ("19", "c", "running", "RUN"),
    ]


def test_a_queue_that_makes_no_sense_says_nothing_about_jobs():
    with pytest.raises(EngineUnavailable, match="cannot be read"):
        rows("lsf", "LSF is down")


# --- processes of this host ----------------------------------------------------------------------


def test_ends_are_noticed_though_no_thread_could_be_started_at_first(home, lab, monkeypatch):
    begin, failures = threading.Thread.start, ["the first"]

    def start(thread):
        if thread.name == "crystalmath-psij" and failures:
            raise RuntimeError(f"can't start new thread: {failures.pop()}")
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    settings = EngineSettings(name="psij", home=home, options={"workers": 1})
    with contextlib.closing(PsijRunner(settings)) as runner:
        for number in range(3):
            job_id = runner.submit("lab_recipes.value", bulk("Al"), number=number)
            eventually(lambda job_id=job_id: runner.get_status(job_id).is_terminal(), 120)
            assert runner.get_result(job_id) == {"value": number}
        # It ends with the last of the processes.
        eventually(lambda: "crystalmath-psij" not in {one.name for one in threading.enumerate()})
    assert not failures
