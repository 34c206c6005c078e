"""A shell is offered the jobs of remotes, or nothing, and sees no message."""

import socket
import time

import pytest

from conftest import AL

pytestmark = pytest.mark.server


@pytest.fixture
def complete(cli, monkeypatch):
    """Return what bash is offered for the last word."""

    def complete(*words):
        with monkeypatch.context() as patch:
            patch.setenv("_CRYSTALMATH_COMPLETE", "complete_bash")
            patch.setenv("COMP_WORDS", " ".join(("crystalmath", *words)))
            patch.setenv("COMP_CWORD", str(len(words)))
            answer = cli()
        assert (answer.code, answer.err) == (0, "")
        return answer.out.split()

    return complete


def test_ids_of_a_remote_and_of_several_are_completed(hawk, home, there, complete, monkeypatch):
    (home / "config.toml").write_text(hawk.table() + hawk.table("kite"))
    job_id = there("submit", "lab_recipes.value", AL, "--label", "set=far").out.strip()
    # How soon somebody wants an answer who types is not what is tested here.
    monkeypatch.setattr("crystalmath.cli.shared.completion._REMOTE_S", 60.0)
    assert complete("status", job_id[:8]) == []
    assert complete("--on", "hawk", "status", job_id[:8]) == [job_id]
    assert complete("--on", "hawk", "list", "--label", "set=f") == ["set=far"]
    assert complete("--on", "hawk,kite", "status", job_id[:8]) == [job_id, job_id]
    monkeypatch.setenv("CRYSTALMATH_ON", "hawk")
    assert complete("status", job_id[:8]) == [job_id]
    assert complete("--on", "nowhere", "status", "") == []


def test_a_remote_that_is_slow_or_wrong_offers_nothing_soon(hawk, home, complete, monkeypatch):
    monkeypatch.setenv("CRYSTALMATH_ON", "hawk")
    monkeypatch.setattr("crystalmath.cli.shared.completion._REMOTE_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = str(silent.getsockname()[1])
        tables = {
            "command": hawk.table(command="sleep 60"),
            "host": hawk.table().replace(str(hawk.port), port),
            "program": hawk.table(command="echo no; echo no >&2"),
            "key": hawk.table().replace("user_key", "no_key"),
        }
        for table in tables.values():
            (home / "config.toml").write_text(table)
            begun = time.monotonic()
            assert complete("status", "") == []
            assert time.monotonic() - begun < 5
