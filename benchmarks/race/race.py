"""Race the same work through other packages and through us: ``python benchmarks/race/race.py``.

Each contestant gets a virtual environment of its own, with pinned versions and the defaults that
its authors document. Times are the medians of three rounds; the tasks of `ONCE` run once. Each cell
is printed as it comes, and the table at the end. The table is Markdown; ``--output FILE`` keeps the
known cells of it in a file, and a race that was ended goes on with the others. The race needs
``uv``, and an idle machine for an hour or two.

Tasks:

noop, static
    1,000 functions that do nothing, and 1,000 statics of 32 atoms by EMT, from the start of the
    process to its end.
slabs
    50 flows of quacc (`bulk_to_slabs_flow`).
cold
    From nothing installed to the first static: seconds, packages, MB.
killed
    200 jobs of 0.1 s; the controlling process and its servers are killed (SIGKILL) in the middle,
    and the same command is run again: jobs lost, run twice, processes left over.
chgnet
    1,000 statics of 32 atoms by CHGNet on CPUs, with the model loaded once a process. Needs 6 GB.
record
    100,000 jobs on record: seconds until the command line has listed jobs, and shown one.
cancel
    Seconds from the cancel until the job's process and its child are dead; at most 30.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).resolve().parent
PACKAGES = HERE.parents[1] / "packages"
DECLARED = tomllib.loads((HERE / "contestants.toml").read_text(encoding="utf-8"))
COUNTS = {
    "noop": 1000,
    "static": 1000,
    "slabs": 50,
    "killed": 200,
    "record": 100_000,
    "chgnet": 1000,
}
ONCE = ("cold", "killed", "record", "chgnet")
TASKS = ("noop", "static", "slabs", "cold", "killed", "cancel", "record", "chgnet")
#: All processes of a contestant have this variable, with its folder.
MARK = "RACE_FOLDER"
LIMIT_S = 1800.0


class Contestant(NamedTuple):
    """One row of the table."""

    file: str
    name: str
    install: list[str]
    environment: dict[str, str]
    without: dict[str, str]
    #: The part of the jobs that it gets, where all take too long.
    part: float


def main() -> None:
    """Race, and print the table."""
    options = _options()
    contestants = [
        Contestant(
            each["file"],
            each["name"],
            [*DECLARED["quacc"], *each["install"]],
            each.get("environment", {}),
            each.get("without", {}),
            each.get("part", 1.0),
        )
        for each in DECLARED["contestant"]
        if not options.only or any(word in each["name"] for word in options.only)
    ]
    work = Path(tempfile.mkdtemp(prefix="race-"))
    try:
        print(_race(contestants, options, work))
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--task", action="append", choices=TASKS, help="only these; repeat it")
    parser.add_argument("--only", action="append", metavar="TEXT", help="only these contestants")
    parser.add_argument("--repeat", type=int, default=3, help="rounds; the median counts")
    parser.add_argument("--scale", type=float, default=1.0, help="a part of the jobs, for a trial")
    parser.add_argument("--output", type=Path, help="also write the table there")
    return parser.parse_args()


def _race(contestants: list[Contestant], options: argparse.Namespace, work: Path) -> str:
    tasks = options.task or TASKS
    known = {}
    if options.output and options.output.exists():
        known = read_table(options.output.read_text(encoding="utf-8"))
    cells = {
        one.name: {task: known.get(one.name, {}).get(task, "") for task in tasks}
        for one in contestants
    }
    for number, one in enumerate(contestants):
        if all(cells[one.name].values()):
            continue
        environment = work / f"venv-{number}"
        _install(one, environment)
        for task in (each for each in tasks if not cells[one.name][each]):
            try:
                cell = one.without.get(task) or _task(one, task, options, environment, work)
            except (AssertionError, subprocess.SubprocessError) as error:
                cell = f"failed: {error}".replace("\n", " ").replace("|", "/")[:200]
            cells[one.name][task] = cell
            print(f"{time.strftime('%X')} {one.name}, {task}: {cell}", file=sys.stderr, flush=True)
            if options.output:
                options.output.write_text(_table(tasks, cells), encoding="utf-8")
        shutil.rmtree(environment)
    return _table(tasks, cells)


def read_table(text: str) -> dict[str, dict[str, str]]:
    """Return the cells of the race's table in a text, by contestant and task."""
    lines = text[text.index("|  |") :].partition("\n\n")[0].splitlines()
    (_, *tasks), _, *rows = ([each.strip() for each in line.split("|")[1:-1]] for line in lines)
    return {name: dict(zip(tasks, row, strict=True)) for name, *row in rows}


def _table(tasks: Sequence[str], cells: dict[str, dict[str, str]]) -> str:
    """Return a table in Markdown, with a row for each contestant."""
    rows = [("", *tasks), ("---",) * (len(tasks) + 1)]
    rows += [(name, *found.values()) for name, found in cells.items()]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def _install(one: Contestant, environment: Path) -> float:
    """Make a contestant's environment, and return the seconds that it took."""
    begun = time.monotonic()
    packages = [
        str(PACKAGES / each[1:]) + ("[quacc]" if each == "@core" else "")
        if each[0] == "@"
        else each
        for each in one.install
    ]
    subprocess.run(["uv", "venv", "--quiet", "--python=3.11", str(environment)], check=True)
    _add(packages, environment)
    return time.monotonic() - begun


def _add(packages: list[str], environment: Path) -> None:
    command = ["uv", "pip", "install", "--quiet", f"--python={environment}", *packages]
    subprocess.run(command, check=True)


def _cold(one: Contestant, work: Path) -> str:
    """Compute the first job after the installation: nothing is compiled or cached yet."""
    again = work / "cold"
    installing = _install(one, again)
    with _folder(work) as folder:
        first = _seconds(one, "static", 1, again, folder)
    listed = subprocess.run(
        ["uv", "pip", "list", "--quiet", f"--python={again}", "--format=freeze"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    size = sum(file.stat().st_size for file in again.rglob("*") if file.is_file())
    shutil.rmtree(again)
    packages = len(listed.stdout.splitlines())
    return f"{installing + first:.0f} s, {packages} packages, {size / 1e6:.0f} MB"


def _task(
    one: Contestant, task: str, options: argparse.Namespace, environment: Path, work: Path
) -> str:
    if task == "cold":
        return _cold(one, work)
    if task == "chgnet":
        _add(DECLARED["chgnet"], environment)
    part = 1.0 if task in ("killed", "record") else one.part
    count = max(4, round(COUNTS.get(task, 1) * options.scale * part))
    if task == "killed":
        with _folder(work) as folder:
            return _killed(one, count, environment, folder)
    times = []
    for _ in range(1 if task in ONCE else options.repeat):
        with _folder(work) as folder:
            if task in ("cancel", "record"):
                code = _start(one, task, count, environment, folder).wait(LIMIT_S)
                out = (folder / "out").read_text(encoding="utf-8").strip()
                if code or out == "alive" or task == "record":
                    return out or (folder / "log").read_text(encoding="utf-8")[-100:].strip()
                times.append(float(out))
            else:
                times.append(_seconds(one, task, count, environment, folder))
    usual = max(4, round(COUNTS.get(task, 1)))
    return f"{statistics.median(times):.3g} s" + f" for {count:,}" * (count < usual)


def _seconds(one: Contestant, task: str, count: int, environment: Path, folder: Path) -> float:
    begun = time.monotonic()
    process = _start(one, task, count, environment, folder)
    process.wait(LIMIT_S)
    passed = time.monotonic() - begun
    log = (folder / "log").read_text(encoding="utf-8", errors="replace")
    assert process.returncode == 0, log[-300:]
    if task != "slabs":  # its steps are quacc's own
        ran = _ledger(folder)
        assert sorted(ran) == list(range(count)), f"{len(ran)} of {count} ran"
    return passed


def _killed(one: Contestant, count: int, environment: Path, folder: Path) -> str:
    process = _start(one, "short", count, environment, folder)
    while len(_ledger(folder)) < count // 2:
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.01)
    for pid, words in _alive(folder).items():
        if pid == process.pid or b"crystalmath.server" in words:
            os.kill(pid, signal.SIGKILL)
    process.wait()
    time.sleep(10)
    left = len(_alive(folder))
    again = _start(one, "short", count, environment, folder)
    again.wait(LIMIT_S)
    ran = _ledger(folder)
    lost = count - len(ran)
    twice = sum(times > 1 for times in ran.values())
    return f"{lost} lost, {twice} twice, {left} processes 10 s later"


def _start(
    one: Contestant, task: str, count: int, environment: Path, folder: Path
) -> subprocess.Popen[bytes]:
    """Start a contestant in a session and a folder of its own."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    script = str(HERE / f"contestants/{one.file}.py")
    # No pipes: processes that stay would keep them open.
    with (folder / "log").open("a") as log, (folder / "out").open("w") as out:
        process = subprocess.Popen(
            [str(environment / "bin/python"), script, task, str(count), str(folder)],
            env={
                **inherited,
                **one.environment,
                "PATH": f"{environment / 'bin'}:{os.environ['PATH']}",
                "PYTHONPATH": str(HERE),
                "OMP_NUM_THREADS": "1",
                "QUACC_RESULTS_DIR": str(folder / "quacc"),
                MARK: str(folder),
            },
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=log,
            start_new_session=True,
        )
    with (folder / "sessions").open("a") as sessions:
        sessions.write(f"{process.pid}\n")
    return process


@contextlib.contextmanager
def _folder(work: Path) -> Any:
    """Make a folder of one run; whatever still runs there is killed at the end."""
    folder = Path(tempfile.mkdtemp(dir=work))
    (folder / "quacc").mkdir()
    (folder / "sessions").touch()
    try:
        yield folder
    finally:
        for _ in range(20):
            for pid in _alive(folder):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        shutil.rmtree(folder, ignore_errors=True)


def _ledger(folder: Path) -> Counter[int]:
    """Return how often each job ran."""
    with contextlib.suppress(FileNotFoundError):
        return Counter(map(int, (folder / "ledger").read_text(encoding="ascii").split()))
    return Counter()


def _alive(folder: Path) -> dict[int, bytes]:
    """Return the processes of a run, with their command lines."""
    mark = f"{MARK}={folder}".encode()
    sessions = {int(each) for each in (folder / "sessions").read_text(encoding="ascii").split()}
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        pid = int(process.name)
        with contextlib.suppress(OSError):
            # A process that changes its title loses its environment.
            marked = mark in (process / "environ").read_bytes().split(b"\0")
            if marked or os.getsid(pid) in sessions:
                found[pid] = (process / "cmdline").read_bytes()
    return found


if __name__ == "__main__":
    main()
