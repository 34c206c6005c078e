"""What a shell is offered to complete a line with."""

import pytest

from cli.shell import submit
from commands import finish, start
from crystalmath.client.home_reader import HomeReader
from crystalmath.jobs.changes import Change
from crystalmath.models import JobState
from crystalmath.quacc.store import JobStore
from rundirs import new_job

pytestmark = pytest.mark.server


@pytest.fixture
def complete(cli, monkeypatch):
    """Return what bash is offered for the last word."""

    # How soon somebody wants an answer who types is not what is tested.
    monkeypatch.setattr("crystalmath.cli.shared.completion._ANSWER_S", 60.0)

    def complete(*words):
        monkeypatch.setenv("_CRYSTALMATH_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", " ".join(("crystalmath", *words)))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        answer = cli()
        monkeypatch.delenv("_CRYSTALMATH_COMPLETE")
        assert (answer.code, answer.err) == (0, "")
        return answer.out.split()

    return complete


def test_ids_are_completed(here, cli, complete, monkeypatch):
    asked, answer = [], HomeReader.jobs
    monkeypatch.setattr(HomeReader, "jobs", lambda *a, **k: asked.append(k) or answer(*a, **k))
    job_id = submit(cli, "value")
    assert complete("status", job_id[:20]) == [job_id]
    assert complete("wait", job_id, job_id[:20]) == [job_id]
    assert complete("status", "x") == []
    cli("wait", job_id)
    assert complete("status", job_id[:20]) == [job_id]
    assert complete("cancel", job_id[:20]) == []
    submit(cli, "value", "--label", "completed=yes")
    assert complete("list", "--label", "comp") == ["completed=yes"]
    # What others tell of them would be looked up for nothing.
    assert all({"steps", "held_up_by"}.isdisjoint(one["fields"]) for one in asked)


def test_a_shell_is_told_how_to_complete(cli, monkeypatch):
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    done = finish(start("--show-completion", "bash"))
    assert done.code == 0
    assert "complete -o default -F _crystalmath_completion crystalmath" in done.out


def test_completion_starts_and_writes_nothing(lab, alone, complete):
    (alone.home / "config.toml").write_text("[engines.local]\nworkers = 2\n")
    assert {"submit", "wait", "list"} <= set(complete(""))
    assert "local" in complete("run", "x", "y", "--engine", "")
    assert "emt.core.relax_job" in complete("submit", "emt.core.r")
    assert complete("recipes", "quacc.recipes.emt.core.s") == ["quacc.recipes.emt.core.static_job"]
    assert "lab_recipes.value" in complete("check", "lab_recipes.v")
    assert complete("run", "x", "y", "--engine", "local", "--cluster", "") == ["local"]
    assert complete("list", "--state", "f") == ["failed"]
    assert complete("status", "") == []
    assert [path.name for path in alone.home.iterdir()] == ["config.toml"]
    told = {"specification": '{"owner": {}}\n{"atoms": null, "parameters": {}}'}
    waiting, ended = new_job(labels={"set": "one"}, **told), new_job(**told)
    with JobStore(f"sqlite:///{alone.home}/jobs.sqlite") as store:
        store.insert([waiting])
        end = Change(job_id=ended.job_id, state=JobState.CANCELLED, at=1.0)
        store.insert_ended([(ended, end)])
    before = {path.name for path in alone.home.iterdir()}
    assert set(complete("status", "")) == {waiting.job_id, ended.job_id}
    assert complete("cancel", "") == [waiting.job_id]
    assert complete("list", "--label", "s") == ["set=one"]
    assert {path.name for path in alone.home.iterdir()} == before


def test_a_broken_configuration_does_not_break_the_line(lab, alone, complete):
    (alone.home / "config.toml").write_text("engin = 1")
    for words in (["run", "emt"], ["run", "x", "y", "--cluster", ""], ["status", ""]):
        assert complete(*words) == []
