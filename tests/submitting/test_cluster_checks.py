"""`check` says of a cluster what `submit` says, and the job sees what was checked."""

import contextlib
import json
import subprocess
import sys

import pytest

from conftest import eventually
from crystalmath.errors import CrystalMathError
from crystalmath.models import Submission
from crystalmath.models.retry import Retry
from crystalmath.quacc.engines import runner_for
from crystalmath.service import JobService
from crystalmath.worker import init_script
from ends import AL, completed, finish, lab_job

pytestmark = pytest.mark.processes

#: An engine whose clusters are this machine, and say that they are not.
ENGINE = """
from crystalmath.engines.local import LocalRunner
from crystalmath.hookspecs import hookimpl
from crystalmath.models import Capabilities, Finding

class There(LocalRunner):
    capabilities = Capabilities(resources=frozenset({"ranks", "cores_per_rank", "queue"}))

    def clusters(self):
        return ["local", *self.settings.clusters]

    def cores(self, cluster):
        return 8

@hookimpl
def crystalmath_make_runner(settings):
    return There(settings)

@hookimpl
def crystalmath_preflight(environment):
    if "srun" in environment.get("QUACC_VASP_PARALLEL_CMD", ""):
        return [Finding(severity="warning", code="launched", message="srun was seen")]
    return []
"""
CONFIG = """
[clusters.big]
engine = "there"
launcher = "srun -n {ranks}"
environment = { QUACC_VASP_PP_VERSION = "64", ESPRESSO_PSEUDO = "/there" }

[clusters.loaded]
engine = "there"
worker_init = "module load vasp"

[clusters.eight]
engine = "there"
ranks = 8

[clusters.wide]
engine = "there"
nodes = 2
"""


@pytest.fixture
def service(home, lab, install, judge, monkeypatch):
    monkeypatch.delenv("VASP_PP_PATH", raising=False)
    install("engine-there", "there", ENGINE)
    (home / "config.toml").write_text(CONFIG)
    with JobService() as service:
        yield service


def asked(number=1, recipe="value", **more):
    given = {"number": number} if recipe == "value" else {}
    return lab_job(recipe, parameters=given, **more)


@pytest.mark.parametrize(
    ("submission", "codes"),
    [
        (asked(cluster="big"), ["launched"]),
        (asked("odd", cluster="big"), ["odd", "launched"]),
        (asked("odd", cluster="big", strict=True), ["odd", "launched"]),
        (asked("doomed", cluster="big"), None),
        (asked(cluster="big", resources={"ranks": 4}), ["launched"]),
        (asked(cluster="big", resources={"ranks": 9}), None),
        (asked(cluster="big", resources={"nodes": 2}), None),
        (asked(cluster="big", resources={"memory_mb": 1}), None),
        (asked(cluster="big", resources={"queue": "long"}), ["launched"]),
        (asked(cluster="big", engine="local"), None),
        (asked(cluster="huge"), None),
        (asked(cluster="loaded"), []),
        (asked(cluster="wide", resources={"ranks": 3}), []),
        (asked(cluster="local"), []),
        (asked(cluster="big", walltime_s=-1), None),
        (asked(cluster="big", labels={"a": "half \ud800"}), None),
        (asked(cluster="big", environment={"": "x"}), None),
        (asked(cluster="big", key="taken"), None),
    ],
    ids=lambda value: None if isinstance(value, list) else "",
)
def test_check_and_submit_agree(service, submission, codes):
    service.submit(asked(2, key="taken"))
    checked = service.check(submission)
    (answer,) = service.submit_many([submission])
    found = [finding.code for finding in checked.findings]
    if isinstance(answer, CrystalMathError):
        assert checked.errors, f"only submit refuses it: {answer}"
        # It stops at the first stage that refuses the job; check goes through all.
        told = [finding.code for finding in getattr(answer, "findings", [])]
        assert told == found[: len(told)]
        assert str(checked.errors[0]) in str(answer)
    else:
        assert checked.errors == ()
        assert found == [warning["code"] for warning in answer.warnings] == codes


def test_a_key_that_is_known_gives_its_job_whatever_is_found_now(service):
    job = service.submit(asked("odd", key="taken"))
    (said,) = service.check(asked("odd", key="taken", strict=True)).findings
    assert (said.severity, said.code) == ("warning", "key_known")
    assert job.job_id in said.message
    assert service.submit(asked("odd", key="taken", strict=True)).job_id == job.job_id


def test_a_clusters_environment_goes_before_the_submitters(service, with_quacc):
    own = {"PATH": "/bin", "ESPRESSO_PSEUDO": "/mine"}
    there = asked(recipe="where", cluster="big", environment=own)
    assert {"QUACC_VASP_PP_VERSION", "ESPRESSO_PSEUDO"} <= {*service.check(there).environment}
    seen, job = _seen(service, service.submit(there))
    assert (seen["ESPRESSO_PSEUDO"], seen["QUACC_VASP_PP_VERSION"]) == ("/there", "64")
    # Elsewhere it has what its submitter had.
    (again,) = service.retry([job.job_id], Retry(cluster="local", engine="local"))
    seen, _ = _seen(service, again)
    assert seen["ESPRESSO_PSEUDO"] == "/mine"
    assert "QUACC_VASP_PP_VERSION" not in seen


def test_it_does_so_for_who_submits_to_the_engine_itself(service, with_quacc, monkeypatch):
    monkeypatch.setenv("ESPRESSO_PSEUDO", "/mine")
    with contextlib.closing(runner_for("there")) as runner:
        job = runner.submit("lab_recipes.where", AL, "big")
        eventually(lambda: runner.get_status(job).is_terminal(), timeout=120)
        assert runner.get_result(job)["environment"]["ESPRESSO_PSEUDO"] == "/there"


def _seen(service, job):
    job = finish(service, job.job_id)
    return completed(service, job)["environment"], job


VASP = "quacc.recipes.vasp.core.static_job"


def test_what_the_clusters_commands_may_set_refuses_no_job(service, with_quacc):
    def found(cluster):
        bare = Submission(recipe=VASP, atoms=AL, cluster=cluster, environment={"PATH": "/bin"})
        told = service.check(bare).findings
        (unset,) = (finding for finding in told if finding.code == "potcar_unset")
        return unset

    assert found("big").severity == "error"
    loaded = found("loaded")
    assert loaded.severity == "warning"
    assert "[clusters.loaded]" in loaded.remedy


def test_what_a_cluster_gives_is_held_against_vasps_tags(service, with_quacc):
    def found(**more):
        asked = Submission(recipe=VASP, atoms=AL, environment={"PATH": "/bin"}, **more)
        return [finding.code for finding in service.check(asked).findings]

    assert "ranks_undivided" in found(cluster="eight", parameters={"kpar": 3})
    assert "ranks_undivided" not in found(cluster="eight", parameters={"kpar": 4})


SEEN = """
import json, os
from crystalmath.worker.node_environment import with_init
print(json.dumps(with_init(json.loads(os.environ.pop("FORWARDED")), os.environ)))
"""


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_what_the_clusters_commands_set_reaches_the_job(shell):
    commands = """
export PATH=/opt/vasp/bin:$PATH VASP_PP_PATH='/pots of mine' OMP_NUM_THREADS=3
export LD_LIBRARY_PATH=/opt/lib HOME=/elsewhere
"""
    own = {"PATH": "/mine:/usr/bin", "OMP_NUM_THREADS": "2"}
    servers = {"PATH": "/usr/bin:/bin", "ESPRESSO_PSEUDO": "/the/servers", "ODD": "a\nb=c"}
    script = f"{init_script(commands)}exec {sys.executable} -c '{SEEN}'"
    environ = {**servers, "FORWARDED": json.dumps(own)}

    def seen(script):
        done = subprocess.run([shell, "-c", script], env=environ, capture_output=True, check=True)
        return json.loads(done.stdout)

    assert seen(script) == {
        "PATH": "/opt/vasp/bin:/mine:/usr/bin",
        "OMP_NUM_THREADS": "2",  # as its submitter has said
        "LD_LIBRARY_PATH": "/opt/lib",
        "VASP_PP_PATH": "/pots of mine",
    }
    assert init_script(" \n") == ""
    assert seen(f"exec {sys.executable} -c '{SEEN}'") == own
