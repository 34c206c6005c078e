"""Recipes with batched functions that note each call, and misbehave as they are asked to."""

import contextlib
import fcntl
import os
import signal
import time
from pathlib import Path

from crystalmath.batch import batched

#: What a structure with a bad tag takes, in MB.
HOARDED = 4000


class OutOfMemoryError(RuntimeError):
    """As torch's."""


def note(path, *words):
    with Path(path).open("a") as file:
        file.write(" ".join(map(str, words)) + "\n")


def sum_job(atoms, notes, *, bad=(), how="raise", pause=0.0, each=0.0, factor=1.0, room=1000):
    """Return the sum of the positions' x; a structure with a bad tag fails in some way."""
    note(notes, "one", tag(atoms))
    return one(atoms, bad, how, factor)


def hoard(megabytes):
    """Take memory, and touch it."""
    return sum(b"x" * (2**20 * megabytes))


def tag(atoms):
    return int(atoms.get_tags()[0])


def one(atoms, bad, how, factor):
    if tag(atoms) in bad:
        if how == "hoard":
            hoard(HOARDED)
        if how == "hang":
            time.sleep(3600)
        if how == "kill":
            os.kill(os.getpid(), signal.SIGSEGV)
        raise ValueError(f"bad tag {tag(atoms)}")
    return {"results": {"energy": factor * float(atoms.positions[:, 0].sum())}, "tag": tag(atoms)}


@batched(sum_job, most=64, atoms=400)
def sum_many(structures, notes, *, bad=(), how="raise", pause=0.0, each=0.0, factor=1.0, room=1000):
    tags = [tag(atoms) for atoms in structures]
    note(notes, "many", *tags)
    print("computing", len(tags))
    if how == "yield":
        return yielded(structures, bad, factor, pause)
    time.sleep(pause + each * len(tags))
    if how == "memory" and len(tags) > room:
        raise OutOfMemoryError("CUDA out of memory")
    if how == "hoard":
        hoard(room * len(tags) + HOARDED * sum(tag in bad for tag in tags))
        bad = ()
    if how == "short":
        return [one(atoms, bad, how, factor) for atoms in structures[1:]]
    if how in {"raise", "kill", "hang"}:
        return [one(atoms, bad, how, factor) for atoms in structures]
    results = []
    for atoms in structures:
        if tag(atoms) in bad:
            results.append({"none": None, "return": ValueError(f"bad tag {tag(atoms)}")}[how])
        else:
            results.append(one(atoms, bad, how, factor))
    return results


def yielded(structures, bad, factor, pause):
    for atoms in structures:
        time.sleep(pause)
        yield one(atoms, bad, "raise", factor)


def alone_job(atoms, folder, seconds):
    """Take some time; note the end, and whether another attempt of the job ran meanwhile."""
    return alone_many([atoms], folder, seconds)[0]


@batched(alone_job, most=16)
def alone_many(structures, folder, seconds):
    with contextlib.ExitStack() as stack:
        files = [
            stack.enter_context((Path(folder) / str(tag(one))).open("a")) for one in structures
        ]
        for file in files:
            try:
                # The kernel drops it with this process, however that ends.
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.write("overlap\n")
        time.sleep(seconds)
        for file in files:
            file.write("end\n")
    return [{"value": 7 * tag(one)} for one in structures]
