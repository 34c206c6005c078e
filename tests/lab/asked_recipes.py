"""Recipes that misbehave when they are asked which files they read."""

import errno
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from quacc import JobFailure, change_settings, get_settings
from quacc.calculators.vasp import Vasp
from quacc.runners.ase import Runner


def calculate(atoms, **parameters):
    return Runner(atoms, Vasp(atoms, preset="DefaultSetGGA", **parameters)).run_calc()


def who(atoms, path, **parameters):
    """Tell which process was asked: its pid, its supervisor's, and their directory."""
    with open(path, "a") as file:
        file.write(f"{os.getpid()} {os.getppid()} {os.getcwd()}\n")
    return calculate(atoms, **parameters)


def hang(atoms, path=None):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if path:
        who(atoms, path)
    time.sleep(600)


def compute(atoms, seconds):
    """Cut slabs, say, on one core alone."""
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    begun = time.thread_time()
    while time.thread_time() - begun < seconds:
        pass
    return calculate(atoms)


def wait_for(atoms, path):
    """Be asked until a file is there."""
    while not os.path.exists(path):
        time.sleep(0.02)
    return calculate(atoms)


def kill_itself(atoms):
    os.kill(os.getpid(), signal.SIGKILL)


def end_in_real_time(atoms):
    os.kill(os.getpid(), 40)
    time.sleep(600)


def fill_disk(atoms):
    """Have no file written, as on a full disk."""

    class Full(Vasp):
        def write_kpoints(self, **_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return Runner(atoms, Full(atoms, preset="DefaultSetGGA")).run_calc()


def shout(atoms):
    raise ValueError("x" * 50_000_000)


def look(atoms, path):
    """Ask whether a file is there, and do not open it."""
    return calculate(atoms, setups={"Al": "_sv" if os.path.exists(path) else ""})


def kill_supervisor(atoms):
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(600)


def say_and_leave(atoms):
    print("no licence\x1b[2J for this machine")
    sys.stdout.flush()
    os._exit(3)


def system_exit(atoms):
    sys.exit(3)


def close_everything(atoms):
    os.closerange(3, 1024)


def talk(atoms):
    for _ in range(10):
        print("x" * 2**20)
    return calculate(atoms)


def fork(atoms, pids):
    """Leave a child, and a grandchild that nobody knows of and that ignores SIGTERM."""
    child = subprocess.Popen(["sleep", "600"])
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    script = f"{sys.executable} -c '{code}' >/dev/null & echo $! {child.pid} >{pids}"
    subprocess.run(["sh", "-c", script], start_new_session=True, env={}, check=True)
    return calculate(atoms)


def come_back_twice(atoms):
    os.fork()
    return calculate(atoms)


def leave_thread(atoms):
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    return calculate(atoms)


def leave_memory(atoms):
    sys.modules[__name__].hoard = bytearray(700 * 2**20)
    return calculate(atoms)


def leave_settings(atoms, path):
    from quacc import _internally_set_settings

    _internally_set_settings({"VASP_PP_PATH": path})
    os.environ["VASP_PP_PATH"] = os.environ["LEFT_BEHIND"] = path
    os.chdir("/tmp")
    return calculate(atoms)


def leave_files(atoms, path):
    """Write into all places that a recipe takes for its own; tell which."""
    Path("POTCAR").write_text("mine")
    Path("closed/inner").mkdir(parents=True)
    Path("closed/inner/file").write_text("mine")
    os.chmod("closed", 0)
    with change_settings({"GZIP_FILES": False}):
        places = [os.getcwd(), tempfile.mkdtemp(), str(get_settings().RESULTS_DIR.resolve())]
    Path(path).write_text("\n".join(places))
    return calculate(atoms)


def try_others(atoms, setups):
    """Go on to the next setup where one is not there."""
    for suffix in setups:
        try:
            return calculate(atoms, setups={"Al": suffix})
        except JobFailure:
            continue
    raise RuntimeError("no luck")
