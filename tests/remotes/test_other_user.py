"""Commands on a machine where one logs in as another user."""

import json
import os
import re
import tempfile
from pathlib import Path

import pytest

from conftest import AL
from remotes.other_user import UID, OtherUser

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def machine():
    """Yield a machine of another user."""
    machine = OtherUser()
    yield machine
    machine.end()


def test_a_job_from_its_check_to_its_files(there, hawk, tmp_path):
    assert there("check", "lab_recipes.value", AL, "--json").json["error"] is None
    source = hawk.user_home / "result.txt"
    source.write_text("there\n")
    submitted = there("submit", "lab_recipes.copied", AL, "--param", f"path={source}", "--json")
    assert submitted.code == 0, submitted.err
    job_id = submitted.json["job_id"]
    assert there("wait", job_id).code == 0
    folder = hawk.home / "jobs" / job_id
    assert {folder.stat().st_uid, hawk.home.stat().st_uid} == {UID}
    assert there("files", job_id, "--get", tmp_path / "out").code == 0
    assert (tmp_path / "out/result.txt").read_text() == "there\n"
    assert (tmp_path / "out/result.txt").stat().st_uid == os.geteuid()
    for command in (["result", job_id], ["list"], ["status", job_id], ["show", job_id], ["du"]):
        here, other = there(*command, "--json"), hawk.run(*command, "--json")
        assert (here.code, here.json) == (other.returncode, json.loads(other.stdout)), here.err
    assert there("path", job_id).out.strip().startswith(f"hawk:{folder}/")


def test_a_running_job_is_cancelled(there, hawk):
    go = hawk.user_home / "go"
    job_id = there("submit", "lab_recipes.wait_for", AL, "--param", f"path={go}").out.strip()
    assert there("cancel", job_id).code == 0
    assert there("wait", job_id).code == 1
    assert there("status", job_id, "--json").json["status"] == "cancelled"


def test_the_page_opens(open_page):
    with open_page() as call:
        assert "jobs" in call("jobs.list", limit=1)


def test_the_checks_name_the_home_of_that_user(hawk, cli):
    checks = cli("remotes", "check", "hawk", "--json").checks
    assert checks["home"]["message"].startswith(f"hawk:{hawk.home}, served by process ")
    assert f"in {hawk.base}/venv" in checks["version"]["message"]


@pytest.mark.parametrize(
    ("modes", "said"),
    [
        ({"": 0o755}, "cannot make the home {}/jobs: Permission denied"),
        ({"": 0o700}, "cannot read the configuration file {}/jobs/config.toml: .*Permission den"),
        ({"": 0o755, "jobs": 0o777}, ".*; set CRYSTALMATH_HOME to a folder of your own"),
    ],
)
def test_a_home_that_the_user_may_not_use_is_refused(hawk, home, cli, modes, said):
    closed = Path(tempfile.mkdtemp(dir=hawk.base))
    for name, mode in modes.items():
        (closed / name).mkdir(exist_ok=True)
        (closed / name).chmod(mode)
    before = sorted(closed.rglob("*"))
    (home / "config.toml").write_text(hawk.table(home=str(closed / "jobs")))
    answer = cli("--on", "hawk", "submit", "lab_recipes.value", AL)
    assert answer.code == 1
    assert re.search(f"on hawk .* has failed .*: error: {said.format(closed)}", answer.err)
    assert "see `crystalmath remotes check hawk`" in answer.err
    assert sorted(closed.rglob("*")) == before


def test_a_file_that_the_user_may_not_read_fails_the_job(there, hawk):
    secret = hawk.base / "secret"
    secret.write_text("of root")
    secret.chmod(0o600)
    job_id = there("submit", "lab_recipes.copied", AL, "--param", f"path={secret}").out.strip()
    assert there("wait", job_id).code == 1
    assert "PermissionError" in there("status", job_id).out
    assert not list(Path(hawk.home).rglob("secret"))
