"""Recipes that misbehave in every way a recipe can; admitted through CRYSTALMATH_RECIPES."""

import ctypes
import fcntl
import functools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from ase import Atoms


def value(atoms, number=1):
    return number


def odd_texts(atoms, *, fails=False):
    """Tell, or raise, what is no UTF-8, as a path may be."""
    if fails:
        raise ValueError("no \0 \udcff")
    return {"results": {"energy": 1.0}, "dir_name": "/x\udcff", "formula_pretty": "Cu\0"}


def without_structure(files: "list[str] | None" = None, *, number=1):
    """Take no structure."""
    return {"files": files, "number": number}


def report(atoms, **parameters):
    """Tell what reached the recipe."""
    return {
        "symbols": list(atoms.symbols),
        "pbc": atoms.pbc.tolist(),
        "cell": atoms.cell.lengths().tolist(),
        "tags": atoms.get_tags().tolist(),
        "magmoms": atoms.get_initial_magnetic_moments().tolist(),
        "charges": atoms.get_initial_charges().tolist(),
        "fixed": [index for fix in atoms.constraints for index in fix.get_indices().tolist()],
        "parameters": parameters,
    }


def shift(atoms, *, steps=3, moments=None, shape="one"):
    """Move the first atom by 0.1 Å in each step, and tell of it as quacc's recipes do."""
    frames = []
    for _ in range(steps):
        frames.append(atoms.copy())
        atoms.positions[0, 0] += 0.1
    if moments is not None:
        atoms.set_initial_magnetic_moments(moments)
    one = {"atoms": atoms, "results": {"energy": -1.0}, "input_atoms": {"atoms": frames[0]}}
    other = {"atoms": frames[0], "results": {"energy": 0.0}}
    return {
        "one": {**one, "trajectory": [*frames, atoms]},
        "flow": {"relax": other, "static": one},
        "slabs": {"bulk": other, "slabs": [other, one]},
        "bare": {"atoms": atoms},
        "numbers": {"atoms": [1, None]},
        "none": {"results": {"energy": -1.0}, "note": '"atoms": {}'},
    }[shape]


def relax(atoms):
    """Relax with ASE's EMT in a folder of its own, as quacc's recipe does."""
    from ase.calculators.emt import EMT
    from ase.optimize import BFGS

    folder = Path("quacc-1").absolute()
    folder.mkdir()
    atoms.calc = EMT()
    with BFGS(atoms, logfile=str(folder / "opt.log")) as dynamics:
        dynamics.run(fmax=0.01)
    found = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
    atoms.calc = None
    return {"atoms": atoms, "results": found, "dir_name": str(folder)}


def switch(atoms, *, relax_cell: bool = False, note: "in words" = None, **more):  # noqa: F722 - words
    return relax_cell


def leave_files(atoms, texts, end="return"):
    """Write files, by name and text, and return, fail, or sleep once they are there."""
    for name, text in texts.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
    Path("written").touch()
    if end == "sleep":
        time.sleep(600)
    if end == "fail":
        raise RuntimeError("no luck")
    return {"dir_name": os.getcwd()}


def wait_for(atoms, path):
    """Run until a file is there."""
    while not Path(path).exists():
        time.sleep(0.02)
    return {"saw": path}


def write_and_wait(atoms, files, path):
    """Write files as a program would, and run until a file is there."""
    for name, text in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text, encoding="utf-8")
    return wait_for(atoms, path)


def fill_disk(atoms, path, gate=None):
    """Leave no room on the disk, and return a large result at once or once a file is there."""
    with Path(path).open("wb", buffering=0) as file:
        size = 2**20
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2
    if gate is not None:
        wait_for(atoms, gate)
    return {"sum": "x" * 10_000}


def talk(atoms, path, lines=3):
    """Print lines, and one more once a file is there."""
    for number in range(lines):
        print("line", number, flush=True)
    wait_for(atoms, path)
    print("the last line", flush=True)
    return {}


def chatter(atoms, count):
    for number in range(count):
        print("line", number)
    return {}


def where(atoms):
    return {
        "cwd": os.getcwd(),
        "pid": os.getpid(),
        "umask": os.umask(0o022),
        "environment": dict(os.environ),
        "symbols": list(atoms.symbols),
    }


def copied(atoms, path):
    """Leave a copy of a file."""
    Path(Path(path).name).write_bytes(Path(path).read_bytes())
    return {}


def touch(atoms, path):
    Path(path).write_text("ran")
    return {}


def mark(atoms, path):
    """Leave a mark for each time that this ran."""
    with open(path, "a") as file:
        file.write("x")
    return {}


def count_and_sleep(atoms, path):
    """Sleep the first time, and end at once the second."""
    mark(atoms, path)
    if Path(path).read_text() == "x":
        time.sleep(600)
    return {}


def run_command(atoms, command):
    """Run a program, and give what it has written."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return {"lines": sorted(done.stdout.split())}


def long_sleep(atoms, seconds=600.0):
    time.sleep(seconds)
    return {}


def sleeping_grandchild(atoms, pids):
    """Start `sleep 600` in a child of a child that has left the session and ignores SIGTERM."""
    script = (
        "import os, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen(['sleep', '600'], start_new_session=True, env={})\n"
        "with open(sys.argv[1], 'w') as file:\n"
        "    file.write(f'{os.getpid()} {child.pid}')\n"
        "time.sleep(600)\n"
    )
    subprocess.run([sys.executable, "-c", script, pids], start_new_session=True, check=False)
    return {}


def leave_child(atoms):
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    return {"pid": os.getpid(), "child": child.pid}


def leave_clone(atoms):
    """Leave a child of whose end nobody would be signalled."""
    clone = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
    if (child := ctypes.CDLL(None).syscall(clone, 0, 0, 0, 0, 0)) == 0:
        time.sleep(600)
        os._exit(0)
    return {"pid": os.getpid(), "child": child}


def leave_thread(atoms):
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    return {"pid": os.getpid()}


def leave_thread_and_fail(atoms):
    leave_thread(atoms)
    raise ValueError("it is left with a thread")


@functools.cache
def loaded(name):
    return bytearray(600 * 1024**2)


def load(atoms, name="small"):
    """Load a potential once, as quacc's `pick_calculator` does."""
    loaded(name)
    return {"pid": os.getpid()}


def leave_memory(atoms):
    module = sys.modules[__name__]
    module.memory = [*getattr(module, "memory", ()), bytearray(300 * 1024**2)]
    return {"pid": os.getpid()}


def leave_path(atoms):
    sys.path = tuple(sys.path)
    return {"pid": os.getpid()}


def leave_environment(atoms):
    os.environ["LEFT_BEHIND"] = "yes"
    os.chdir("/tmp")
    return {"pid": os.getpid()}


def leave_settings(atoms):
    from quacc import _internally_set_settings

    _internally_set_settings({"GZIP_FILES": False})
    return {"pid": os.getpid()}


def gzip_files(atoms):
    from quacc import get_settings

    return {"pid": os.getpid(), "gzip": get_settings().GZIP_FILES}


def kill_supervisor(atoms, count):
    """Kill the supervisor the first time; tell how often this ran."""
    with open(count, "a") as file:
        file.write("x")
    if Path(count).read_text() == "x":
        subprocess.Popen(["sleep", "600"], start_new_session=True)
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    return {"runs": len(Path(count).read_text())}


def fork_and_kill_supervisor(atoms, pid):
    """Fork a child that goes on, and kill the supervisor; the second time, tell of that child."""
    if Path(pid).exists():
        from crystalmath import processes

        return {"child is alive": processes.start_time(int(Path(pid).read_text())) is not None}
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
        os._exit(0)
    Path(pid).write_text(str(child))
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
    return None


def talk_and_die(atoms, lines):
    for number in range(lines):
        print(f"line {number}", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def killed_once_prepared(atoms, path, whole):
    """Be killed between the file with the outcome and its publication; note that it was run."""
    from crystalmath.jobs.rundir import RunDirectory

    with open(path, "a") as file:
        file.write("x")
    prepare = RunDirectory.prepare_outcome

    def prepare_and_die(*arguments):
        prepared = prepare(*arguments)
        if not whole:
            os.truncate(prepared, os.path.getsize(prepared) - 1)
        os.kill(os.getpid(), signal.SIGKILL)

    RunDirectory.prepare_outcome = prepare_and_die
    return {"value": 42}


def raise_it(atoms, module, name, message):
    """Raise an exception of a module, of one of this name that nobody else has, or leave."""
    import importlib

    kind = getattr(importlib.import_module(module), name, None)
    if name == "SystemExit":
        kind = SystemExit
    kind = kind or type(name, (Exception,), {})
    raise kind(message) if message else kind


def fail(atoms, message):
    raise RuntimeError(message)


def wait_and_fail(atoms, path, message):
    """Run until a file is there, and fail."""
    wait_for(atoms, path)
    fail(atoms, message)


#: Each generation writes a mark, starts the next, and is gone; for a minute.
FORKS_AND_EXITS = """
import os, sys, time
end = time.monotonic() + 60
while time.monotonic() < end:
    os.write(int(sys.argv[1]), b"x")
    if os.fork():
        os._exit(0)
"""
#: A thread writes marks; the main thread has ended, and the process table says `Z`.
HAS_NO_MAIN_THREAD = """
import ctypes, os, sys, threading, time
end = time.monotonic() + 60
def write():
    while time.monotonic() < end:
        os.write(int(sys.argv[1]), b"x")
        time.sleep(0.001)
threading.Thread(target=write).start()
ctypes.CDLL(None).pthread_exit(None)
"""


def leave_hidden(atoms, script, marks, go=None):
    """Leave a process that the process table hides, and end, or wait for a file."""
    start_hidden(script, marks)
    return wait_for(atoms, go) if go else {"pid": os.getpid()}


def start_hidden(script, marks):
    with open(marks, "ab") as file:
        scripts = {"FORKS_AND_EXITS": FORKS_AND_EXITS, "HAS_NO_MAIN_THREAD": HAS_NO_MAIN_THREAD}
        command = [sys.executable, "-c", scripts[script], str(file.fileno())]
        subprocess.Popen(command, pass_fds=[file.fileno()], start_new_session=True)
    while Path(marks).stat().st_size < 100:
        time.sleep(0.01)


def hoard(atoms, megabytes):
    """Take more memory than there is, and touch it."""
    return {"sum": sum(bytearray(b"x" * 2**20 * megabytes))}


FACTOR = 1.0


def libraries(atoms):
    """Tell what a job finds in the libraries."""
    import decimal
    import warnings

    import ase.units
    import numpy as np
    from ase.calculators import emt

    return {
        "pid": os.getpid(),
        "numpy": np.geterr(),
        "units": ase.units.kB,
        "table": list(emt.parameters["Al"]),
        "class": emt.EMT.default_parameters,
        "warnings": len(warnings.filters),
        "norm": float(np.linalg.norm([3.0, 4.0])),
        "own": FACTOR,
        "decimal": decimal.getcontext().prec,
        "recursion": sys.getrecursionlimit(),
    }


def change(atoms, what):
    """Change something in the libraries."""
    import decimal
    import warnings

    import ase.units
    import numpy as np
    from ase.calculators import emt

    match what:
        case "numpy":
            np.seterr(all="raise")
        case "units":
            ase.units.kB = 1.0
        case "table":
            emt.parameters["Al"] = (0.0,) * 7
        case "class":
            emt.EMT.default_parameters = {"asap_cutoff": True}
        case "warnings":
            warnings.simplefilter("error")
        case "norm":
            np.linalg.norm = lambda _: 0.0
        case "own":
            sys.modules[__name__].FACTOR = 2.0
        case "decimal":
            decimal.getcontext().prec = 3
        case "recursion":
            sys.setrecursionlimit(5000)
    return libraries(atoms)


def draw(atoms, seed=None):
    """Draw a random number from each generator that a process has one of."""
    import random

    import numpy as np

    if seed is not None:
        random.seed(seed)
        np.random.seed(seed)
    return {"pid": os.getpid(), "python": random.random(), "numpy": np.random.random()}


def torch_default(atoms, name=None):
    import torch

    if name:
        torch.set_default_dtype(getattr(torch, name))
        torch.manual_seed(1)
    return {"type": str(torch.get_default_dtype()), "drawn": float(torch.rand(1))}


def alone(atoms, path, seconds):
    """Take some time; note the end, and whether another attempt of the job ran meanwhile."""
    with open(path, "a") as file:
        try:
            # The kernel drops it with this process, however that ends.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.write("overlap\n")
        time.sleep(seconds)
        file.write("end\n")
    return {}


def tidy_up(atoms, path, seconds):
    """Run a program that takes some time to end when it is asked to, and leaves a file then."""
    code = (
        "import pathlib, signal, sys, time\n"
        "def end(*_):\n"
        f"    time.sleep({seconds})\n"
        "    pathlib.Path(sys.argv[1]).write_text('tidy')\n"
        "    sys.exit()\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "pathlib.Path(sys.argv[1]).touch()\n"
        "time.sleep(600)\n"
    )
    subprocess.run([sys.executable, "-c", code, path], check=True)


def with_ranks(atoms, ranks=1):
    """Have a parameter of the name of a resource."""
    return {"ranks": ranks}


def numbers(atoms):
    """Return numpy's arrays and scalars."""
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


def grid(atoms):
    """Return keys and values that JSON has no form for."""
    import numpy as np

    return {
        "atoms": atoms,
        "results": {1: {"q": (0.0, 0.5)}, 2: {"q": (0.5, 0.5)}},
        "forces": np.arange(6.0).reshape(2, 3),
        "name.with.dots": [{"a": 1}],
        "like a reference": [{"$job": "x", "more": {"$job": "y"}}],
    }


def echo(atoms=None, **parameters):
    """Return what came, as Python writes it."""
    return {"text": repr(parameters)}


def tell(atoms, **result):
    """Return what came."""
    return result


def opaque(atoms):
    """Return what cannot be written down, and a number."""
    return {"deep": [object()], "number": 1}


def say(atoms, text):
    """Print a text."""
    sys.stdout.buffer.write(text.encode() + b"\n")
    sys.stdout.buffer.flush()
    return {}


class MuteError(Exception):
    """An exception that cannot be shown."""

    def __str__(self):
        raise ValueError("no words")


def raise_mute(atoms):
    """Raise an exception that cannot be shown."""
    raise MuteError


def interrupt(atoms):
    """Raise what is no ``Exception``."""
    raise KeyboardInterrupt("as if by Ctrl-C")


def exit_by(atoms, code):
    """Leave as a script does."""
    sys.exit(code)


def vanish(atoms, code):
    """End the process at once, with nothing cleaned up."""
    print("about to go", flush=True)
    os._exit(code)


def exhaust(atoms, megabytes=300):
    """Ask for more memory than a limit leaves."""
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
        resource.setrlimit(resource.RLIMIT_AS, before)


def lower_limit(atoms, path, files=99):
    """Lower the number of files that may be open, then run until a file is there."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    return wait_for(atoms, path)


def print_much(atoms, lines):
    """Print so many numbered lines of 1 kB; the last but one by a child, the last as an error."""
    for number in range(lines - 2):
        print(f"{number:08d} " + "x" * 1014)
    sys.stdout.flush()
    subprocess.run(["/bin/sh", "-c", "echo by a child"], check=True)
    print("the last line", file=sys.stderr)
    return {"lines": lines}


def fork_and_return(atoms):
    """Fork; the child comes back into the worker's code, before the parent does."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    return {"child": child == 0}


def abandon(atoms, pids, path):
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


def leave_writing(atoms, path):
    """Leave a thread that goes on writing to a file."""

    def write():
        while True:
            with Path(path).open("a", encoding="ascii") as file:
                file.write("x")
            time.sleep(0.01)

    threading.Thread(target=write).start()
    while not Path(path).exists():
        time.sleep(0.01)
    return {}


def spoil(atoms, path):
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


def import_missing(atoms):
    """Import what is not there."""
    import a_module_that_nobody_has

    return a_module_that_nobody_has


def all_of(cells: list[Atoms], factor: float = 1.0):
    """Take several structures, as quacc's recipes of torchsim do, and return all of them."""
    for number, atoms in enumerate(cells):
        atoms.set_cell(atoms.cell * factor, scale_atoms=True)
        atoms.info["number"] = number
    return {
        "atoms": cells,
        "output": {"energy": [-1.0 * len(atoms) for atoms in cells], "forces": None},
        "dir_name": None,
    }


def wander(atoms, frames):
    """Write frames in which atoms move and the cell grows, with energies, forces and moments."""
    import numpy as np
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io.trajectory import Trajectory

    places, random = atoms.positions.copy(), np.random.default_rng(0)
    with Trajectory("opt.traj", "w") as file:
        for number in range(frames):
            atoms.set_cell(atoms.cell * 1.001, scale_atoms=True)
            atoms.positions += random.normal(scale=0.02, size=places.shape)
            values = {
                "energy": -1.0 - number,
                "forces": random.normal(size=places.shape),
                "magmoms": random.normal(size=len(atoms)),
            }
            atoms.calc = SinglePointCalculator(atoms, **values)
            file.write(atoms)
    atoms.calc = None
    return {"atoms": atoms}
