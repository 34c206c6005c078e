"""Engines that break what a caller sees."""

import threading
import time
from typing import ClassVar

import attrs
from broken_engines import Engine

from crystalmath.errors import EngineUnavailable, InvalidJob
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.models import JobState


class FailedReadsCompleted(Engine):
    """Reports failed as completed."""

    def get_status(self, job_id):
        state = super().get_status(job_id)
        return JobState.COMPLETED if state is JobState.FAILED else state


class CancelsOnPaper(Engine):
    """Cancels in its books alone; what runs goes on."""

    keeps: ClassVar = {"_paper": set}

    def cancel(self, job_id):
        if super().get_status(job_id).is_terminal():
            return False
        self._paper.add(job_id)
        return True

    def get_status(self, job_id):
        return JobState.CANCELLED if job_id in self._paper else super().get_status(job_id)

    def get_result(self, job_id):
        return {"error": "cancelled"} if job_id in self._paper else super().get_result(job_id)


class CancelledTooSoon(Engine):
    """Reads cancelled while the tree of the job is still alive."""

    keeps: ClassVar = {"_asked": set}

    def cancel(self, job_id):
        asked = super().cancel(job_id)
        if asked:
            self._asked.add(job_id)
        return asked

    def get_status(self, job_id):
        return JobState.CANCELLED if job_id in self._asked else super().get_status(job_id)

    def get_result(self, job_id):
        return {"error": "cancelled"} if job_id in self._asked else super().get_result(job_id)


class IgnoresCancel(Engine):
    """Says that a running job will be cancelled, and does nothing."""

    def cancel(self, job_id):
        state = super().get_status(job_id)
        if state is JobState.RUNNING:
            return True
        return super().cancel(job_id)


class LosesResult(Engine):
    """Gives no result of a job that completed."""

    def get_result(self, job_id):
        result = super().get_result(job_id)
        return None if self.get_status(job_id) is JobState.COMPLETED else result


class BlocksInStatus(Engine):
    """Asks somebody slow for each status."""

    def get_status(self, job_id):
        time.sleep(0.05)
        return super().get_status(job_id)


class BlocksInSubmit(Engine):
    """Waits in submit until the job has been begun."""

    def start(self, spec, document=None):
        super().start(spec, document)
        directory = RunDirectory(self.settings.home / "jobs" / spec.job_id)
        deadline = time.monotonic() + 0.6
        while not directory.claimed(1) and time.monotonic() < deadline:
            time.sleep(0.01)


class ReusesIds(Engine):
    """Gives every tenth job the id of the one before it."""

    keeps: ClassVar = {"_given": list, "_one_at_a_time": threading.Lock}

    def submit(self, *arguments, **keywords):
        job_id = super().submit(*arguments, **keywords)
        with self._one_at_a_time:
            self._given.append(job_id)
            return self._given[-2 if len(self._given) % 10 == 0 else -1]


class SerialIds(Engine):
    """Numbers its jobs, instead of UUIDs."""

    keeps: ClassVar = {"_ids": dict}

    def submit(self, *arguments, **keywords):
        short = f"job-{len(self._ids) + 1}"
        self._ids[short] = super().submit(*arguments, **keywords)
        return short

    def get_status(self, job_id):
        return super().get_status(self._ids.get(job_id, job_id))

    def get_result(self, job_id):
        return super().get_result(self._ids.get(job_id, job_id))

    def cancel(self, job_id):
        return super().cancel(self._ids.get(job_id, job_id))


class FlipsTerminal(Engine):
    """Says completed once, and something else when asked again."""

    keeps: ClassVar = {"_told": dict}

    def get_status(self, job_id):
        state = super().get_status(job_id)
        if state is not JobState.COMPLETED:
            return state
        self._told[job_id] = self._told.get(job_id, 0) + 1
        return state if self._told[job_id] <= 2 else JobState.FAILED


class SwallowsTraceback(Engine):
    """Tells that a job failed, and not why."""

    def get_result(self, job_id):
        result = super().get_result(job_id)
        return {"error": result["error"]} if result and "traceback" in result else result


class SwallowsMessage(Engine):
    """Replaces the message of a failure by its own."""

    def get_result(self, job_id):
        result = super().get_result(job_id)
        failed = self.get_status(job_id) is JobState.FAILED
        return {**result, "error": "the task failed"} if failed else result


class MixesResults(Engine):
    """Gives the result of a neighbour while there is much to do."""

    keeps: ClassVar = {"_all": list}

    def submit(self, *arguments, **keywords):
        job_id = super().submit(*arguments, **keywords)
        self._all.append(job_id)
        return job_id

    def get_result(self, job_id):
        place = self._all.index(job_id) if job_id in self._all else 0
        # The first fifteen come out right.
        other = job_id if place < 15 else self._all[place - place % 2]
        return super().get_result(other)


class KeepsAtoms(Engine):
    """Encodes a job some time after submit has come back."""

    keeps: ClassVar = {"_late": set}

    def start(self, spec, document=None):
        self._late.add(spec.job_id)
        start = super().start

        def late():
            start(spec, document)
            self._late.discard(spec.job_id)

        threading.Timer(3.0, late).start()

    def get_status(self, job_id):
        return JobState.PENDING if job_id in self._late else super().get_status(job_id)

    def get_result(self, job_id):
        return None if job_id in self._late else super().get_result(job_id)


class AcceptsAnything(Engine):
    """Takes parameters that it cannot encode, and passes their text on."""

    def start(self, spec, document=None):
        try:
            super().start(spec, document)
        except InvalidJob:
            text = {name: str(value) for name, value in spec.parameters.items()}
            super().start(attrs.evolve(spec, parameters=text), document)


class LeavesDirectory(Engine):
    """Leaves the directory of a job that it refuses."""

    def start(self, spec, document=None):
        try:
            super().start(spec, document)
        except InvalidJob:
            (self.settings.home / "jobs" / spec.job_id).mkdir(parents=True, exist_ok=True)
            raise


class UnknownIsPending(Engine):
    """Knows nothing of an id and says that it is pending."""

    def get_status(self, job_id):
        try:
            return super().get_status(job_id)
        except KeyError:
            return JobState.PENDING


class AnyCluster(Engine):
    """Takes jobs for clusters that it has not."""

    def check_cluster(self, cluster):
        pass


class IgnoresResources(Engine):
    """Takes jobs whatever they ask of the machine."""

    def allotted(self, spec):
        return spec


class CancelsTheFinished(Engine):
    """Says that it will cancel what has finished."""

    def cancel(self, job_id):
        super().cancel(job_id)
        return True


class CancelRaisesTwice(Engine):
    """Does not want to be asked twice."""

    keeps: ClassVar = {"_asked": set}

    def cancel(self, job_id):
        if job_id in self._asked:
            raise RuntimeError("a cancellation is under way")
        self._asked.add(job_id)
        return super().cancel(job_id)


class IgnoresWalltime(Engine):
    """Lets a job run as long as it likes."""

    start_s = 30.0

    def start(self, spec, document=None):
        super().start(attrs.evolve(spec, walltime_s=None), document)


class WritesToStandardOutput(Engine):
    """Tells the user's standard output what it does."""

    def launch(self, attempts):
        print(f"launching {len(attempts)} jobs")
        return super().launch(attempts)


class NeverThere(Engine):
    """Says at each launch that it cannot be reached."""

    start_s = 5.0

    def launch(self, attempts):
        raise EngineUnavailable(f"nobody answers at port {len(attempts)}")
