"""Recipes that fail, end, hang on or make a mess: told truthfully, and nobody else suffers."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from crystalmath.quacc import JobState
from crystalmath.testing.contract.base import Base
from crystalmath.testing.contract.busy_workers import behind_busy_workers
from crystalmath.testing.oracle import alive, found
from crystalmath.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from crystalmath.testing.oracle import Oracle
    from crystalmath.testing.subject import EngineUnderTest

MESSAGES = {
    "plain": "the box is too small",
    "unicode": "\u00e9 \U0001f9ea \u05d0 \u202e",
    "half a surrogate pair": "\ud83e",
    "several lines": "one\ntwo\r\nthree",
    "empty": "",
    "huge": "much " * 2**20,
}

#: In which a recipe that has begun does its little work, on a busy machine too, in seconds; and in
#: which one starts two processes.
WALLTIME_S, PROCESSES_S = 4.0, 10.0

SIGNALS = [signal.SIGTERM, signal.SIGSEGV]

_CASUALTIES = pytest.StashKey[dict[str, str]]()


class Failures(Base):
    """What fails reads `failed`, with its reason, and the next job runs as if nothing had been."""

    guide: ClassVar[str] = "What an engine is"

    @pytest.fixture
    def failed(
        self, submit: Callable[..., str], finish: Callable[..., Any], oracle: Oracle
    ) -> Callable[..., dict[str, Any]]:
        """Run recipes that fail; give what is told of the last."""

        def failed(recipe: str, /, **parameters: Any) -> dict[str, Any]:
            job_id = submit(recipe, **parameters)
            state, result = finish(job_id)
            assert state is JobState.FAILED
            assert (oracle.outcome(job_id) or {}).get("state") == "failed"
            assert oracle.attempts(job_id) == 1
            assert isinstance(result, dict)
            assert result["error"]
            return result

        return failed

    # --- what the recipe says ----------------------------------------------------------------

    @pytest.mark.parametrize("kind", MESSAGES)
    def test_an_exception_is_told(self, failed: Callable[..., dict[str, Any]], kind: str) -> None:
        error = failed("fail", message=MESSAGES[kind])["error"]
        assert "RuntimeError" in error
        assert MESSAGES[kind][:1000] in error

    def test_what_fails_is_not_run_again(
        self, failed: Callable[..., dict[str, Any]], shared: Path
    ) -> None:
        """Neither by core nor by the engine: a second time costs what the first did."""
        count = shared / "count"
        failed("count_and_fail", count=str(count))
        # Whoever would run it again has had the time for it.
        failed("fail", message="later")
        assert count.read_text() == "x"

    def test_the_traceback_is_told(self, failed: Callable[..., dict[str, Any]]) -> None:
        """It leads to the line of the recipe."""
        trace = failed("fail", message="the box is too small")["traceback"]
        assert "recipes.py" in trace
        assert ", in fail" in trace
        assert "RuntimeError: the box is too small" in trace

    def test_an_exception_that_cannot_be_shown_is_told(
        self, failed: Callable[..., dict[str, Any]]
    ) -> None:
        assert "Mute" in str(failed("raise_mute"))

    def test_a_keyboard_interrupt_is_a_failure(self, failed: Callable[..., dict[str, Any]]) -> None:
        assert "KeyboardInterrupt: as if by Ctrl-C" in failed("interrupt")["error"]

    @pytest.mark.parametrize("code", [0, 3])
    def test_an_exit_is_a_failure(self, failed: Callable[..., dict[str, Any]], code: int) -> None:
        """Also with the code of success."""
        error = failed("exit_by", code=code)["error"]
        assert "exit" in error
        assert str(code) in error

    def test_a_recipe_that_is_not_there_is_a_failure(
        self, failed: Callable[..., dict[str, Any]]
    ) -> None:
        assert "no_such_recipe" in failed("no_such_recipe")["error"]

    def test_a_recipe_that_is_no_function_is_a_failure(
        self, failed: Callable[..., dict[str, Any]]
    ) -> None:
        assert "not callable" in failed("unclear")["error"]

    def test_a_missing_module_is_told(self, failed: Callable[..., dict[str, Any]]) -> None:
        assert "a_module_that_nobody_has" in failed("import_missing")["error"]

    def test_parameters_that_do_not_fit_are_a_failure(
        self, failed: Callable[..., dict[str, Any]]
    ) -> None:
        assert "no_such_parameter" in failed("fail", no_such_parameter=1)["error"]

    # --- recipes that end their process -------------------------------------------------------

    @pytest.fixture
    def casualties(
        self,
        request: pytest.FixtureRequest,
        engine: EngineUnderTest,
        submit: Callable[..., str],
        shared: Path,
    ) -> dict[str, str]:
        """Submit jobs that take their workers with them, and good ones behind; a class shares them.

        Each of them costs a worker, and that is what takes time.
        """
        node = request.node.getparent(pytest.Class)
        if _CASUALTIES not in node.stash:
            jobs = {str(number): submit("kill_by", number=int(number)) for number in SIGNALS}
            jobs["killed once"] = submit("kill_once", count=str(shared / "killed once"))
            jobs["killed always"] = submit("kill_by")
            jobs |= {f"exit {code}": submit("vanish", code=code) for code in (0, 7)}
            jobs |= {f"good {n}": submit("echo", number=n) for n in range(2 * engine.workers)}
            node.stash[_CASUALTIES] = jobs
        casualties: dict[str, str] = node.stash[_CASUALTIES]
        return casualties

    @pytest.mark.parametrize("number", SIGNALS)
    def test_a_signal_is_a_failure(
        self,
        casualties: dict[str, str],
        finish: Callable[..., Any],
        oracle: Oracle,
        number: signal.Signals,
    ) -> None:
        """The signal is named; the job is not run again."""
        job_id = casualties[str(number)]
        state, result = finish(job_id)
        assert state is JobState.FAILED
        assert number.name in result["error"]
        assert (oracle.outcome(job_id) or {}).get("state") == "failed"
        assert oracle.attempts(job_id) == 1

    def test_a_killed_process_is_a_lost_attempt(
        self, casualties: dict[str, str], finish: Callable[..., Any], oracle: Oracle
    ) -> None:
        """Nobody can tell who sent a SIGKILL: there is a second attempt, and no third."""
        job_id = casualties["killed once"]
        assert finish(job_id) == (JobState.COMPLETED, {"runs": 2})
        assert (oracle.outcome(job_id) or {}).get("state") == "lost"
        job_id = casualties["killed always"]
        state, result = finish(job_id)
        assert state is JobState.FAILED
        assert "SIGKILL" in result["error"]
        assert oracle.attempts(job_id) == 2

    @pytest.mark.parametrize("code", [0, 7])
    def test_the_end_of_the_process_is_a_failure(
        self, casualties: dict[str, str], finish: Callable[..., Any], oracle: Oracle, code: int
    ) -> None:
        """Also with the code of success; code and the end of its log are told."""
        job_id = casualties[f"exit {code}"]
        state, result = finish(job_id)
        assert state is JobState.FAILED
        assert f"code {code}" in result["error"]
        assert "about to go" in result["error"]
        assert (oracle.outcome(job_id) or {}).get("state") == "failed"
        assert oracle.attempts(job_id) == 1

    def test_jobs_run_after_workers_were_lost(
        self, engine: EngineUnderTest, casualties: dict[str, str], finish: Callable[..., Any]
    ) -> None:
        for number in range(2 * engine.workers):
            expected = {"symbols": ["Al"], "number": number}
            assert finish(casualties[f"good {number}"]) == (JobState.COMPLETED, expected)

    def test_exhausted_memory_is_a_failure(
        self,
        failed: Callable[..., dict[str, Any]],
        submit: Callable[..., str],
        finish: Callable[..., Any],
    ) -> None:
        """Of this job alone."""
        assert "MemoryError" in failed("exhaust")["error"]
        assert finish(submit("large", megabytes=1))[0] is JobState.COMPLETED

    # --- what a recipe prints and leaves behind -------------------------------------------------

    def test_the_log_is_complete(
        self, submit: Callable[..., str], finish: Callable[..., Any], oracle: Oracle
    ) -> None:
        """Megabytes, what a child prints, and standard error; once the state is terminal."""
        job_id = submit("print_much", lines=4000)
        assert finish(job_id) == (JobState.COMPLETED, {"lines": 4000})
        lines = (oracle.directory(job_id) / "1.log").read_text().splitlines()
        numbers = [int(line.split()[0]) for line in lines[:3998]]
        assert numbers == list(range(3998))
        assert {len(line) for line in lines[:3998]} == {1023}
        assert lines[3998:] == ["by a child", "the last line"]

    def test_the_log_has_the_traceback(
        self, submit: Callable[..., str], finish: Callable[..., Any], oracle: Oracle
    ) -> None:
        job_id = submit("fail", message="the box is too small")
        finish(job_id)
        log = (oracle.directory(job_id) / "1.log").read_text()
        assert ", in fail" in log
        assert "RuntimeError: the box is too small" in log

    def test_a_log_is_its_own_jobs(
        self, submit: Callable[..., str], finish: Callable[..., Any], oracle: Oracle
    ) -> None:
        """Of jobs that print at the same time, and one after another."""
        jobs = {submit("say_unicode", text=f"job {n} \u00e9"): n for n in range(6)}
        for job_id, number in jobs.items():
            finish(job_id)
            log = (oracle.directory(job_id) / "1.log").read_text(encoding="utf-8")
            assert log == f"job {number} \u00e9\n"

    def test_a_forked_child_does_not_speak_for_the_job(
        self,
        submit: Callable[..., str],
        finish: Callable[..., Any],
        oracle: Oracle,
    ) -> None:
        """It comes back into the worker's code before its parent does."""
        job_id = submit("fork_and_return")
        assert finish(job_id) == (JobState.COMPLETED, {"child": False})
        assert oracle.payload(job_id) == {"child": False}
        assert finish(submit("echo"))[0] is JobState.COMPLETED

    def test_processes_left_running_are_gone_at_the_end(
        self,
        engine: EngineUnderTest,
        needs: Callable[[str], None],
        submit: Callable[..., str],
        finish: Callable[..., Any],
        shared: Path,
    ) -> None:
        needs("workers_here")
        pids, go = shared / "pids", shared / "go"
        job_id = submit("abandon", pids=str(pids), path=str(go))
        eventually(pids.exists, engine.start_s + 10 * engine.turn_s, "the recipe did not begin")
        processes = found(map(int, pids.read_text().split()))
        go.touch()
        state, _ = finish(job_id)
        assert len(processes) == 3
        assert not alive(processes)
        assert state is JobState.COMPLETED

    def test_threads_left_running_are_gone_at_the_end(
        self, submit: Callable[..., str], finish: Callable[..., Any], shared: Path
    ) -> None:
        """A thread that never ends does not hold up its job either."""
        marks = shared / "marks"
        assert finish(submit("leave_thread", path=str(marks)))[0] is JobState.COMPLETED
        size = marks.stat().st_size
        time.sleep(0.3)
        assert marks.stat().st_size == size

    def test_the_next_job_finds_nothing_changed(
        self,
        engine: EngineUnderTest,
        submit: Callable[..., str],
        started: Callable[[str], None],
        finish: Callable[..., Any],
        oracle: Oracle,
        shared: Path,
    ) -> None:
        """Environment, working directory, paths, umask and signals, after all workers had a job."""
        before = finish(submit("surroundings"))[1]
        go = shared / "go"
        bad = [submit("spoil", path=str(go)) for _ in range(engine.workers)]
        for job_id in bad:
            started(job_id)
        go.touch()
        for job_id in bad:
            assert finish(job_id)[0] is JobState.COMPLETED
        for job_id in [submit("surroundings") for _ in range(engine.workers)]:
            after = finish(job_id)[1]
            assert after.pop("cwd") == str(oracle.directory(job_id) / "1.work")
            after.pop("cores")  # each worker may be bound to others
            environment, expected = after.pop("environment"), before["environment"]
            assert "LEFT_BEHIND" not in environment
            assert environment["PATH"] == expected["PATH"]
            assert environment["OMP_NUM_THREADS"] == expected["OMP_NUM_THREADS"]
            assert after == {name: before[name] for name in after}

    def test_limits_that_a_recipe_set_end_with_it(
        self,
        engine: EngineUnderTest,
        submit: Callable[..., str],
        started: Callable[[str], None],
        finish: Callable[..., Any],
        shared: Path,
    ) -> None:
        go = shared / "go"
        bad = [submit("limited", path=str(go), files=99) for _ in range(engine.workers)]
        for job_id in bad:
            started(job_id)
        go.touch()
        before = [finish(job_id)[1]["files"] for job_id in bad]
        after = [submit("limited", path=str(go)) for _ in range(engine.workers)]
        assert 99 not in before
        assert [finish(job_id)[1]["files"] for job_id in after] == before

    # --- walltime -------------------------------------------------------------------------------

    def test_the_walltime_ends_a_job_and_its_processes(
        self,
        engine: EngineUnderTest,
        needs: Callable[[str], None],
        start: Callable[..., str],
        blocked: Path,
        finish: Callable[..., Any],
        oracle: Oracle,
        shared: Path,
    ) -> None:
        needs("workers_here")
        pids = shared / "pids"
        job_id = start("grandchild", {"pids": str(pids)}, PROCESSES_S)
        blocked.touch()
        limit = engine.start_s + 10 * engine.turn_s
        what = "the recipe did not begin"
        eventually(lambda: pids.exists() or oracle.outcome(job_id), limit, what)
        if not pids.exists():
            # The walltime has ended it before it had processes, on a machine that is very busy.
            job_id = start("grandchild", {"pids": str(pids)}, 3 * PROCESSES_S)
            eventually(pids.exists, limit, what)
        processes = found(map(int, pids.read_text().split()))
        state, result = finish(job_id)
        assert not alive(processes)
        assert not oracle.processes(job_id)
        assert state is JobState.FAILED
        assert "walltime" in result["error"]
        assert (oracle.outcome(job_id) or {}).get("state") == "failed"

    def test_the_walltime_is_kept(
        self,
        engine: EngineUnderTest,
        start: Callable[..., str],
        finish: Callable[..., Any],
        oracle: Oracle,
        shared: Path,
    ) -> None:
        """It counts from when the recipe begins, which a cold worker takes its time for."""
        job_id = start("wait_for", {"path": str(shared / "never")}, 1.0)
        state, result = finish(job_id)
        outcome = oracle.outcome(job_id) or {}
        assert state is JobState.FAILED
        assert "walltime" in result["error"], (
            f"its error is {result['error']!r}, and does not say that the walltime was over: where "
            "the engine ends jobs or allocations itself, core needs a margin before that "
            "(docs/writing-an-engine.md, 'Walltime and its margin')"
        )
        assert 1.0 <= outcome["finished"] - outcome["started"] < 10.0 + engine.start_s

    @behind_busy_workers
    def test_the_walltime_does_not_run_while_a_job_waits(
        self,
        start: Callable[..., str],
        blocked: Path,
        finish: Callable[..., Any],
        oracle: Oracle,
    ) -> None:
        job_id = start("echo", {}, WALLTIME_S)
        time.sleep(WALLTIME_S + 0.5)
        assert not oracle.claimed(job_id)
        blocked.touch()
        assert finish(job_id)[0] is JobState.COMPLETED
