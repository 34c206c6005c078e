"""Throw away the files of a job again and again, killed one operation later each time.

Started with a home, it writes how many moments there were. It forks, which is for a process without
threads: all that has some is done in children.
"""

import json
import os
import signal
import sys
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from crystalmath.jobs import removal
from crystalmath.quacc.store import JobStore
from server.written_home import VASP, Home


class KilledAt:
    """Kill this process before or after the operation of that number."""

    def __init__(self, number):
        self.left = number

    def step(self):
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1

    def around(self, function):
        def operation(*args, **kwargs):
            self.step()
            answer = function(*args, **kwargs)
            self.step()
            return answer

        return operation


def in_child(function, *args):
    """Call a function in a child; tell what it gave, and whether the child was killed."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            with os.fdopen(theirs, "w") as answer:
                json.dump(function(*args), answer)
            code = 0
        except BaseException:
            traceback.print_exc()
            raise
        finally:  # nothing of the child may come back into the parent
            os._exit(code)
    os.close(theirs)
    with os.fdopen(ours) as answer:
        text = answer.read()
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return None, True
    assert status == 0
    return json.loads(text), False


def make(root):
    """Make a job that has ended; give its id."""
    here = Home(root)
    job_id = here.make(VASP, ended_s=10)
    here.close()
    return job_id


def prune_and_die(root, number, asked):
    """Throw away, and be killed at an operation, if there are as many."""
    killed = KilledAt(number)
    for name in ("rename", "unlink", "rmdir", "mkdir"):
        setattr(os, name, killed.around(getattr(os, name)))
    JobStore.note_removed = killed.around(JobStore.note_removed)
    removal.shutil.rmtree = killed.around(removal.shutil.rmtree)
    here = Home(root)
    killed.left = number  # making the home is none of the moments
    answer = here.call("jobs.prune", **asked)
    assert answer["error"] is None, answer


def check(root, job_id, asked, whole):
    """See that the job is on record, what is said of its files is true, and all can be done."""
    here = Home(root)
    job = here.call("jobs.status", job_id=job_id)
    assert (job["status"], job["result"]["energy_ev"]) == ("completed", -1.5)
    there = (here.jobs / job_id).exists()
    assert there == (job["removed"] not in {"gone", "all"}), job["removed"]
    if there:
        assert here.call("jobs.result", job_id=job_id)["result"]["energy"] == -1.5
    if there and whole:
        assert len(here.files_of(job_id)) == len(VASP)
    here.call("jobs.prune", **asked)
    job = here.call("jobs.status", job_id=job_id)
    assert job["removed"] == ("all" if whole else "heavy"), job["removed"]
    left = here.jobs / ".removed"
    assert not left.exists() or list(left.iterdir()) == []
    usage = here.call("jobs.usage")
    assert usage["total"]["heavy_size"] == 0
    here.close()


def main(root):
    moments = 0
    for asked in ({"older_s": 0}, {"older_s": 0, "keep_results": True}):
        number, killed = 0, True
        while killed:
            job_id, _ = in_child(make, root)
            _, killed = in_child(prune_and_die, root, number, asked)
            in_child(check, root, job_id, asked, "keep_results" not in asked)
            number += 1
        moments += number
    sys.stdout.write(str(moments))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
