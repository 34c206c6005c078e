"""Measure a client's waits, and the server's memory, while other clients attack the server.

Run it in an environment that has core: ``python benchmarks/attacks.py [attack ...]``. Each attack
lasts some seconds, beside a well-behaved client. It uses a temporary home, prints each figure
beside its limit, and exits 1 if a limit is broken.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import define
from filled_store import fill
from server_peers import BENCHMARKS, Client, Server, receive

from crystalmath.wire import messages

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

STRUCTURE = {"symbols": "Cu", "cell": [3.0, 3.0, 3.0], "pbc": True}
NOOP = {"recipe": "noop_recipes.noop", "structure": STRUCTURE, "engine": "local"}
#: How long each attack goes on, in seconds.
ATTACK_S = 15.0
#: Finished jobs in the store.
JOBS = 10_000
#: Random numbers whose JSON takes 2 MB, and 20 MB.
NUMBERS, MANY_NUMBERS = 100_000, 1_000_000
#: The size of each write, in bytes.
_PIECE = 2**18
#: The time after an attack until the memory must be released, in seconds.
REST_S = 1.0

#: How long the processes that attack take to begin, in seconds.
_BEGIN_S = 2.0
#: Attacks have processes of their own, so that their work is not measured as the server's.
_SPAWNED = multiprocessing.get_context("spawn")

_broken: list[str] = []


@define
class Home:
    """The server, and the jobs of the requests."""

    path: str
    pid: int
    small: str = ""
    large: str = ""

    async def fill(self) -> None:
        """Run the jobs whose results are requested, and leave a file with a large content."""
        client = await Client.connect(self.path)
        for name, count in (("small", NUMBERS), ("large", MANY_NUMBERS)):
            job = {**NOOP, "recipe": "noop_recipes.numbers", "params": {"count": count}}
            job_id = (await client.call("jobs.submit", **job))["job_id"]
            await client.call("jobs.wait", job_ids=[job_id], timeout_s=120)
            setattr(self, name, job_id)
        work = (await client.call("jobs.status", job_id=self.small))["work_dir"]
        with gzip.open(Path(work, "bomb.gz"), "wb", compresslevel=1) as bomb:
            for _ in range(1000):
                bomb.write(bytes(2**20))
        client.close()

    def memory_mb(self) -> float:
        """Return the memory of the server, in MB."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


# --- attacks -------------------------------------------------------------------------------------


async def _raw(home: Home, *messages: bytes) -> None:
    """Send requests, and read no answer until the attack ends."""
    _, writer = await asyncio.open_unix_connection(home.path)
    try:
        for message in messages:
            writer.write(message)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        await asyncio.Event().wait()
    finally:
        writer.close()


def _request(method: str, **params: Any) -> bytes:
    document = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return messages.frame(messages.dumps(document))


async def _again(home: Home, method: str, **params: Any) -> None:
    """Repeat one request; it is encoded once, so that the encoding is not measured."""
    message = _request(method, **params)
    while True:
        reader, writer = await asyncio.open_unix_connection(home.path, limit=2**26)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                for start in range(0, len(message), _PIECE):
                    writer.write(message[start : start + _PIECE])
                    await writer.drain()
                await receive(reader)
        writer.close()


async def _slowly(home: Home, method: str, **params: Any) -> None:
    """Request a large answer, and read a kilobyte of it now and then."""
    reader, writer = await asyncio.open_unix_connection(home.path, limit=2**12)
    try:
        writer.write(_request(method, **params))
        piece = await reader.read(1024)
        while piece:
            await asyncio.sleep(0.1)
            piece = await reader.read(1024)
    finally:
        writer.close()


def _headers(home: Home) -> list[Coroutine[Any, Any, None]]:
    promise = b"Content-Length: 67108864\r\n\r\n"
    whole = messages.frame(b" " * 100_000)
    return [_raw(home, promise), *(_raw(home, promise, b"{" * 1000) for _ in range(3)),
            _raw(home, whole)]  # fmt: skip


def _submissions(home: Home) -> list[Coroutine[Any, Any, None]]:
    job = {**NOOP, "params": {"text": "x" * 30_000_000}}
    return [_again(home, "jobs.submit", **job) for _ in range(4)]


def _bombs(home: Home) -> list[Coroutine[Any, Any, None]]:
    params = {"job_id": home.small, "file": "bomb", "max_bytes": 16 * 2**20}
    return [_again(home, "jobs.logs", **params, tail=1) for _ in range(8)]


def _lists(home: Home) -> list[Coroutine[Any, Any, None]]:
    request = _request("jobs.list", limit=10_000)
    return [_raw(home, *[request] * 64) for _ in range(4)]


def _logs(home: Home) -> list[Coroutine[Any, Any, None]]:
    request = _request("jobs.logs", job_id=home.small, file="bomb", max_bytes=16 * 2**20)
    return [_raw(home, *[request] * 64) for _ in range(4)]


def _results(home: Home) -> list[Coroutine[Any, Any, None]]:
    return [_slowly(home, "jobs.result", job_id=home.large) for _ in range(8)]


def _structures(home: Home) -> list[Coroutine[Any, Any, None]]:
    huge = {**NOOP, "structure": {"symbols": "H1000000"}}
    return [_again(home, "jobs.submit_many", jobs=[huge] * 100) for _ in range(4)]


def _silence(home: Home) -> list[Coroutine[Any, Any, None]]:
    return [_raw(home) for _ in range(230)]


ATTACKS: dict[str, Callable[[Home], list[Coroutine[Any, Any, None]]]] = {
    "headers": _headers,
    "submissions": _submissions,
    "bombs": _bombs,
    "lists": _lists,
    "logs": _logs,
    "results": _results,
    "structures": _structures,
    "silence": _silence,
}


def _attack(name: str, home: Home) -> None:
    async def together() -> None:
        await asyncio.gather(*ATTACKS[name](home))

    asyncio.run(together())


# --- the well-behaved client ---------------------------------------------------------------------


async def _ping(home: Home, times: list[float]) -> None:
    client = await _connected(home)
    while True:
        began = time.perf_counter()
        await client.ask("system.ping", {})
        times.append(time.perf_counter() - began)
        await asyncio.sleep(0.02)


async def _work(home: Home, times: dict[str, list[float]]) -> None:
    client = await _connected(home)
    requests = [
        ("jobs.status", {"job_id": home.small}),
        ("jobs.submit", NOOP),
        ("jobs.result", {"job_id": home.small}),
    ]
    while True:
        for method, params in requests:
            began = time.perf_counter()
            answer = await client.ask(method, params)
            times.setdefault(method, []).append(time.perf_counter() - began)
            if b'"error":{' in answer[:200]:
                raise RuntimeError(answer[:300])
        await asyncio.sleep(0.1)


async def _connected(home: Home) -> Client:
    """Connect; before its turn a connection gets an error."""
    while True:
        client = await Client.connect(home.path)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            if "result" in messages.loads(await client.ask("system.ping", {})):
                return client
        client.close()
        await asyncio.sleep(0.1)


async def _under(home: Home, name: str | None) -> None:
    pings: list[float] = []
    works: dict[str, list[float]] = {}
    most = home.memory_mb()
    attack = _SPAWNED.Process(target=_attack, args=(name, home), daemon=True) if name else None
    if attack:
        attack.start()
    await asyncio.sleep(_BEGIN_S)
    behaving = [asyncio.ensure_future(each) for each in (_ping(home, pings), _work(home, works))]
    end = time.monotonic() + ATTACK_S
    while time.monotonic() < end:
        await asyncio.sleep(0.1)
        most = max(most, home.memory_mb())
    failed = [each.exception() for each in behaving if each.done()]
    for each in behaving:
        each.cancel()
    await asyncio.gather(*behaving, return_exceptions=True)
    if attack:
        if attack.exitcode is not None:
            _broken.append(f"{name}: the attack ended by itself")
        attack.kill()
        attack.join()
    print(f"{name or 'nobody'}:")
    _broken.extend(f"{name}: {error!r}" for error in failed)
    if len(pings) > 1:
        _tell("ping, p99", 1000 * statistics.quantiles(pings, n=100)[98], "ms", 50.0, name)
    for method in ("jobs.status", "jobs.submit", "jobs.result"):
        if durations := works.get(method):
            _tell(f"{method}, the longest of {len(durations)}", max(durations), "s", 1.0, name)
        else:
            _broken.append(f"{name}: no {method} was answered")
    _tell("memory at most", most, "MB", 1000.0, name)


def _tell(what: str, value: float, unit: str, limit: float, name: str | None) -> None:
    print(f"  {what:40} {value:10.3f} {unit}   limit {limit:g} {unit}", flush=True)
    if value > limit:
        _broken.append(f"{name}: {what}: {value:.3f} {unit}, limit {limit:g}")


async def _measure(folder: Path) -> None:
    os.environ["CRYSTALMATH_HOME"] = str(folder / "home")
    fill(JOBS)
    server = Server(folder / "home")
    try:
        home = Home(server.path, server.process.pid)
        await home.fill()
        await _under(home, None)
        for name in sys.argv[1:] or ATTACKS:
            await _under(home, name)
        await asyncio.sleep(REST_S)
        print("a minute later:")
        _tell("memory", home.memory_mb(), "MB", 200.0, None)
    finally:
        server.stop()


def main() -> int:
    """Measure, print, and return whether a limit is broken."""
    os.environ["CRYSTALMATH_RECIPES"] = "noop_recipes"
    known = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(BENCHMARKS), known]))
    with tempfile.TemporaryDirectory(prefix="cm-", ignore_cleanup_errors=True) as folder:
        asyncio.run(_measure(Path(folder)))
    for broken in _broken:
        print(f"broken: {broken}")
    return int(bool(_broken))


if __name__ == "__main__":
    sys.exit(main())
