"""Recipes that behave, and misbehave, in every way that the kit asks about.

They reach a worker by name; this module imports nothing that a worker may not have.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ase import Atoms


def echo(atoms: Atoms, /, **parameters: Any) -> dict[str, Any]:
    """Give back what came in."""
    return {"symbols": list(atoms.symbols), **parameters}


def without_structure(files: list[str] | None = None, *, number: int = 1) -> dict[str, Any]:
    """Take no structure, as those of quacc's recipes that go on from another's files."""
    return {"files": files, "number": number}


def wait_for(atoms: Atoms, path: str, seconds: float = 300.0) -> dict[str, Any]:
    """Run until a file is there."""
    del atoms
    deadline = time.monotonic() + seconds
    while not Path(path).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return {"pid": os.getpid()}


def count_and_wait(atoms: Atoms, count: str, path: str) -> dict[str, Any]:
    """Leave a mark for each time that this ran, then run until a file is there."""
    with Path(count).open("a", encoding="ascii") as file:
        file.write("x")
    return wait_for(atoms, path)


def count_and_fail(atoms: Atoms, count: str) -> None:
    """Leave a mark for each time that this ran, then raise."""
    with Path(count).open("a", encoding="ascii") as file:
        file.write("x")
    fail(atoms, "after a mark")


def fail(atoms: Atoms, message: str) -> None:
    """Raise."""
    del atoms
    raise RuntimeError(message)


def kill_by(atoms: Atoms, number: int = signal.SIGKILL) -> None:
    """Die of a signal."""
    del atoms
    os.kill(os.getpid(), number)


def kill_once(atoms: Atoms, count: str) -> dict[str, Any]:
    """Leave a mark for each time that this ran; the first time, die of SIGKILL."""
    with Path(count).open("a", encoding="ascii") as file:
        file.write("x")
    runs = Path(count).stat().st_size
    if runs == 1:
        kill_by(atoms)
    return {"runs": runs}


def grandchild(atoms: Atoms, pids: str) -> None:
    """Start ``sleep`` in a child of a child that left the session and ignores SIGTERM."""
    del atoms
    script = (
        "import os, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen(['sleep', '600'], start_new_session=True, env={})\n"
        "with open(sys.argv[1] + '.new', 'w') as file:\n"
        "    file.write(f'{os.getpid()} {child.pid}')\n"
        "os.rename(sys.argv[1] + '.new', sys.argv[1])\n"
        "time.sleep(600)\n"
    )
    arguments = [sys.executable, "-c", script, pids]
    subprocess.run(arguments, start_new_session=True, check=False)


def value(atoms: Atoms, value: Any = None) -> Any:
    """Give back the parameter alone."""
    del atoms
    return value


def mark(atoms: Atoms, path: str, number: int = 0, seconds: float = 0.0) -> dict[str, Any]:
    """Leave a line in a file for each time that this ran, then take some time."""
    del atoms
    with Path(path).open("a", encoding="ascii") as file:
        file.write(f"{number}\n")
    time.sleep(seconds)
    return {"number": number}


def structure(atoms: Atoms, other: Atoms | None = None) -> dict[str, Any]:
    """Give back structures, and tell how they looked here."""
    return {
        "atoms": atoms,
        "other": other,
        "seen": {
            "symbols": list(atoms.symbols),
            "positions": atoms.positions.tolist(),
            "pbc": atoms.pbc.tolist(),
            "tags": atoms.get_tags().tolist(),
            "magmoms": atoms.get_initial_magnetic_moments().tolist(),
            "charges": atoms.get_initial_charges().tolist(),
            "fixed": [index for fix in atoms.constraints for index in fix.get_indices().tolist()],
        },
    }


def large(atoms: Atoms, megabytes: int) -> dict[str, Any]:
    """Give back so many megabytes, once they are JSON: one half bytes, one half numbers."""
    del atoms
    import hashlib

    import numpy as np

    half = megabytes * 2**20 // 2
    # Four bytes of text carry three of data; a number between 1000 and 9999 and its comma are five.
    data = (hashlib.sha512(b"large").digest() * (half * 3 // 4 // 64 + 1))[: half * 3 // 4]
    array = np.arange(half // 5, dtype=np.int64) % 9000 + 1000
    digest = hashlib.sha256(data).hexdigest()
    return {"data": data, "array": array, "digest": digest, "sum": int(array.sum())}


def numbers(atoms: Atoms) -> dict[str, Any]:
    """Give back numpy's arrays and scalars."""
    del atoms
    import numpy as np

    return {
        "float": np.array([[0.1, -0.0], [1e-300, 1e300]]),
        "float32": np.array([0.1, 2.5], dtype=np.float32),
        "int": np.array([2**62, -1], dtype=np.int64),
        "uint8": np.arange(3, dtype=np.uint8),
        "bool": np.array([True, False]),
        "complex": np.array([1 + 2j, -0.5j]),
        "text": np.array(["Al", "\u00e9"]),
        "empty": np.zeros((0, 3)),
        "cube": np.arange(24).reshape(2, 3, 4),
        "scalar array": np.array(1.5),
        "not finite": np.array([np.nan, np.inf, -np.inf]),
        "scalars": [np.float64(0.1), np.int32(7), np.bool_(0), np.complex128(1j), np.str_("x")],
    }


def opaque(atoms: Atoms) -> dict[str, Any]:
    """Give back what cannot be written down."""
    del atoms
    return {"deep": [object()]}


def say_unicode(atoms: Atoms, text: str) -> dict[str, Any]:
    """Print a text."""
    del atoms
    sys.stdout.buffer.write(text.encode() + b"\n")
    sys.stdout.buffer.flush()
    return {}


class Mute(Exception):  # noqa: N818 - named for what it does
    """An exception that cannot be shown."""

    def __str__(self) -> str:
        raise ValueError("no words")


def raise_mute(atoms: Atoms) -> None:
    """Raise an exception that cannot be shown."""
    del atoms
    raise Mute


def interrupt(atoms: Atoms) -> None:
    """Raise what is no ``Exception``."""
    del atoms
    raise KeyboardInterrupt("as if by Ctrl-C")


def exit_by(atoms: Atoms, code: int) -> None:
    """Leave as a script does."""
    del atoms
    sys.exit(code)


def vanish(atoms: Atoms, code: int) -> None:
    """End the process at once, with nothing cleaned up."""
    del atoms
    print("about to go", flush=True)  # noqa: T201 - it goes to the job's log
    os._exit(code)


def exhaust(atoms: Atoms, megabytes: int = 300) -> None:
    """Ask for more memory than a limit leaves."""
    del atoms
    import resource

    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = used * resource.getpagesize() + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    hoard = []
    try:
        while True:
            hoard.append(bytearray(50 * 2**20))
    finally:
        # Whether a limit outlives its recipe is another question: see `limited`.
        resource.setrlimit(resource.RLIMIT_AS, before)


def limited(atoms: Atoms, path: str, files: int = 0) -> dict[str, Any]:
    """Lower the number of files that may be open, where it is given; wait; tell the number."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    wait_for(atoms, path)
    return {"files": soft}


def print_much(atoms: Atoms, lines: int) -> dict[str, Any]:
    """Print so many numbered lines of 1 kB; the last but one by a child, the last as an error."""
    del atoms
    for number in range(lines - 2):
        print(f"{number:08d} " + "x" * 1014)  # noqa: T201 - it goes to the job's log
    sys.stdout.flush()
    subprocess.run(["/bin/sh", "-c", "echo by a child"], check=True)
    print("the last line", file=sys.stderr)  # noqa: T201
    return {"lines": lines}


def fork_and_return(atoms: Atoms) -> dict[str, Any]:
    """Fork; the child comes back into the worker's code, before the parent does."""
    del atoms
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    return {"child": child == 0}


def abandon(atoms: Atoms, pids: str, path: str) -> dict[str, Any]:
    """Leave processes running: a plain child, one without a session, one that init inherits.

    It runs until a file is there, so that they can be looked at while they are alive.
    """
    plain = subprocess.Popen(["/bin/sleep", "600"])
    alone = subprocess.Popen(["/bin/sleep", "600"], start_new_session=True, env={})
    orphan = subprocess.run(
        ["/bin/sh", "-c", "trap '' TERM; sleep 600 >/dev/null 2>&1 & echo $!"],
        capture_output=True,
        text=True,
        check=True,
        start_new_session=True,
    )
    new = Path(f"{pids}.new")
    new.write_text(f"{plain.pid} {alone.pid} {orphan.stdout}", encoding="ascii")
    new.rename(pids)
    return wait_for(atoms, path)


def leave_thread(atoms: Atoms, path: str) -> dict[str, Any]:
    """Leave a thread that goes on writing to a file."""
    import threading

    del atoms

    def write() -> None:
        while True:
            with Path(path).open("a", encoding="ascii") as file:
                file.write("x")
            time.sleep(0.01)

    threading.Thread(target=write).start()
    while not Path(path).exists():
        time.sleep(0.01)
    return {}


def spoil(atoms: Atoms, path: str) -> dict[str, Any]:
    """Change what a process can change about itself, then run until a file is there."""
    import random

    os.environ["LEFT_BEHIND"] = "yes"
    os.environ["OMP_NUM_THREADS"] = "77"
    os.environ["PATH"] = "/left/behind"
    os.chdir("/")
    os.umask(0)
    sys.path.insert(0, "/left/behind")
    sys.argv[:] = ["left behind"]
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    random.seed(1)
    return wait_for(atoms, path)


def surroundings(atoms: Atoms, path: str | None = None) -> dict[str, Any]:
    """Tell what a recipe finds around itself; run until a file is there, if one is named."""
    from crystalmath.testing import snapshot

    if path is not None:
        wait_for(atoms, path)
    return {
        "cwd": str(Path.cwd()),
        "environment": dict(os.environ),
        "umask": snapshot.umask(),
        "path": sys.path[:],
        "arguments": len(sys.argv),  # one of them is a pid
        "signals": snapshot.signals(),
        "streams": snapshot.streams(),
        "limits": snapshot.limits(),
        "cores": sorted(os.sched_getaffinity(0)),
        "encodings": snapshot.encodings(),
    }


def import_missing(atoms: Atoms) -> None:
    """Import what is not there."""
    del atoms
    importlib.import_module("a_module_that_nobody_has")


#: Bound in this module, and no function.
unclear = 42
