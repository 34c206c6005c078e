"""One life of an owner of an engine, under which processes are killed at random.

``python tests/engines/random_kills.py ENGINE SEED [KILLS [batch]]`` runs one and tells what was
wrong with it; `run` does so in a home of a test's own. With ``batch`` the recipe has a batched
function.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalmath import processes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from crystalmath.quacc.engine import EngineRunner

TESTS = Path(__file__).parents[1]
#: The recipes, and what keeps quacc from being found: importing it would take most of the time.
PATHS = (TESTS / "light", TESTS / "lab")
MARK = "KILLS_TEST"
#: What a kind of victim has in its command line, the most telling first.
KINDS = {
    "interchange.py": "interchange",
    "HTEX interchange": "interchange",  # the title that it gives itself
    "process_worker_pool.py": "manager",
    "resource_tracker": "resource_tracker",
    "multiprocessing": "spawned",  # workers, and the server of the manager's shared objects
    "worker.supervisor": "supervisor",
    "worker.runner": "runner",
    "bash": "shell",
    "engines.agent_process": "agent",
}
#: How long the jobs may take to end after the last kill, in seconds: what is stuck is so for ever,
#: and on a busy machine a worker may take minutes to start.
END_S = 900.0
#: How long processes may take to go after their owner, in seconds.
LEAVE_S = 120.0


def run(
    engine: str, seed: int, home: Path, kills: int = 25, *, batch: bool = False
) -> dict[str, Any]:
    """Run one life; tell what happened, and what was wrong with it.

    With an odd seed the owner, too, is killed at the end, and another one takes its jobs over. The
    seed also says how many jobs may go into one attempt of the engine's: 1, 5 or 50.
    """
    mark = uuid.uuid4().hex
    options = "" if batch else f"parcel = {(1, 5, 50)[seed % 3]}\n"
    (home / "config.toml").write_text(f"[engines.{engine}]\n{options}")
    (home / "notes").mkdir()
    try:
        told = _life(home, mark, "live", engine, str(seed), str(kills), "batch" * batch)
        left = _left(mark)
    finally:
        processes.end_processes(lambda: processes.marked(MARK, mark))
    notes = {path.name: path.read_text().split() for path in (home / "notes").iterdir()}
    told["wrong"] = _wrong(told["jobs"], notes) | ({"left over": left} if left else {})
    return told


def _life(home: Path, mark: str, *arguments: str) -> dict[str, object]:
    environment = {
        **os.environ,
        "CRYSTALMATH_HOME": str(home),
        "CRYSTALMATH_RECIPES": "lab_recipes,batch_recipes",
        "PYTHONPATH": os.pathsep.join(map(str, PATHS)),
        MARK: mark,
    }
    with (home / f"{arguments[0]}.log").open("wb") as errors:
        owner = subprocess.run(
            [sys.executable, __file__, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
            timeout=2 * END_S,
            check=False,
        )
    told = json.loads(owner.stdout or "null")
    if owner.returncode == -signal.SIGKILL:
        return told | _life(home, mark, "adopt", arguments[1], *told["jobs"])
    assert owner.returncode == 0, f"the owner ended with {owner.returncode}: {home}"
    return told


def _left(mark: str) -> dict[int, str]:
    """Name the processes that do not go with their owner."""
    deadline = time.monotonic() + LEAVE_S
    while (left := processes.marked(MARK, mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return {pid: _command(pid) for pid in left}


def _wrong(jobs: dict[str, list[Any]], notes: dict[str, list[str]]) -> dict[str, object]:
    """Name the jobs with which something is wrong, by what it is.

    One fails only if both of its attempts were killed, and comes to its end twice only if the first
    was killed between that and its outcome.
    """
    found = {
        "stuck": {job: told for job, told in jobs.items() if told[0] in ("pending", "running")},
        "failed": {job: told for job, told in jobs.items() if told[0] == "failed" and told[3] < 2},
        "not run": [job for job, told in jobs.items() if told[0] == "completed" and not notes[job]],
        "twice": [job for job, said in notes.items() if said.count("end") > jobs[job][3]],
        "wrong": {
            job: told
            for job, told in jobs.items()
            if told[0] == "completed" and told[4] not in (None, 7 * int(job))
        },
        "overlapping": [job for job, said in notes.items() if "overlap" in said],
    }
    return {what: which for what, which in found.items() if which}


def live(engine: str, seed: int, kills: int, *, batch: bool) -> None:
    """Own jobs, and kill what runs them; write to standard output what became of them."""
    from ase.build import bulk

    from crystalmath.quacc import get_runner

    chance = random.Random(seed)
    runner: Any = get_runner(engine)
    jobs: list[str] = []

    def submit(count: int) -> None:
        for _ in range(count):
            path = Path(os.environ["CRYSTALMATH_HOME"]) / "notes" / str(len(jobs))
            path.touch()
            atoms = bulk("Al")
            atoms.set_tags(len(jobs))
            if batch:
                recipe, told = "batch_recipes.alone_job", {"folder": str(path.parent)}
                told["seconds"] = 1.0
            else:
                recipe, told = "lab_recipes.alone", {"path": str(path)}
                told["seconds"] = chance.uniform(0.05, 1.5)
            jobs.append(runner.submit(recipe, atoms, "local", **told))

    submit(4)
    killed = []
    while len(killed) < kills:
        time.sleep(chance.uniform(0.1, 2.0))
        victims = _some(chance)
        killed += _kill(victims)
        if victims or not _victims():  # whoever has nothing to do starts nothing to kill
            # Several at once go into one attempt.
            submit(chance.choice((0, 1, 5, 25) if batch else (0, 0, 1, 5)))
    if seed % 2:
        print(json.dumps({"seed": seed, "kills": killed, "jobs": jobs}), flush=True)
        _kill(
            [(kind, pid) for kind in ("manager", "interchange") for pid in _victims().get(kind, [])]
        )
        os.kill(os.getpid(), signal.SIGKILL)
    told = _ends(runner, jobs)
    runner.close()
    print(json.dumps({"seed": seed, "kills": killed, **told}))


def adopt(engine: str, *jobs: str) -> None:
    """Take jobs over from an owner that was killed, and see them end."""
    from crystalmath.quacc import get_runner

    runner: Any = get_runner(engine)
    for job in jobs:
        runner.adopt(job)
    told = _ends(runner, jobs)
    runner.close()
    print(json.dumps(told))


def _ends(runner: EngineRunner, jobs: Sequence[str]) -> dict[str, object]:
    """Wait for the ends of jobs; tell them, and how long it took."""
    begun = time.monotonic()
    while time.monotonic() < begun + END_S:
        if all(runner.get_status(job).is_terminal() for job in jobs):
            break
        time.sleep(0.1)
    seconds = round(time.monotonic() - begun, 1)
    told = {}
    for number, job in enumerate(jobs):
        result = runner.get_result(job) or {}
        error = str(result.get("error", ""))
        state, value = runner.get_status(job).value, result.get("value")
        told[str(number)] = [state, error, job, _outcomes(job), value]
    return {"jobs": told, "seconds": seconds}


def _outcomes(job: str) -> int:
    """Count a job's attempts that have ended."""
    jobs = Path(os.environ["CRYSTALMATH_HOME"]) / "jobs"
    return len(list((jobs / job).glob("*.outcome")))


def _some(chance: random.Random) -> list[tuple[str, int]]:
    """Choose one process, or two, of any kinds."""
    victims = _victims()
    if len(victims) < 3 and chance.random() < 0.8:
        return []  # else no pool would ever come so far that it does something
    kinds = chance.choices(sorted(victims), k=chance.choice([1, 1, 2])) if victims else []
    return [(kind, chance.choice(victims[kind])) for kind in kinds]


def _kill(victims: Sequence[tuple[str, int]]) -> list[str]:
    """Kill processes; name their kinds."""
    for _, pid in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return [kind for kind, _ in victims]


def _victims() -> dict[str, list[int]]:
    """List what runs our jobs, by kind."""
    found: dict[str, list[int]] = {}
    for pid in sorted(
        {*processes.marked(MARK, os.environ[MARK]), *processes.descendants(os.getpid())}
    ):
        command = _command(pid)
        kind = next((kind for telling, kind in KINDS.items() if telling in command), None)
        if kind:
            found.setdefault(kind, []).append(pid)
    return found


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


def main() -> None:
    """Run what the command line names."""
    if sys.argv[1] == "live":
        return live(
            sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), batch=sys.argv[5:] == ["batch"]
        )
    if sys.argv[1] == "adopt":
        return adopt(*sys.argv[2:])
    home = Path(tempfile.mkdtemp(prefix="kills-"))
    kills = map(int, sys.argv[3:4])
    told = run(sys.argv[1], int(sys.argv[2]), home, *kills, batch=sys.argv[4:] == ["batch"])
    failed = sum(job[0] == "failed" for job in told["jobs"].values())
    print(f"{home}: seed {told['seed']}, {len(told['kills'])} kills, {len(told['jobs'])} jobs,")
    print(f"{failed} failed; {told['seconds']} s from the last kill to the last end")
    print(json.dumps(told["wrong"] or "nothing wrong", indent=1))
    sys.exit(bool(told["wrong"]))


if __name__ == "__main__":
    main()
