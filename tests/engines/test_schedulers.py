"""What the commands of batch systems answer is judged in one place."""

import os
import subprocess
import time

import pytest

from crystalmath.engines import schedulers
from crystalmath.errors import ConfigError, EngineUnavailable

SLURM = "sbatch: error: Batch job submission failed: "
POLICY = (
    f"{SLURM}Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
)
#: Copied from Slurm 24.11, PBS, LSF and Flux.
FINAL = [
    f"sbatch: error: invalid partition specified: nosuch\n{SLURM}Invalid partition name specified",
    f"{SLURM}Invalid account or account/partition combination specified",
    f"{SLURM}Invalid qos specification",
    f"{SLURM}Requested node configuration is not available",
    f"{SLURM}Node count specification invalid",
    f"{SLURM}Requested time limit is invalid (missing or exceeds some limit)",
    f"{SLURM}Requested reservation is invalid",
    f"{SLURM}More processors requested than permitted",
    f"{SLURM}Invalid feature specification",
    f"sbatch: error: QOSMaxWallDurationPerJobLimit\n{POLICY}",
    "sbatch: error: Invalid --time specification",
    "sbatch: unrecognized option '--foo'\nTry \"sbatch --help\" for more information",
    "qsub: Unknown queue",
    "qsub: Job exceeds queue and/or server resource limits",
    "nosuch: No such queue. Job not submitted.",
    "flux-batch: ERROR: [Errno 22] Invalid queue 'nosuch' specified",
    "flux-batch: ERROR: [Errno 22] requested duration exceeds policy limit of 1h",
]
PASSING = [
    (
        "sbatch: error: If munged is up, restart with --num-threads=10\nsbatch: error: Munge "
        'encode failed: Failed to access "/run/munge/munge.socket.2": No such file or directory '
        "(Did you start munged?)\nsbatch: error: slurm_buffers_pack_msg: auth_g_create: "
        f"REQUEST_SUBMIT_BATCH_JOB has authentication error\n{SLURM}Protocol authentication error"
    ),
    f"{SLURM}Unable to contact slurm controller (connect failure)",
    f"{SLURM}Socket timed out on send/recv operation",
    f"{SLURM}Zero Bytes were transmitted or received",
    f"{SLURM}Unexpected message received",
    f"{SLURM}Slurm temporarily unable to accept job, sleeping and retrying",
    f"{SLURM}Required partition not available (inactive or drain)",
    f"{SLURM}Unspecified error",
    f"sbatch: error: AssocMaxSubmitJobLimit\n{POLICY}",
    f"sbatch: error: QOSMaxSubmitJobPerUserLimit\n{POLICY}",
    POLICY,
    "qsub: would exceed queue generic's per-user limit of jobs in 'Q' state",
    "pbs_iff: error returned: 15031\nqsub: cannot connect to server login (errno=15010)",
    "User <me>: Pending job threshold reached. Retrying in 60 seconds...",
    "LSF is down. Please wait ...",
    "flux-batch: ERROR: [Errno 22] job submission to batch is disabled: maintenance",
    "<html><body>502 Bad Gateway</body></html>",
    "",
]


@pytest.mark.parametrize("told", FINAL)
def test_a_refusal_that_names_the_request_is_final(told):
    assert schedulers.is_final(told)


@pytest.mark.parametrize("told", PASSING)
def test_any_other_refusal_may_pass(told):
    assert not schedulers.is_final(told)


@pytest.fixture
def command(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def write(name, script):
        file = tmp_path / f"{name}.new"
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
        file.replace(tmp_path / name)

    return write


def test_an_answer_in_no_encoding_is_read_and_a_failure_says_all_that_was_printed(command):
    command("squeue", r"printf '\377\376'; echo trouble >&2; exit $1")
    assert schedulers.run(["squeue", "0"]) == "��"
    with pytest.raises(subprocess.CalledProcessError) as caught:
        schedulers.run(["squeue", "3"])
    assert caught.value.output == "��\ntrouble"


def test_a_command_that_hangs_or_is_missing(command):
    command("squeue", "exec sleep 600")
    begun = time.monotonic()
    with pytest.raises(EngineUnavailable, match=r"squeue did not answer in 0\.3 s"):
        schedulers.run(["squeue"], answer_s=0.3)
    assert time.monotonic() - begun < 120
    with pytest.raises(ConfigError, match="nosuch is not in PATH"):
        schedulers.run(["nosuch"])


@pytest.mark.parametrize(
    "answer",
    [
        "<html><p>a | b | c</p></html>",
        "1|RUNNING|None",
        "1|RUNNING|None|a|2",
        r"\377\376|\377|\377|x",
    ],
)
def test_what_squeue_says_that_cannot_be_read_is_no_verdict(command, answer):
    command("squeue", f"printf '1|RUNNING|None|a|1\\n{answer}\\n'")
    with pytest.raises(EngineUnavailable, match="what squeue answers cannot be read"):
        schedulers.slurm_jobs()


def test_reasons_and_names_of_slurm_may_hold_anything(command):
    told = (
        "1|PENDING|ReqNodeNotAvail, UnavailableNodes:node1|a|b|1\n"
        "2_7|RUNNING|None||2_7\n3+0|PENDING|None|a b|3+0\n"
        "4|RUNNING|None|a\n\n5|RUNNING|None|x\f\n|4\n6|PENDING|None|last|6\n"
    )
    command("squeue", f"printf '{told}'")
    assert schedulers.slurm_jobs() == [
        schedulers.SlurmJob("1", "a|b", "PENDING", "ReqNodeNotAvail, UnavailableNodes:node1"),
        schedulers.SlurmJob("2_7", "", "RUNNING", "None"),
        schedulers.SlurmJob("3+0", "a b", "PENDING", "None"),
        schedulers.SlurmJob("4", "a\n\n5|RUNNING|None|x\f\n", "RUNNING", "None"),
        schedulers.SlurmJob("6", "last", "PENDING", "None"),
    ]


def test_scancel_is_told_id_name_and_user(command, tmp_path):
    command("scancel", f'echo "$@" >> {tmp_path}/asked; cat {tmp_path}/says >&2; exit 1')
    (tmp_path / "says").write_text("scancel: error: Kill job error on job id 7: Invalid job id s")
    schedulers.cancel_slurm_job("7", "a.1")  # it is over
    schedulers.cancel_slurm_job("8", "a.2", pending_only=True)
    me = os.getuid()
    asked = [f"--user={me} --name=a.1 7", f"--state=PENDING --user={me} --name=a.2 8"]
    assert (tmp_path / "asked").read_text().splitlines() == asked
    (tmp_path / "says").write_text("scancel: error: Protocol authentication error")
    with pytest.raises(EngineUnavailable, match="scancel: .*authentication error"):
        schedulers.cancel_slurm_job("7", "a.1")


def test_a_batch_system_that_does_not_answer_is_said(command):
    command("squeue", "echo 17")
    assert schedulers.trouble("slurm") is None
    command("squeue", "echo 'Protocol authentication error' >&2; exit 1")
    assert schedulers.trouble("slurm") == "squeue: Protocol authentication error"
    assert schedulers.trouble("local") is None


# --- hosts that have booted ----------------------------------------------------------------------

#: As Slurm 24.11 prints it, shortened.
A_NODE = (
    "NodeName={name} Arch=x86_64 NodeAddr=10.77.0.12 State=IDLE Partitions=main BootTime={boot} "
    "SlurmdStartTime={start} LastBusyTime=1796198461 \n"
)
LOST = "2|1796198360|node1|main|me|block-2|2\n"
BEGAN, BEFORE, LATER = 1796198360, 1796190000, 1796198367


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Have Slurm's commands print files, and note what they are asked."""
    for command in ("squeue", "scontrol", "srun"):
        script = tmp_path / command
        script.write_text(
            f"#!/bin/sh\ncd {tmp_path}\n"
            f'echo "$SLURM_TIME_FORMAT {command}" >> asked\nexec cat {command}.says\n'
        )
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(schedulers, "BOOTS_S", 0.0)
    lost = [f"{job}|{BEGAN}|node[1-2]|main|(null)|block-{job}|{job}\n" for job in (2, 3)]
    (tmp_path / "squeue.says").write_text("".join(lost))
    return tmp_path


def boots(slurm, *times, start=1796198900):
    nodes = [
        A_NODE.format(name=f"node{n}", boot=each, start=start) for n, each in enumerate(times, 1)
    ]
    (slurm / "scontrol.says").write_text("".join(nodes))


def test_nothing_of_an_allocation_lives_once_all_its_hosts_have_booted(slurm):
    reboots = schedulers.SlurmReboots()
    boots(slurm, BEFORE, BEFORE)
    assert not reboots.ended("2", "block-2")
    boots(slurm, BEFORE, LATER)
    assert not reboots.ended("2", "block-2")
    (slurm / "squeue.says").write_text("")  # Slurm forgets it
    boots(slurm, LATER, LATER)
    assert reboots.ended("2", "block-2")
    assert not reboots.ended("2", "another")
    assert not reboots.ended("4", "block-4")
    assert set((slurm / "asked").read_text().splitlines()) == {"%s squeue", "%s scontrol"}


def test_slurm_is_asked_once_for_all_that_were_on_the_same_hosts(slurm, monkeypatch):
    monkeypatch.setattr(schedulers, "BOOTS_S", 600.0)
    reboots = schedulers.SlurmReboots()
    boots(slurm, BEFORE)
    assert not any(reboots.ended(job, f"block-{job}") for job in "234" * 9)
    assert (slurm / "asked").read_text().splitlines() == ["%s squeue", "%s scontrol"]


@pytest.mark.parametrize(
    ("squeue", "node"),
    [
        ("2|2026-12-02T07:59:20|node1|main|me|block-2|2\n", A_NODE),
        (LOST, A_NODE.replace("={boot}", "=2026-12-02T07:59:27")),
        (LOST, A_NODE.replace("={boot}", "=None")),
        (LOST, ""),
        (LOST.replace("node1", ""), A_NODE),
        ("slurm_load_jobs error: Unable to contact slurm controller\n", A_NODE),
    ],
    ids=["no such times", "nor boots", "never booted", "no such host", "no hosts", "no answer"],
)
def test_what_slurm_does_not_say_plainly_proves_no_end(slurm, squeue, node):
    (slurm / "squeue.says").write_text(squeue)
    (slurm / "scontrol.says").write_text(node.format(name="node1", boot=LATER, start=LATER))
    reboots = schedulers.SlurmReboots()
    assert not reboots.ended("2", "block-2")
    assert reboots.boot_id("2", "block-2") is None


def test_where_slurm_cannot_be_asked_no_host_has_booted(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    reboots = schedulers.SlurmReboots()
    assert not reboots.ended("2", "block-2")
    assert reboots.boot_id("2", "block-2") is None


BOOT_ID = "1d4ed5de-4d3c-4b3c-9b8c-3d3c0ffe5fd5"


def asked_hosts(slurm):
    return [each for each in (slurm / "asked").read_text().splitlines() if "srun" in each]


def test_a_host_whose_daemon_has_started_again_is_asked_once_for_its_boot_id(slurm):
    reboots = schedulers.SlurmReboots()
    (slurm / "squeue.says").write_text(LOST)
    (slurm / "srun.says").write_text(f"Welcome to main\n{BOOT_ID}\n")
    boots(slurm, BEFORE, start=BEFORE)
    assert reboots.boot_id("2", "block-2") is None
    assert asked_hosts(slurm) == []
    boots(slurm, BEFORE, start=LATER)
    assert [reboots.boot_id("2", "block-2") for _ in range(3)] == [BOOT_ID] * 3
    assert len(asked_hosts(slurm)) == 1
    boots(slurm, BEFORE, start=LATER + 60)
    assert reboots.boot_id("2", "block-2") is None  # for a minute
    assert not reboots.ended("2", "block-2")


@pytest.mark.parametrize("says", [None, "", "no such file\n"])
def test_a_host_that_cannot_be_asked_is_left_alone_for_a_while(slurm, says):
    reboots = schedulers.SlurmReboots()
    (slurm / "squeue.says").write_text(LOST)
    boots(slurm, BEFORE, start=LATER)
    if says is not None:
        (slurm / "srun.says").write_text(says)
    assert [reboots.boot_id("2", "block-2") for _ in range(3)] == [None] * 3
    assert len(asked_hosts(slurm)) == 1


def test_an_allocation_of_two_hosts_has_no_boot_id_of_its_own(slurm):
    boots(slurm, BEFORE, BEFORE, start=LATER)
    assert schedulers.SlurmReboots().boot_id("2", "block-2") is None
