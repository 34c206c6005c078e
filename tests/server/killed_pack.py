"""Pack, unpack and prune jobs again and again, killed one operation later each time.

Started with a home, it writes how many moments there were. It forks, which is for a process without
threads: all that has some is done in children.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from crystalmath.jobs import packs, removal
from crystalmath.quacc.store import JobStore
from server.killed_prune import KilledAt, in_child
from server.written_home import Home

FILES = {"s/OUTCAR.gz": 40, "s/CONTCAR": 9}


def make(root, count):
    """Make jobs that have ended; give their ids."""
    here = Home(root)
    job_ids = [here.make(FILES, ended_s=10) for _ in range(count)]
    here.close()
    return job_ids


def prepare(root, job_ids, method):
    """Pack the jobs that are to be unpacked or pruned, beside one that stays."""
    here = Home(root)
    if method != "jobs.pack":
        assert set(here.call("jobs.pack")["job_ids"]) >= set(job_ids)
    here.close()


def do_and_die(root, number, method, asked):
    """Call a method, and be killed at an operation, if there are as many."""
    killed = KilledAt(number)
    for name in ("rename", "replace", "unlink", "rmdir", "mkdir", "pwrite", "fsync", "fdatasync"):
        setattr(os, name, killed.around(getattr(os, name)))
    for name in ("add", "finish", "publish"):
        setattr(packs.Writer, name, killed.around(getattr(packs.Writer, name)))
    JobStore.note_removed = killed.around(JobStore.note_removed)
    removal.shutil.rmtree = killed.around(removal.shutil.rmtree)
    here = Home(root)
    killed.left = number  # making the home is none of the moments
    answer = here.call(method, **asked)
    assert answer["error"] is None, answer


def check(root, job_ids, method, asked):
    """See that each job is there once, as it was, and that all can be done."""
    here = Home(root)
    pruned = method == "jobs.prune"
    see(here, job_ids, pruned=pruned)
    answer = here.call(method, **asked)
    assert answer["left"] == [] or pruned, answer
    for job_id in job_ids:
        is_there = (here.jobs / job_id).exists()
        assert is_there == (method == "jobs.unpack"), method
        assert here.call("jobs.status", job_id=job_id)["removed"] == ("all" if pruned else None)
    see(here, job_ids, pruned=pruned)
    here.call("jobs.pack")  # it settles what was left
    folder = here.jobs / ".packs"
    names = {path.suffix for path in folder.iterdir()} - {""}
    assert names <= {".pack", ".index"}, list(folder.iterdir())
    assert not list((here.jobs / ".removed").iterdir())
    inside = [one for members in packs.packs_of(str(here.jobs)).packs().values() for one in members]
    assert len(inside) == len(set(inside)), "a job is in two packs"
    assert set(inside).isdisjoint(path.name for path in here.jobs.iterdir())
    assert pruned == set(inside).isdisjoint(job_ids)
    see(here, job_ids, pruned=pruned)
    here.call("jobs.prune", older_s=0)  # else each pack would be written again with those before
    assert here.call("jobs.usage")["total"]["packed"] == 0
    here.close()


def see(here, job_ids, *, pruned):
    listed = [job["job_id"] for job in here.call("jobs.list", limit=1000)["jobs"]]
    assert len(listed) == len(set(listed))
    for job_id in job_ids:
        job = here.call("jobs.status", job_id=job_id)
        assert (job["status"], job["result"]["energy_ev"]) == ("completed", -1.5)
        if pruned and job["removed"] is not None:
            continue
        assert job["removed"] is None
        assert here.call("jobs.result", job_id=job_id)["result"]["energy"] == -1.5


def main(root):
    moments = 0
    for method in ("jobs.pack", "jobs.unpack", "jobs.prune"):
        number, killed = 0, True
        while killed:
            job_ids, _ = in_child(make, root, 2)
            in_child(prepare, root, job_ids, method)
            asked = {"job_ids": job_ids}
            _, killed = in_child(do_and_die, root, number, method, asked)
            in_child(check, root, job_ids, method, asked)
            number += 1
        moments += number
    sys.stdout.write(str(moments))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
