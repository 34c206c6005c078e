"""The agent: a process of an engine's own, which ends with its owner at whatever moment."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import eventually
from crystalmath import processes
from crystalmath.engines.agent import Agent, AgentEnded, AgentSilent
from crystalmath.errors import EngineUnavailable
from engines import agent_calls as calls

HERE = str(Path(__file__).parents[1])
#: Longer than any answer here takes on a slow machine, in seconds.
LONG = 120.0
MARK = "CRYSTALMATH_TEST_AGENT"
#: How often the owner is killed; ``AGENT_KILLS=500`` is the long run.
KILLS = int(os.environ.get("AGENT_KILLS", "12"))

OWNER = """
import sys
from pathlib import Path
from engines import agent_calls as calls
from crystalmath.engines.agent import Agent

agent = Agent(Path(sys.argv[1]))
print("begun", flush=True)
while True:
    agent.start(60.0, calls.start_strays)
    agent.ask(60.0, calls.start_pool, 2)
    for number in range(50):
        agent.ask(60.0, calls.double, "x" * 10000 * number)
    agent.stop()
"""


@pytest.fixture
def mark(monkeypatch, tmp_path):
    """Mark what is started here, and let it find the functions."""
    path = os.pathsep.join(filter(None, [HERE, os.environ.get("PYTHONPATH")]))
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv(MARK, str(tmp_path))

    def left():
        return processes.marked(MARK, str(tmp_path))

    yield left
    assert not left(), "something was left"


@pytest.fixture
def agent(mark, tmp_path):
    agent = Agent(tmp_path / "folder/log")
    yield agent
    agent.stop()


def test_a_function_is_called_and_answers_or_raises(agent):
    with pytest.raises(AgentEnded, match="the agent was not started"):
        agent.ask(LONG, calls.double, 1)
    assert agent.start(LONG, calls.double, 21) == 42
    assert agent.ask(LONG, calls.double, number=[1]) == [1, 1]
    large = b"x" * 5_000_000  # more than the line holds, both ways
    assert agent.ask(LONG, calls.double, "y") == "yy"
    assert agent.ask(LONG, len, large) == len(large)
    assert len(agent.ask(LONG, bytes, 5_000_000)) == 5_000_000

    own_session, directory, interrupt = agent.ask(LONG, calls.surroundings)
    assert own_session
    assert (directory, interrupt) == ("/", "default_int_handler")
    assert agent.ask(LONG, calls.pid) == agent.ask(LONG, calls.pid) != os.getpid()


def test_what_a_function_raises_comes_with_its_traceback(agent):
    agent.start(LONG, calls.pid)
    with pytest.raises(LookupError, match="no such thing") as raised:
        agent.ask(LONG, calls.fail, "no such thing")
    assert "in fail\n" in raised.value.__notes__[0]
    with pytest.raises(RuntimeError, match="UnreadableError: a: b"):
        agent.ask(LONG, calls.fail_strangely)
    with pytest.raises(RuntimeError, match=r"exit called sys\.exit\(7\)"):
        agent.ask(LONG, sys.exit, 7)
    # What cannot be pickled here is not even sent; what cannot be there is an answer, too.
    with pytest.raises(Exception, match="pickle|local object"):
        agent.ask(LONG, lambda: None)
    with pytest.raises(Exception, match="pickle|local object"):
        agent.ask(LONG, calls.unpicklable)
    assert agent.ask(LONG, calls.double, 1) == 2


def test_a_time_limit_leaves_the_agent_as_it_is(agent, tmp_path):
    agent.start(LONG, calls.pid)
    go = tmp_path / "go"
    with pytest.raises(AgentSilent, match=r"has not answered wait_for in 1 s; its log is .*log"):
        agent.ask(1.0, calls.wait_for, str(go))
    with pytest.raises(AgentSilent):
        agent.ask(0.01, calls.double, 1)  # is not even sent
    assert issubclass(AgentSilent, EngineUnavailable)
    go.touch()
    # The late answer is nobody's.
    assert agent.ask(LONG, calls.double, 2) == 4


def test_an_agent_that_takes_nothing_is_ended(agent):
    os.kill(agent.start(LONG, calls.pid), signal.SIGSTOP)

    def ended():
        with pytest.raises(EngineUnavailable):
            agent.ask(0.5, len, b"x" * 5_000_000)  # more than the line holds
        return agent.ending

    assert eventually(ended) == "was stopped: it took no question in time"
    assert agent.start(LONG, calls.double, 2) == 4


@pytest.mark.parametrize(
    ("function", "arguments", "how"),
    [
        (calls.die, (), "was killed by SIGKILL"),
        (calls.write, ("the last words",), "exited with code 3; its log .* ends with: the last w"),
    ],
)
def test_its_death_is_told_and_it_can_be_started_again(agent, mark, function, arguments, how):
    agent.start(LONG, calls.start_strays)
    with pytest.raises(AgentEnded, match=f"the agent {how}"):
        agent.ask(LONG, function, *arguments)
    assert not agent.alive
    assert not mark(), "what it had started is gone by then"
    with pytest.raises(AgentEnded, match=how):
        agent.ask(LONG, calls.pid)
    assert agent.start(LONG, calls.double, 2) == 4
    assert agent.ending is None


def test_a_start_that_fails_leaves_nothing(agent, mark):
    with pytest.raises(LookupError, match="not today"):
        agent.start(LONG, calls.fail, "not today")
    assert not mark()
    with pytest.raises(AgentSilent):
        agent.start(0.5, calls.sleep, 600)
    assert not mark()
    assert agent.ending == "could not be started"


def test_an_agent_that_ends_at_once_is_still_said_to_be_stopped(agent, monkeypatch):
    agent.start(LONG, calls.double, 2)
    close = socket.socket.close

    def slow(line):
        close(line)
        time.sleep(1.0)  # meanwhile the agent sees the end of its line, and exits

    monkeypatch.setattr(socket.socket, "close", slow)
    agent.stop()
    assert agent.ending == "was stopped"


def test_stop_ends_all_that_it_started(agent, mark):
    agent.start(LONG, calls.start_strays)
    pids = agent.ask(LONG, calls.start_pool, 2)
    assert set(pids) <= set(mark())
    semaphore = Path("/dev/shm", agent.ask(LONG, calls.make_semaphore))
    assert semaphore.exists()
    agent.stop()
    assert not mark()
    assert not semaphore.exists()
    assert agent.ending == "was stopped"
    agent.stop()


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL, signal.SIGTERM])
def test_its_guard_may_be_stopped_or_killed(agent, mark, number):
    agent.start(LONG, calls.start_pool, 2)
    guard = agent._process.pid
    os.kill(guard, number)
    if number != signal.SIGSTOP:
        eventually(lambda: not mark(), message=f"{mark()} are left")
        with pytest.raises(AgentEnded):
            agent.ask(LONG, calls.pid)
    agent.stop()
    eventually(lambda: not mark(), message=f"{mark()} are left")


def test_a_forked_process_leaves_it_to_its_parent(agent):
    agent.start(LONG, calls.pid)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with pytest.raises(AgentEnded, match="belongs to the process"):
                agent.ask(LONG, calls.pid)
            agent.stop()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert agent.ask(LONG, calls.double, 2) == 4


def test_stop_waits_for_no_process_that_was_forked_from_its_owner(agent, monkeypatch):
    killed, kill = [], subprocess.Popen.kill
    monkeypatch.setattr("crystalmath.engines.agent.STOP_S", LONG)
    # Its last resort, when all that time has passed.
    monkeypatch.setattr(subprocess.Popen, "kill", lambda it: killed.append(it.pid) or kill(it))
    agent.start(LONG, calls.pid)
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    try:
        agent.stop()
        assert killed == []
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_worker_whose_parent_has_ended_already_ends():
    # The parent that it names is not the one that it has.
    code = f"from crystalmath import worker; worker.end_with_parent({os.getpid() + 1}); print(1)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"")


def test_nothing_outlives_an_owner_that_is_killed_at_any_moment(mark, tmp_path):
    """At random moments of start, ask and answer; the seed is told where one fails."""
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    command = [sys.executable, "-c", OWNER, str(tmp_path / "log")]
    for kill in range(KILLS):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as owner:
            assert owner.stdout.readline() == b"begun\n"
            # Half of them while it starts.
            time.sleep(chance.choice([chance.uniform(0, 0.3), chance.uniform(0, 2)]))
            assert owner.poll() is None, (tmp_path / "log").read_text()
            owner.kill()
        eventually(
            lambda: not mark(),
            message=f"{mark()} outlive an owner (seed {seed}, kill {kill})",
        )
