"""Measure the server's answers to polls, many jobs and a large result, and its cost when idle.

Run it in an environment that has both packages: ``python benchmarks/server.py [polls] [large]
[idle] [waiting] [flows]``. It uses temporary homes, prints each figure beside its limit, polls
beside a bare echo over the same kind of socket, and exits 1 if a limit is broken.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filled_store import fill
from server_peers import BENCHMARKS, Client, Echo, Server
from usage import memory_mb

if TYPE_CHECKING:
    from collections.abc import Callable

CLIENTS, RATE_HZ, JOBS = 50, 10.0, 1000
#: How long one round of polls takes, in seconds, and how many there are.
ROUND_S, ROUNDS = 5.0, 3
STRUCTURE = {"symbols": "Cu", "cell": [3.0, 3.0, 3.0], "pbc": True}
#: Random numbers whose JSON takes 20 MB.
NUMBERS = 1_000_000
IDLE_S = 20.0
#: Recipes for jobs that wait for others, and for flows.
RECIPES = """
import time
from pathlib import Path

from quacc import flow, job, subflow


@job
def number(*, number):
    return number


@subflow
def fan(numbers):
    return [number(number=each) for each in numbers]


@flow
def many(*, count):
    return fan(list(range(count)))


@job
def hold(*, path):
    while not Path(path).exists():
        time.sleep(0.1)
"""

_broken: list[str] = []


def main() -> int:
    """Measure, print, and return whether a limit is broken."""
    os.environ["CRYSTALMATH_RECIPES"] = "noop_recipes"
    known = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(BENCHMARKS), known]))
    with tempfile.TemporaryDirectory(prefix="cm-", ignore_cleanup_errors=True) as folder:
        for name in sys.argv[1:] or _PARTS:
            asyncio.run(_PARTS[name](Path(folder)))
    for broken in _broken:
        print(f"broken: {broken}")
    return int(bool(_broken))


def _tell(what: str, value: float, unit: str, limit: float | None = None) -> None:
    bound = "" if limit is None else f"   limit {limit:g} {unit}"
    print(f"{what:58} {value:10.3f} {unit}{bound}", flush=True)
    if limit is not None and value > limit:
        _broken.append(f"{what}: {value:.3f} {unit}, limit {limit:g}")


def _home(folder: Path, name: str, finished: int = 0) -> Path:
    home = folder / name
    os.environ["CRYSTALMATH_HOME"] = str(home)
    fill(finished)
    return home


# --- polls and many jobs -------------------------------------------------------------------------


async def _polls(folder: Path) -> None:
    few, many = Server(_home(folder, "few")), Server(_home(folder, "many", 100_000))
    echo = Echo(folder)
    try:
        few_ids = await _submit(few, echo, "an empty store")
        many_ids = await _submit(many, echo, "100,000 in it")
        times: dict[str, list[float]] = {"echo": [], "few": [], "many": []}
        for _ in range(ROUNDS):
            times["echo"] += await _poll(echo.path, few_ids)
            times["few"] += await _poll(few.path, few_ids)
            times["many"] += await _poll(many.path, many_ids)
    finally:
        for process in (few, many, echo):
            process.stop()
    print(f"{CLIENTS} clients, each {RATE_HZ:g} times a second, {len(times['few'])} polls:")
    bare = _quantiles("a bare echo", times["echo"])
    status = _quantiles("jobs.status over 1,000 jobs", times["few"], 2.0, 20.0)
    full = _quantiles("the same with 100,000 jobs in the store", times["many"], 2.0, 20.0)
    for index, name in enumerate(("p50", "p99")):
        _tell(f"  {name} beside the echo", status[index] / bare[index], "times")
    _tell("  p50 with 100,000 jobs beside without", full[0] / status[0], "times", 1.5)


async def _submit(server: Server, echo: Echo, store: str) -> list[str]:
    """Submit a thousand jobs in one request, wait for them, and return their ids."""
    client = await Client.connect(server.path)
    job = {"recipe": "noop_recipes.noop", "structure": STRUCTURE, "engine": "local"}
    await client.call("jobs.submit", **job)
    began = time.perf_counter()
    answer = await client.call("jobs.submit_many", jobs=[job] * JOBS)
    _tell(f"1,000 jobs in one request, {store}", time.perf_counter() - began, "s", 2.0)
    ids = [job["job_id"] for job in answer["jobs"]]
    print("while they run:")
    _quantiles("  jobs.status", await _poll(server.path, ids, seconds=1.5))
    _quantiles("  a bare echo", await _poll(echo.path, ids, seconds=1.5))
    while not (await client.call("jobs.wait", job_ids=ids, timeout_s=60))["done"]:
        pass
    _tell("  all of them done", time.perf_counter() - began, "s")
    client.close()
    return ids


async def _poll(path: str, ids: list[str], seconds: float = ROUND_S) -> list[float]:
    """Have all clients poll for a while; return the times of the answers, in seconds."""
    clients = [await Client.connect(path) for _ in range(CLIENTS)]
    times: list[float] = []

    async def poll(client: Client, turn: float) -> None:
        end = turn + seconds
        while turn < end:
            await asyncio.sleep(turn - time.perf_counter())
            began = time.perf_counter()
            await client.ask("jobs.status", {"job_id": random.choice(ids)})
            times.append(time.perf_counter() - began)
            turn += 1 / RATE_HZ

    begin = time.perf_counter() + 0.1
    await asyncio.gather(*(poll(c, begin + random.random() / RATE_HZ) for c in clients))
    for client in clients:
        client.close()
    return times


def _quantiles(
    what: str, times: list[float], p50: float | None = None, p99: float | None = None
) -> tuple[float, float]:
    cuts = statistics.quantiles(times, n=100)
    _tell(f"{what}: p50", 1000 * cuts[49], "ms", p50)
    _tell(f"{what}: p99", 1000 * cuts[98], "ms", p99)
    return cuts[49], cuts[98]


# --- a large result ------------------------------------------------------------------------------


async def _large(folder: Path) -> None:
    server = Server(_home(folder, "large"))
    try:
        client = await Client.connect(server.path)
        params = {"count": NUMBERS}
        job = {"recipe": "noop_recipes.numbers", "structure": STRUCTURE, "params": params}
        job_id = (await client.call("jobs.submit", **job, engine="local"))["job_id"]
        await client.call("jobs.wait", job_ids=[job_id], timeout_s=120)
        stalls = [await _longest(client, job_id, lambda: _sleep(2)) for _ in range(2)]
        fetched = [await _longest(client, job_id, lambda: _fetch(server, job_id)) for _ in range(5)]
    finally:
        server.stop()
    print(f"a result of {_fetched['size'] / 1e6:.1f} MB:")
    _tell("  its transfer", _fetched["seconds"], "s")
    _tell("  the longest poll of another client", 1000 * statistics.median(fetched), "ms", 50.0)
    _tell("  the longest poll without it", 1000 * statistics.median(stalls), "ms")


_fetched: dict[str, Any] = {}


async def _longest(client: Client, job_id: str, meanwhile: Callable[[], Any]) -> float:
    """Poll during another request; return the longest time of an answer, in seconds."""
    other = asyncio.create_task(meanwhile())
    longest = 0.0
    while not other.done():
        began = time.perf_counter()
        await client.ask("jobs.status", {"job_id": job_id})
        longest = max(longest, time.perf_counter() - began)
        await asyncio.sleep(0.002)
    await other
    return longest


async def _sleep(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def _fetch(server: Server, job_id: str) -> None:
    """Read the result in another process, so that its work is not measured as ours."""
    command = [sys.executable, __file__, "read", server.path, job_id]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    output, _ = await process.communicate()
    _fetched.update(json.loads(output))


async def _read_result(path: str, job_id: str) -> None:
    client = await Client.connect(path)
    began = time.perf_counter()
    body = await client.ask("jobs.result", {"job_id": job_id})
    seconds = time.perf_counter() - began
    if len(json.loads(body)["result"]["result"]["numbers"]) != NUMBERS:
        raise RuntimeError("the result did not come whole")
    print(json.dumps({"seconds": seconds, "size": len(body)}))


# --- idle ----------------------------------------------------------------------------------------


async def _idle(folder: Path) -> None:
    server = Server(_home(folder, "idle", 10_000))
    pid = server.process.pid
    try:
        client = await Client.connect(server.path)
        job = {"recipe": "noop_recipes.noop", "structure": STRUCTURE, "engine": "parsl"}
        job_id = (await client.call("jobs.submit", **job))["job_id"]
        answer = await client.call("jobs.wait", job_ids=[job_id], timeout_s=120)
        if answer["jobs"][0]["status"] != "completed":
            raise RuntimeError(f"Parsl does not work here: {answer['jobs'][0]}")
        async for _ in _pages(client):
            pass
        used = await _used(pid)
        memory = memory_mb(pid)
    finally:
        server.stop()
    print("idle with 10,000 finished jobs, all listed once, and Parsl loaded:")
    _tell("  of a core", used, "%", 1.0)
    _tell("  memory", memory, "MB", 160.0)


async def _pages(client: Client) -> Any:
    cursor = None
    while True:
        page = await client.call("jobs.list", limit=1000, cursor=cursor)
        yield page
        cursor = page["cursor"]
        if cursor is None:
            return


# --- jobs that wait, and flows -------------------------------------------------------------------


def _server_of_flows(folder: Path, name: str) -> Server:
    (folder / "flows.py").write_text(RECIPES)
    os.environ["CRYSTALMATH_RECIPES"] = "noop_recipes,flows"
    os.environ["PYTHONPATH"] += f"{os.pathsep}{folder}"
    return Server(_home(folder, name))


async def _waiting(folder: Path) -> None:
    server, count = _server_of_flows(folder, "waiting"), 10_000
    pid = server.process.pid
    try:
        client = await Client.connect(server.path)
        hold = {"recipe": "flows.hold", "params": {"path": str(folder / "go")}, "engine": "local"}
        (first,) = await _submitted(client, [hold])
        alone = await _used(pid)
        job = {"recipe": "flows.number", "engine": "local", "after": [first]}
        for start in range(0, count, 1000):
            jobs = [{**job, "params": {"number": start + n}} for n in range(1000)]
            await _submitted(client, jobs)
        with_all = await _used(pid)
        await client.call("jobs.cancel", job_id=first, with_successors=True)
    finally:
        server.stop()
    _tell("one job runs: of a core", alone, "%")
    _tell(f"  so much more while {count:,} wait for it", with_all - alone, "%", 1.0)


async def _used(pid: int) -> float:
    """Return the share of a core that a server takes at rest, in percent."""
    await asyncio.sleep(5)
    began = _cpu_s(pid)
    await asyncio.sleep(IDLE_S)
    return 100 * (_cpu_s(pid) - began) / IDLE_S


async def _flows(folder: Path) -> None:
    server = _server_of_flows(folder, "flows")
    pid = server.process.pid
    try:
        client = await Client.connect(server.path)
        job = {"recipe": "flows.number", "engine": "local"}
        flow = {"recipe": "flows.many", "engine": "local"}
        await _run(client, [{**flow, "params": {"count": 1}}])  # what runs it is warm from now on
        few = [{**job, "params": {"number": number}} for number in range(51)]
        by_hand = [await _run(client, few) for _ in range(ROUNDS)]
        as_flow = [await _run(client, [{**flow, "params": {"count": 51}}]) for _ in range(ROUNDS)]
        began = _cpu_s(pid)
        thousand = await _run(client, [{**flow, "params": {"count": 1000}}])
        used = _cpu_s(pid) - began
    finally:
        server.stop()
    more = statistics.median(as_flow) - statistics.median(by_hand)
    _tell("51 jobs that do nothing, by hand", statistics.median(by_hand), "s")
    _tell("  a flow of them takes so much longer", more, "s", 1.0)
    _tell("a flow of 1,000 of them", thousand, "s")
    _tell("  the server's processor time for each", used, "ms")


async def _submitted(client: Client, jobs: list[dict[str, Any]]) -> list[str]:
    answers = (await client.call("jobs.submit_many", jobs=jobs))["jobs"]
    if refused := [answer["error"] for answer in answers if answer["error"] is not None]:
        raise RuntimeError(f"jobs were refused: {refused[0]}")
    return [answer["job_id"] for answer in answers]


async def _run(client: Client, jobs: list[dict[str, Any]]) -> float:
    """Submit jobs in one request, and wait for them; return how long that took, in seconds."""
    began = time.perf_counter()
    ids = await _submitted(client, jobs)
    while not (answer := await client.call("jobs.wait", job_ids=ids, timeout_s=60))["done"]:
        pass
    if any(job["status"] != "completed" for job in answer["jobs"]):
        raise RuntimeError(f"jobs have failed: {answer['jobs']}")
    return time.perf_counter() - began


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


_PARTS = {"polls": _polls, "large": _large, "idle": _idle, "waiting": _waiting, "flows": _flows}

if __name__ == "__main__":
    if sys.argv[1:2] == ["read"]:
        asyncio.run(_read_result(*sys.argv[2:]))
    else:
        sys.exit(main())
