"""PSI/J's batch executors as this engine uses them: they render, submit and cancel; core asks.

PSI/J's own thread that polls would take a reason with a blank in it for the failure of all jobs,
and has no time limit.
"""

from __future__ import annotations

import io
import re
from typing import IO, TYPE_CHECKING, Any, ClassVar

from psij.executors.batch.lsf import LsfExecutorConfig, LsfJobExecutor
from psij.executors.batch.pbs import PBSExecutorConfig, PBSJobExecutor
from psij.executors.batch.slurm import SlurmExecutorConfig, SlurmJobExecutor

from crystalmath.engines import schedulers
from crystalmath.models import Resources
from crystalmath_engine_psij.batch_queues import flux_id
from crystalmath_engine_psij.directives import COMMANDS, SIGNS, directives, mended, with_end
from crystalmath_engine_psij.flux_executor import FluxExecutorConfig, FluxJobExecutor

if TYPE_CHECKING:
    from pathlib import Path

    from psij import Job

_IDS = {
    "slurm": r"Submitted batch job (\d+)",
    "pbs": r"(?m)^(\d+(?:\[\])?(?:\.\S+)?)\s*$",
    "lsf": r"Job <(\d+)>",
}


class _NoPolling:
    """Stands where PSI/J has its thread that polls."""

    def register_job(self, job: Job) -> None:
        """Poll nothing."""


class BatchExecutor:
    """The differences from PSI/J's executors of batch systems, one of which is the next base.

    The scripts of PSI/J's launcher may lie in `directory`.
    """

    _NAME_: ClassVar[str]
    _CONFIG: ClassVar[type]

    def __init__(self, directory: Path) -> None:
        config = self._CONFIG(work_directory=directory, keep_files=True)
        super().__init__(url=None, config=config)  # type: ignore[call-arg]
        self.generator: Any
        # Of the job that is submitted: where its script lies, its name, what it asks for.
        self.work_directory = directory
        self.name_of_job = ""
        self.resources = Resources()

    def _start_queue_poll_thread(self) -> Any:
        return _NoPolling()

    def _run_command(self, command: list[str]) -> str:
        return schedulers.run(command)

    def job_id_from_submit_output(self, out: str) -> str:
        """Read the native id; PSI/J would take the last word of anything.

        `EngineUnavailable` is raised if there is none: the job's name shows whether it was taken.
        """
        if self._NAME_ == "flux":
            native_id = flux_id(out)
        else:
            found = re.search(_IDS[self._NAME_], out)
            native_id = found[1] if found else None
        if native_id is None:
            raise schedulers.unreadable(COMMANDS[self._NAME_], out)
        return native_id

    def generate_submit_script(
        self, job: Job, context: dict[str, object], submit_file: IO[str]
    ) -> None:
        """Render PSI/J's template, and what it has no place for."""
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

    if TYPE_CHECKING:

        def submit(self, job: Job) -> None:
            """Render the script of a job, and submit it."""

        def cancel(self, job: Job) -> None:
            """Cancel a job."""

        def attach(self, job: Job, native_id: str) -> None:
            """Make a job that of a native id."""


class _Slurm(BatchExecutor, SlurmJobExecutor):  # type: ignore[misc]  # may be missing
    _NAME_ = "slurm"
    _CONFIG = SlurmExecutorConfig


class _Pbs(BatchExecutor, PBSJobExecutor):  # type: ignore[misc]  # may be missing
    _NAME_ = "pbs"
    _CONFIG = PBSExecutorConfig


class _Lsf(BatchExecutor, LsfJobExecutor):  # type: ignore[misc]  # may be missing
    _NAME_ = "lsf"
    _CONFIG = LsfExecutorConfig


class _Flux(BatchExecutor, FluxJobExecutor):
    _NAME_ = "flux"
    _CONFIG = FluxExecutorConfig


_KINDS = {kind._NAME_: kind for kind in (_Slurm, _Pbs, _Lsf, _Flux)}


def batch_executor(scheduler: str, directory: Path) -> BatchExecutor:
    """Make the executor of a batch system."""
    return _KINDS[scheduler](directory)
