"""An executor for Flux by scripts and commands, as PSI/J has them for other batch systems.

PSI/J's own executor uses Flux's Python bindings, which come with one release of Flux. It knows no
queue, account or name of a job.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from psij import SubmitException
from psij.executors.batch.batch_scheduler_executor import (
    BatchSchedulerExecutor,
    InvalidJobStateError,
)
from psij.executors.batch.script_generator import TemplatedScriptGenerator

from crystalmath_engine_psij.directives import escaped

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import timedelta
    from typing import IO

    from psij import Job, JobStatus
    from psij.executors.batch.batch_scheduler_executor import BatchSchedulerExecutorConfig

#: The file beside its script into which an allocation prints; the template names it, too.
OUTPUT = "flux.out"
_TEMPLATE = Path(__file__).with_name("flux.mustache")
_OVER = re.compile(r"\binactive\b|unknown job", re.IGNORECASE)


class FluxJobExecutor(BatchSchedulerExecutor):  # type: ignore[misc]  # PSI/J may be missing
    """An executor that submits with ``flux batch`` and cancels with ``flux cancel``.

    PSI/J's executors have `url`; it is not used.
    """

    def __init__(self, url: str | None, config: BatchSchedulerExecutorConfig) -> None:
        super().__init__(url=url, config=config)
        self.generator = TemplatedScriptGenerator(config, _TEMPLATE, escape=escaped)

    def generate_submit_script(
        self, job: Job, context: dict[str, object], submit_file: IO[str]
    ) -> None:
        """Render the template."""
        self.generator.generate_submit_script(job, context, submit_file)

    def get_submit_command(self, job: Job, submit_file_path: Path) -> list[str]:
        """Return the command that submits a script, which holds all directives."""
        del job
        return ["flux", "batch", str(submit_file_path.absolute())]

    def get_cancel_command(self, native_id: str) -> list[str]:
        """Return the command that cancels a job."""
        return ["flux", "cancel", native_id]

    def process_cancel_command_output(self, exit_code: int, out: str) -> None:
        """Raise the error of a failed cancel: `InvalidJobStateError` if the job is over."""
        del exit_code
        if _OVER.search(out):
            raise InvalidJobStateError
        raise SubmitException(out)

    def _format_duration(self, d: timedelta) -> str:
        """Return a duration as Flux reads it; a number without a unit would be minutes."""
        return f"{int(d.total_seconds())}s"

    # Only PSI/J's polling thread calls these; `batch_queues` takes its place.

    def get_status_command(self, native_ids: Collection[str]) -> list[str]:
        """Never called."""
        raise NotImplementedError

    def parse_status_output(self, exit_code: int, out: str) -> dict[str, JobStatus]:
        """Never called."""
        raise NotImplementedError

    def get_list_command(self) -> list[str]:
        """Never called."""
        raise NotImplementedError
