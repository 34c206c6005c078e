"""`docs/postgresql.md`, word by word, at a shell, on a PostgreSQL server that the test starts.

Runs where ``CRYSTALMATH_TEST_POSTGRESQL`` is set.
"""

import os
import re
from pathlib import Path

import pytest

from commands import ran

PAGE = (Path(__file__).parents[2] / "docs/postgresql.md").read_text(encoding="utf-8")

pytestmark = pytest.mark.skipif(
    "CRYSTALMATH_TEST_POSTGRESQL" not in os.environ, reason="CRYSTALMATH_TEST_POSTGRESQL not set"
)


def test_postgresql(follow, home_server, postgresql, cli, tmp_path):
    here = {
        "postgresql://me@db.example.org/jobs": postgresql.url,
        "~/.local/share/crystalmath": home_server.home,
    }
    said = follow("postgresql.md", here)
    _, recorded = re.findall(r"^```text\n(.*?)\n```$", PAGE, re.MULTILINE | re.DOTALL)
    assert recorded in said
    moved, imported = (
        f"crystalmath_{(home / 'home-id').read_text().strip()}"
        for home in (home_server.home, tmp_path / "moved")
    )
    for schema in (moved, imported):
        assert postgresql.ask(f"SELECT count(*) FROM {schema}.jobs") == "2"
    assert (tmp_path / "home.tgz").stat().st_size > 1000
    # As the page has it restored, after the schema is lost.
    home_server.run("stop")
    postgresql.ask(f"DROP SCHEMA {moved} CASCADE")
    psql = ["psql", "--quiet", "--set=ON_ERROR_STOP=1", f"--dbname={postgresql.url}"]
    done = ran(*psql, f"--file={tmp_path / 'jobs.sql'}", cwd=tmp_path, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    checks = cli("doctor", "--rebuild", "--json").checks
    assert checks["rebuild"]["message"].startswith("recorded 0 jobs again")
    jobs = cli("list", "--label", "project=metals", "--json").json["jobs"]
    assert [job["status"] for job in jobs] == ["completed", "completed"]
