"""Clusters in the configuration file: what is read, refused and listed, and the engine implied."""

import os
import platform
import re
import sys
import time
from importlib.metadata import version
from types import SimpleNamespace

import pytest
from ase.build import bulk

from crystalmath import config
from crystalmath.errors import ConfigError
from crystalmath.jobs.changes import Change
from crystalmath.models import Job, JobState, Submission
from crystalmath.models.retry import Retry
from crystalmath.preflight.node_probe import probe_job
from crystalmath.quacc.engines import runner_for
from crystalmath.quacc.store import JobStore
from crystalmath.recipes.lookup import PROBE
from crystalmath.service import JobService, cluster_probe
from crystalmath.service.cluster_probe import _clock, _version
from ends import finish, lab_job
from rundirs import new_job

SLURM = """
[clusters.big]
engine = "parsl"
scheduler = "slurm"
queue = "main"
account = "physics"
walltime = "00:10:00"
worker_init = "module load vasp"
nodes = 2
options = { constraint = "skylake", exclusive = "" }
max_blocks = 3
"""


def test_a_cluster_is_read(home):
    (home / "config.toml").write_text(SLURM)
    cluster = config.load().clusters["big"]
    assert (cluster.engine, cluster.scheduler, cluster.walltime_s) == ("parsl", "slurm", 600)
    assert cluster.worker_init == "module load vasp"
    assert cluster.resources.given() == {
        "queue": "main",
        "account": "physics",
        "nodes": 2,
        "options": {"constraint": "skylake", "exclusive": ""},
    }
    assert cluster.engine_options == {"max_blocks": 3}


HERE_ALONE = """
from crystalmath.engines.local import LocalRunner
from crystalmath.hookspecs import hookimpl

class HereAlone(LocalRunner):
    def clusters(self):
        return ["local"]

@hookimpl
def crystalmath_make_runner(settings):
    return HereAlone(settings)
"""


def test_an_engine_without_clusters_refuses_one(home, install):
    install("engine-here-alone", "herealone", HERE_ALONE)
    (home / "config.toml").write_text("[clusters.big]\nengine = 'herealone'\n")
    with pytest.raises(ConfigError, match=r"big\] the engine 'herealone' takes no clusters"):
        runner_for("herealone")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("scheduler = 'slurm'", 'scheduler must be "local" for the engine local'),
        ("memory_mb = 4000", "memory_mb cannot be used: the engine local honours ranks"),
        ("max_blocks = 2", "'max_blocks' is not known"),
    ],
)
def test_what_this_machine_cannot_be_is_refused(home, cli, line, told):
    (home / "config.toml").write_text(f"[clusters.big]\nengine = 'local'\n{line}\n")
    assert told in cli("clusters", "--json").json["clusters"][0]["error"]
    with pytest.raises(ConfigError, match=re.escape(told)):
        runner_for("local")


def test_a_workstation_has_programs_and_defaults_of_its_own(home, cli, lab):
    assert cli("clusters", "init", "workstation").code == 0
    with (home / "config.toml").open("a") as file:
        disk = home / "disk"
        init = f"export VASP_INIT=there TMPDIR={disk}; mkdir {disk}"
        file.write(f'ranks = 1\nscratch = "$TMPDIR/of-jobs"\nworker_init = "{init}"\n')
    with JobService() as service:
        job = finish(service, service.submit(lab_job("where", cluster="workstation")).job_id)
        told = service.result(job.job_id)["environment"]
    assert told["VASP_INIT"] == "there"
    assert told["QUACC_VASP_PARALLEL_CMD"] == "mpirun -np 1"
    # quacc fills it in.
    assert (told["QUACC_SCRATCH_DIR"], told["TMPDIR"]) == ("$TMPDIR/of-jobs", str(disk))


def test_a_clusters_name_implies_its_engine(home, install, lab):
    install("crystalmath-engine-odd", "odd", "raise ImportError('odd is not there')")
    (home / "config.toml").write_text("[clusters.big]\nengine = 'odd'\n")
    asked = lab_job("value", cluster="big")
    with JobService() as service, pytest.raises(ImportError, match="odd is not there"):
        service.submit(asked)


def test_clusters_are_listed(home, cli):
    (home / "config.toml").write_text("[clusters.big]\nengine = 'nonesuch'\nqueue = 'main'\n")
    (told,) = cli("clusters", "--json").json["clusters"]
    assert (told["name"], told["engine"], told["scheduler"]) == ("big", "nonesuch", "local")
    assert told["resources"] == {"queue": "main"}
    assert "'nonesuch' is not installed" in told["error"]


YONDER = """
from crystalmath.engines.local import LocalRunner
from crystalmath.hookspecs import hookimpl

@hookimpl
def crystalmath_make_runner(settings):
    return LocalRunner(settings)
"""


def test_a_batch_system_is_ready_only_once_it_was_checked(home, cli, install, monkeypatch):
    (home / "squeue").write_text("#!/bin/sh\n")
    (home / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{home}{os.pathsep}{os.environ['PATH']}")
    install("engine-yonder", "yonder", YONDER)
    table = "engine = 'yonder'\nscheduler"
    config_file = f"[clusters.big]\n{table} = 'slurm'\n[clusters.near]\n{table} = 'local'\n"
    (home / "config.toml").write_text(config_file)
    answer = cli("clusters")
    words = {line.split()[0]: line.split()[-1] for line in answer.out.splitlines()[1:]}
    assert words == {"big": "configured", "near": "ready"}
    assert "big: not checked yet; `crystalmath clusters check big` runs a small job" in answer.err
    assert "clusters check near" not in answer.err

    probe = new_job(
        recipe=PROBE,
        engine="yonder",
        cluster="big",
        specification='{"owner": {}}\n{"parameters": {}}',
        created_at=1.0,
    )
    with JobStore(f"sqlite:///{home}/jobs.sqlite") as store:
        store.insert([probe])
        assert "configured" in cli("clusters").out
        ended = time.time() - 7200
        store.apply([Change(job_id=probe.job_id, state=JobState.COMPLETED, at=ended, summary={})])
    answer = cli("clusters")
    assert "checked 2 h ago" in answer.out
    assert "clusters check" not in answer.err


def test_an_example_is_written_once(home, cli):
    assert cli("clusters", "init", "slurm").code == 0
    assert config.load().clusters["slurm"].engine == "parsl"
    again = cli("clusters", "init", "slurm")
    assert again.code == 1
    assert "already" in again.err
    assert "did you mean 'slurm'?" in cli("clusters", "init", "slrum").err
    assert cli("clusters", "init", "flux").code == 0
    assert config.load().clusters["flux"].launcher.startswith("flux run -N {nodes} -n {ranks}")
    assert "init slurm|allocations|pbs|lsf|flux|workstation" in cli("clusters", "init").err


def test_a_workstations_walltime_is_that_of_jobs_which_ask_for_none(home, lab):
    (home / "config.toml").write_text("[clusters.big]\nengine = 'local'\nwalltime = '2h'\n")

    def given(**asked):
        return service.submit(lab_job("value", **asked)).walltime_s

    with JobService() as service:
        assert given(cluster="big") == 7200.0
        assert given(cluster="big", walltime_s=60.0) == 60.0
        assert given(cluster="local") is None


def test_a_clusters_walltime_does_not_follow_a_job_that_runs_again(home, lab):
    table = "[clusters.{}]\nengine = 'local'\nwalltime = '{}'\n"
    text = table.format("short", "1h") + table.format("long", "10h")
    (home / "config.toml").write_text(text)
    with JobService() as service:
        asked = [lab_job("value", cluster="short", walltime_s=at) for at in (None, 60.0)]
        jobs = [finish(service, service.submit(one).job_id).job_id for one in asked]

    def again(**changes):
        with JobService() as service:
            return [row.walltime_s for row in service.retry(jobs, Retry(**changes), dry_run=True)]

    assert again() == [3600.0, 60.0]
    assert again(cluster="long") == [36000.0, 60.0]
    assert again(cluster="local") == [None, 60.0]
    assert again(walltime_s=5.0) == [5.0, 5.0]
    (home / "config.toml").write_text(text.replace("'1h'", "'3h'"))
    assert again() == [10800.0, 60.0]


# --- check ---------------------------------------------------------------------------------------


def test_check_tells_what_a_job_finds_there(home, cli, monkeypatch):
    monkeypatch.setenv("VASP_PP_PATH", "/nowhere/at/all")
    answer = cli("clusters", "check", "local", "--json")
    assert answer.code == 0, answer.err
    told = answer.checks
    assert answer.json["status"] == "ok"
    assert platform.node() in told["node"]["message"]
    assert sys.prefix in told["node"]["message"]
    assert (told["quacc"]["state"], told["quacc"]["message"]) == ("ok", version("quacc"))
    assert str(home / "jobs") in told["home"]["message"]
    assert told["clock"]["state"] == "ok"
    # As a job sees it.
    assert told["POTCARs"]["state"] == "warning"
    assert "/nowhere/at/all" in told["POTCARs"]["message"]


def test_check_of_a_cluster_that_cannot_be_used_says_why(home, cli):
    (home / "config.toml").write_text("[clusters.big]\nengine = 'missing'\n")
    answer = cli("clusters", "check", "big")
    assert answer.code == 1
    assert "'missing' is not installed" in answer.out
    nowhere = cli("clusters", "check", "huge", "--json")
    assert (nowhere.code, nowhere.json["status"]) == (1, "error")
    assert "no cluster 'huge'" in nowhere.err
    assert cli("clusters", "check").code == 2
    assert "did you mean 'check'?" in cli("clusters", "chek").err


def test_check_says_which_versions_of_the_engine_differ(install, tmp_path):
    """A worker of another release of the engine, or of its library, may understand nothing."""
    install("engine-there", "there", "")
    metadata = tmp_path / "engine_there-1.0.dist-info/METADATA"
    needs = ["attrs>=23", "crystalmath[quacc]", "Pluggy.lib>=1", "pytest; extra == 'test'"]
    metadata.write_text(metadata.read_text() + "".join(f"Requires-Dist: {n}\n" for n in needs))
    found = probe_job()
    assert found["engines"]["there"] == {"Pluggy.lib": None, "engine-there": "1.0"}
    assert found["engines"]["local"] == {}
    found["engines"]["there"] = {"Pluggy.lib": None, "engine-there": "0.9", "pytest": "1.0"}
    now = time.time()
    job = Job(
        job_id="1",
        recipe=PROBE,
        cluster="big",
        engine="there",
        state=JobState.COMPLETED,
        created_at=now,
    )
    told = {check.name: check for check in cluster_probe.judged("big", job, found)}
    assert told["engine-there"].message == "0.9"
    assert told["engine-there"].remedy == "here it is 1.0"
    assert told["pytest"].remedy == f"here it is {version('pytest')}"
    assert {told[name].state for name in ("Pluggy.lib", "engine-there", "pytest")} == {"warning"}


def test_check_says_which_clocks_and_versions_differ(monkeypatch):
    now = time.time()
    monkeypatch.setattr(cluster_probe, "time", SimpleNamespace(time=lambda: now))
    job = Job(job_id="1", recipe="r", engine="local", state=JobState.COMPLETED, created_at=now - 9)
    assert _clock(job, now).state == "ok"
    behind, ahead = _clock(job, job.created_at - 60), _clock(job, now + 60)
    assert "at least 60 s behind" in behind.message
    assert "at least 60 s ahead" in ahead.message
    assert behind.state == ahead.state == "warning"
    other = _version("ase", "1.0")
    assert (other.state, other.message) == ("warning", "1.0")
    assert version("ase") in other.remedy
    assert _version("ase", None).state == "error"


def test_a_misspelt_cluster_is_told_which_is_meant(home):
    (home / "config.toml").write_text("[clusters.slurm]\nengine = 'local'\n")
    with JobService() as service:
        for engine in (None, "local"):
            wanted = Submission(
                recipe="quacc.recipes.emt.core.static_job",
                atoms=bulk("Cu"),
                engine=engine,
                cluster="slrum",
            )
            (found,) = service.check(wanted).errors
            assert "there is no cluster 'slrum'; did you mean 'slurm'?" in found.message
            assert "There are slurm, local" in found.message
