"""Homes of earlier releases are opened by this one, as `docs/compatibility.md` promises."""

import json
import tarfile
from pathlib import Path

import pytest

from server.home_server import HomeServer

pytestmark = pytest.mark.server

#: One for each release, by `make_home`.
HOMES = sorted(Path(__file__).parent.glob("*.tar.gz"))
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(params=HOMES, ids=lambda path: path.name.removesuffix(".tar.gz"))
def older(request, with_quacc, tmp_path):
    """Yield the commands of a home that an earlier release has written."""
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    with HomeServer(tmp_path / "home") as server:
        yield server


def test_a_home_of_an_earlier_release_is_opened(older):
    def run(*arguments):
        done = older.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def jobs(**labels):
        chosen = [f"--label={name}={value}" for name, value in labels.items()]
        return run("list", *chosen)["jobs"]

    # The first command that changes something brings the database forward.
    new = run("submit", "emt.core.static_job", EXAMPLES / "Cu.poscar", "--label=set=new")
    run("wait", new["job_id"])
    states = {name: [job["status"] for job in jobs(set=name)] for name in ("packed", "failed")}
    assert states == {"packed": ["completed"] * 2, "failed": ["failed"]}
    # Results, also from a pack, and logs; then the files beside them.
    packed = [job["job_id"] for job in jobs(set="packed")]
    energies = [run("result", each)["result"]["results"]["energy"] for each in packed]
    assert sorted(energies) == pytest.approx([-0.005682, 0.010553], abs=1e-6)
    assert "quacc" in older.run("logs", packed[0]).stdout
    older.run("unpack")
    assert all(Path(older.run("path", each).stdout.strip()).is_dir() for each in packed)
    # What was retried is superseded, and what failed can go on from where it stopped.
    (retried,) = jobs(set="retried")
    assert retried["status"] == "completed"
    (failed,) = jobs(set="failed")
    more = ("--continue", "--param=opt_params.max_steps=100")
    run("retry", failed["job_id"], *more)
    run("wait", "--label=set=failed")
    assert [job["status"] for job in jobs(set="failed")] == ["completed"]
    # A key finds its jobs of old.
    known = [EXAMPLES / f"{symbol}.poscar" for symbol in ("Cu", "Al")]
    run("submit", "emt.core.static_job", *known, "--key=static", "--label=set=packed")
    assert sorted(job["job_id"] for job in jobs(set="packed")) == sorted(packed)
    doctor = run("doctor", "--deep")["checks"]
    assert not [check for check in doctor if check["state"] == "error"]
