"""PSI/J's batch executors, which render scripts, submit and cancel, but do not poll.

PSI/J's own polling thread takes a reason with a blank in it for the failure of all jobs, and has
no time limit. Core asks the batch systems instead (`batch_queues`).
"""

from __future__ import annotations

import io
import re
from typing import IO, TYPE_CHECKING, Any, ClassVar

from psij.executors.batch.batch_scheduler_executor import BatchSchedulerExecutorConfig
from psij.executors.batch.lsf import LsfExecutorConfig, LsfJobExecutor
from psij.executors.batch.pbs import PBSExecutorConfig, PBSJobExecutor
from psij.executors.batch.slurm import SlurmExecutorConfig, SlurmJobExecutor

from crystalmath.engines import schedulers
from crystalmath.models import Resources
from crystalmath_engine_psij.batch_queues import flux_id
from crystalmath_engine_psij.directives import COMMANDS, SIGNS, directives, mended, with_end
from crystalmath_engine_psij.flux_executor import FluxJobExecutor

if TYPE_CHECKING:
    from pathlib import Path

    from psij import Job

    class _PsijExecutor:
        """The part of PSI/J's executors that is used here."""

        def __init__(self, url: str | None, config: object) -> None: ...
        def submit(self, job: Job) -> None: ...
        def cancel(self, job: Job) -> None: ...
        def attach(self, job: Job, native_id: str) -> None: ...

else:
    _PsijExecutor = object

#: How each batch system prints the native id of a submitted job.
_IDS = {
    "slurm": r"Submitted batch job (\d+)",
    "pbs": r"(?m)^(\d+(?:\[\])?(?:\.\S+)?)\s*$",
    "lsf": r"Job <(\d+)>",
}


class _NoPolling:
    """A replacement of PSI/J's polling thread that does nothing."""

    def register_job(self, job: Job) -> None:
        """Poll nothing."""


class BatchExecutor(_PsijExecutor):
    """The differences from PSI/J's executors; the next base class is one of those.

    `directory` is for the scripts of PSI/J's launcher.
    """

    _NAME_: ClassVar[str]
    _CONFIG: ClassVar[type]

    def __init__(self, directory: Path) -> None:
        config = self._CONFIG(work_directory=directory, keep_files=True)
        super().__init__(url=None, config=config)
        self.generator: Any
        # For the job that is submitted: the folder of its script, its name, and its resources.
        self.work_directory = directory
        self.name_of_job = ""
        self.resources = Resources()

    def _start_queue_poll_thread(self) -> Any:
        return _NoPolling()

    def _run_command(self, command: list[str]) -> str:
        return schedulers.run(command)

    def job_id_from_submit_output(self, out: str) -> str:
        """Return the native id; PSI/J would take the last word of any output.

        `EngineUnavailable` is raised if there is no id. The job's name later shows whether the
        batch system has taken it.
        """
        if self._NAME_ == "flux":
            native_id = flux_id(out)
        else:
            match = re.search(_IDS[self._NAME_], out)
            native_id = match[1] if match else None
        if native_id is None:
            raise schedulers.unreadable(COMMANDS[self._NAME_], out)
        return native_id

    def generate_submit_script(
        self, job: Job, context: dict[str, object], submit_file: IO[str]
    ) -> None:
        """Render PSI/J's template, with directives that it lacks."""
        rendered = io.StringIO()
        self.generator.generate_submit_script(job, context, rendered)
        shell, _, body = rendered.getvalue().partition("\n")
        scheduler = self._NAME_
        own = directives(scheduler, self.name_of_job, self.resources)
        lines = [shell, *(f"{SIGNS[scheduler]} {line}" for line in own)]
        duration = job.spec.attributes.duration
        lasts_s = None if duration is None else duration.total_seconds()
        body = with_end(scheduler, mended(scheduler, body, self.resources), lasts_s)
        submit_file.write("\n".join([*lines, body]))


#: The executor of each batch system, and the class of its configuration.
_EXECUTORS: dict[str, tuple[type, type]] = {
    "slurm": (SlurmJobExecutor, SlurmExecutorConfig),
    "pbs": (PBSJobExecutor, PBSExecutorConfig),
    "lsf": (LsfJobExecutor, LsfExecutorConfig),
    "flux": (FluxJobExecutor, BatchSchedulerExecutorConfig),
}


def batch_executor(scheduler: str, directory: Path) -> BatchExecutor:
    """Make the executor of a batch system."""
    base, config = _EXECUTORS[scheduler]
    names = {"_NAME_": scheduler, "_CONFIG": config}
    kind: type[BatchExecutor] = type(base.__name__, (BatchExecutor, base), names)
    return kind(directory)
