"""A queue of this host that takes sbatch, squeue and scancel at their word: a small batch system.

Scripts run a few at a time, in the order in which they came. When a job is over, at its time limit
or after a cancel, nothing of it is alive: what Slurm does with control groups, one child subreaper
for each job does here. Started as ``small_slurm.py SPOOL serve SLOTS``, or by the commands that
:func:`install` writes. A job is a directory, and its state is where that lies.
"""

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path

STATES = ("pending", "running", "over")
KNOWN = {"parsable", "no-requeue", "job-name", "chdir", "output", "time", "partition", "account"}
KNOWN |= {"nodes", "ntasks", "ntasks-per-node", "cpus-per-task", "mem"}


def install(spool, folder):
    """Make an empty queue, and write its commands into a folder that goes on PATH."""
    for state in STATES:
        (spool / state).mkdir(parents=True)
    folder.mkdir()
    for name in ("sbatch", "squeue", "scancel"):
        command = f'exec "{sys.executable}" -S -E "{__file__}" "{spool}" {name} "$@"'
        (folder / name).write_text(f"#!/bin/sh\n{command}\n")
        (folder / name).chmod(0o755)


def sbatch(spool, *arguments):
    options = dict(argument.removeprefix("--").partition("=")[::2] for argument in arguments)
    if unknown := options.keys() - KNOWN:
        sys.exit(f"sbatch: unrecognized option '--{min(unknown)}'")
    if options.get("partition", "main") != "main":
        sys.exit("sbatch: error: invalid partition specified: " + options["partition"])
    with (spool / "lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        taken = [int(job.name) for state in STATES for job in (spool / state).iterdir()]
        number = str(max(taken, default=0) + 1)
        new = spool / f"new-{os.getpid()}"
        new.mkdir()
        (new / "job").write_text(json.dumps({**options, "environment": dict(os.environ)}))
        (new / "script").write_text(sys.stdin.read())
        (new / "script").chmod(0o700)
        new.rename(spool / "pending" / number)
    print(number)


def squeue(spool, *arguments):
    assert arguments == ("--noheader", "--me", "--format=%i|%T|%r|%j"), arguments
    found = {}
    # One that begins meanwhile is seen twice, and not missed.
    for state, reason in (("pending", "Resources"), ("running", "None")):
        for number in _numbers(spool / state):
            job = _options(spool, number)
            if job is not None:
                found[number] = f"{number}|{state.upper()}|{reason}|{job['job-name']}"
    for line in found.values():
        print(line)


def scancel(spool, *numbers):
    for number in numbers:
        try:
            (spool / "pending" / number).rename(spool / "over" / number)
        except FileNotFoundError:
            with contextlib.suppress(FileNotFoundError):  # it is over
                (spool / "running" / number / "cancel").touch()


def serve(spool, slots):
    print("ready", flush=True)
    while os.getppid() != 1 and not (spool / "stop").exists():
        waiting = _numbers(spool / "pending")
        if waiting and len(_numbers(spool / "running")) < int(slots):
            _start(spool, waiting[0])
        else:
            time.sleep(0.02)
        _reap()
    scancel(spool, *_numbers(spool / "running"))
    while _reap():
        time.sleep(0.02)


def _start(spool, number):
    place = spool / "running" / number
    try:
        (spool / "pending" / number).rename(place)
    except FileNotFoundError:
        return  # cancelled just now
    if os.fork() == 0:
        try:
            _run(place, _options(spool, number))
        finally:
            place.rename(spool / "over" / number)
            os._exit(0)


def _run(place, job):
    from crystalmath import processes
    from crystalmath.worker import become_subreaper

    os.setsid()
    become_subreaper()
    with open(job["output"], "w") as output:
        script = subprocess.Popen(
            [place / "script"],
            cwd=job["chdir"],
            env={**job["environment"], "SLURM_JOB_ID": place.name},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    end = time.monotonic() + 60 * int(job.get("time", 100000))
    while script.poll() is None and time.monotonic() < end and not (place / "cancel").exists():
        time.sleep(0.02)
    me = os.getpid()
    processes.end_processes(lambda: processes.descendants(me), grace_s=0.1, reap=True)


def _reap():
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _numbers(folder):
    return sorted((job.name for job in folder.iterdir()), key=int)


def _options(spool, number):
    for state in STATES:
        try:
            return json.loads((spool / state / number / "job").read_text())
        except FileNotFoundError:
            continue  # it has just gone on to the next
    return None


if __name__ == "__main__":
    _, folder, name, *given = sys.argv
    globals()[name](Path(folder), *given)
