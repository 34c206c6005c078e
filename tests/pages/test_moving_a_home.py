"""`docs/moving-a-home.md`, word by word, at a shell."""

import sqlite3
import zipfile

import pytest

pytestmark = pytest.mark.vasp


@pytest.mark.by_turns
def test_moving_a_home(follow, cli, tmp_path, monkeypatch):
    old, new, scratch = (tmp_path / name for name in ("old", "new", "scratch"))
    here = {"~/.local/share/crystalmath": old, "~/jobs": new, "/scratch/me": scratch}
    said = follow("moving-a-home.md", here)
    assert "recorded 0 jobs again" in said
    assert not old.exists()
    assert (new / "jobs").resolve().parent == scratch
    with sqlite3.connect(tmp_path / "jobs.backup") as copy:
        assert copy.execute("SELECT count(*) FROM jobs").fetchone() == (2,)
    assert len(zipfile.ZipFile(tmp_path / "metals.zip").namelist()) > 4
    # The home has records alone at the end, and the other one has its jobs with their results.
    for home, removed in ((new, True), (tmp_path / "colleague", False)):
        monkeypatch.setenv("CRYSTALMATH_HOME", str(home))
        jobs = cli("list", "--label", "project=metals", "--json").json["jobs"]
        assert [job["status"] for job in jobs] == ["completed", "completed"]
        assert {job["removed"] is not None for job in jobs} == {removed}
        for job in jobs:
            result = cli("result", job["job_id"], "--json").json["result"]
            assert (result is None) == removed
