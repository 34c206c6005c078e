"""Settings that quacc does not start with are told before a job is submitted, whatever it runs."""

import os
import subprocess
import sys

import pytest
from ase.build import bulk

from crystalmath import processes
from crystalmath.models import Submission
from crystalmath.preflight import settings_check
from crystalmath.service import JobService

pytestmark = pytest.mark.vasp

EMT = "quacc.recipes.emt.core.static_job"
VASP = "quacc.recipes.vasp.core.static_job"
FILE = "QUACC_CONFIG_FILE"
#: A variable and its value, or what stands in the settings' file; and what is said.
SETTINGS = [
    ("QUACC_VASP_PRESET_DIR", "~nobody9/presets", "QUACC_VASP_PRESET_DIR is '~nobody9/presets'"),
    ("QUACC_CHECK_CONVERGENCE", "perhaps", "QUACC_CHECK_CONVERGENCE is 'perhaps'"),
    ("QUACC_ESPRESSO_BINARIES", "{", "ESPRESSO_BINARIES"),
    ("QUACC_CONFIG_FILE", "~nobody9/quacc.yaml", "CONFIG_FILE"),
    (FILE, "CHECK_CONVERGENCE: perhaps", "CHECK_CONVERGENCE in {file} is 'perhaps'"),
    (FILE, "VASP_PP_PATH: ~nobody9/pots", "VASP_PP_PATH in {file} is '~nobody9/pots'"),
    (FILE, "NO_SUCH: 1", "NO_SUCH in {file} is 1: quacc has no such setting"),
    (FILE, "a: [", "while parsing"),
    # What quacc does start with.
    ("QUACC_NO_SUCH", "1", None),
    ("QUACC_CHECK_CONVERGENCE", "False", None),
    ("QUACC_VASP_PRESET_DIR", "/no/such/folder", None),
    (FILE, "CHECK_CONVERGENCE: false", None),
    (FILE, "", None),
]


@pytest.fixture
def started(monkeypatch):
    """Return the commands that are started, a list that grows."""
    commands, start = [], processes.start_process

    def noted(command, **options):
        commands.append(command)
        return start(command, **options)

    monkeypatch.setattr(processes, "start_process", noted)
    return commands


@pytest.fixture
def service(home):
    with JobService() as service:
        yield service


def environment_of(tmp_path, name, value):
    if name == FILE and not value.startswith("~"):
        (tmp_path / "quacc.yaml").write_text(value)
        value = str(tmp_path / "quacc.yaml")
    return {"PATH": os.environ["PATH"], FILE: str(tmp_path / "none.yaml"), name: value}


def told(service, environment, recipe=EMT, cluster="local"):
    asked = Submission(recipe=recipe, atoms=bulk("Cu"), environment=environment, cluster=cluster)
    return service.check(asked).findings


@pytest.mark.parametrize(("name", "value", "said"), SETTINGS)
def test_a_job_is_refused_if_quacc_does_not_start(service, tmp_path, started, name, value, said):
    environment = environment_of(tmp_path, name, value)
    own = {key: value for key, value in os.environ.items() if not key.startswith("QUACC_")}
    command = [sys.executable, "-c", "import quacc"]
    bare = subprocess.run(
        command, env=own | environment, cwd=tmp_path, capture_output=True, check=False
    )
    findings = told(service, environment)
    assert bool(findings) is bool(bare.returncode) is (said is not None), bare.stderr
    for finding in findings:
        assert (finding.severity, finding.code) == ("error", "quacc_settings")
        assert said.format(file=tmp_path / "quacc.yaml") in finding.message


def test_it_is_looked_at_once_and_not_at_all_where_nothing_is_set(service, tmp_path, started):
    usual = {"PATH": os.environ["PATH"], FILE: str(tmp_path / "none.yaml")}
    assert told(service, {**usual, "QUACC_SCRATCH_DIR": str(tmp_path)}) == ()
    assert started == []
    for number in range(3):
        set_now = {**usual, "QUACC_GZIP_FILES": "perhaps", "OMP_NUM_THREADS": str(number)}
        assert told(service, set_now)
    assert len(started) == 1
    assert told(service, {**usual, "QUACC_GZIP_FILES": "False"}) == ()
    assert len(started) == 2


def test_what_was_mended_in_the_file_is_seen(service, tmp_path):
    environment = environment_of(tmp_path, FILE, "GZIP_FILES: perhaps")
    assert told(service, environment)
    (tmp_path / "quacc.yaml").write_text("GZIP_FILES: false")
    assert told(service, environment) == ()


def test_a_file_that_cannot_be_read_is_looked_at_again(service, tmp_path, started):
    (tmp_path / "quacc.yaml").mkdir()
    environment = {"PATH": os.environ["PATH"], FILE: str(tmp_path / "quacc.yaml")}
    for _ in range(2):
        (finding,) = told(service, environment)
        assert "Is a directory" in finding.message
    assert len(started) == 2


def test_what_gives_no_answer_is_not_asked_for_each_job_of_a_batch(
    service, tmp_path, started, monkeypatch
):
    monkeypatch.setattr(settings_check, "LIMIT_S", 0.0)
    environment = environment_of(tmp_path, "QUACC_GZIP_FILES", "perhaps")
    for _ in range(3):
        assert told(service, environment) == ()
    assert len(started) == 1
    monkeypatch.setattr(settings_check, "LIMIT_S", 60.0)
    monkeypatch.setattr(settings_check, "PAUSE_S", 0.0)
    assert told(service, environment)


def test_commands_of_a_cluster_may_set_what_goes_before_the_file(home, tmp_path):
    init = "export QUACC_GZIP_FILES=False"
    (home / "config.toml").write_text(
        f'[clusters.there]\nengine = "local"\nworker_init = "{init}"\n'
    )
    file = environment_of(tmp_path, FILE, "GZIP_FILES: perhaps")
    variable = environment_of(tmp_path, "QUACC_GZIP_FILES", "perhaps")
    with JobService() as service:
        for environment, severity in ((file, "warning"), (variable, "error")):
            (finding,) = told(service, environment, cluster="there")
            assert (finding.severity, finding.code) == (severity, "quacc_settings")


def test_a_recipe_that_is_asked_is_refused_for_the_same(service, tmp_path):
    """What is raised there is no error of quacc's readers."""
    environment = environment_of(tmp_path, "QUACC_VASP_PRESET_DIR", "~nobody9/presets")
    findings = told(service, environment, VASP)
    assert "quacc_settings" in {each.code for each in findings if each.severity == "error"}
