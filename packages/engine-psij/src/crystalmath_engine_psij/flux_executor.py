"""An executor for Flux as PSI/J has them for other batch systems: by scripts and commands.

PSI/J's own goes through Flux's Python bindings, which come with one release of Flux, and knows no
queue, account or name of a job.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from psij import SubmitException
from psij.executors.batch.batch_scheduler_executor import (
    BatchSchedulerExecutor,
    BatchSchedulerExecutorConfig,
    InvalidJobStateError,
)
from psij.executors.batch.script_generator import TemplatedScriptGenerator

from crystalmath_engine_psij.directives import escaped

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import timedelta
    from typing import IO

    from psij import Job, JobStatus

#: Where Flux writes what an allocation prints, beside its script; its template says so, too.
OUTPUT = "flux.out"
_TEMPLATE = Path(__file__).with_name("flux.mustache")
_OVER = re.compile(r"\binactive\b|unknown job", re.IGNORECASE)


class FluxExecutorConfig(BatchSchedulerExecutorConfig):  # type: ignore[misc]  # may be missing
    """As PSI/J's others are."""


class FluxJobExecutor(BatchSchedulerExecutor):  # type: ignore[misc]  # may be missing
    """Submit with ``flux batch``, cancel with ``flux cancel``.

    `url` is not used; PSI/J's executors have it.
    """

    def __init__(self, url: str | None, config: FluxExecutorConfig) -> None:
        super().__init__(url=url, config=config)
        self.generator = TemplatedScriptGenerator(config, _TEMPLATE, escape=escaped)

    def generate_submit_script(
        self, job: Job, context: dict[str, object], submit_file: IO[str]
    ) -> None:
        """Render the template."""
        self.generator.generate_submit_script(job, context, submit_file)

    def get_submit_command(self, job: Job, submit_file_path: Path) -> list[str]:
        """Return the command; its directives stand in the script."""
        del job
        return ["flux", "batch", str(submit_file_path.absolute())]

    def get_cancel_command(self, native_id: str) -> list[str]:
        """Return the command."""
        return ["flux", "cancel", native_id]

    def process_cancel_command_output(self, exit_code: int, out: str) -> None:
        """Raise the error of a failed cancel: `InvalidJobStateError` if the job is over."""
        del exit_code
        if _OVER.search(out):
            raise InvalidJobStateError
        raise SubmitException(out)

    def _format_duration(self, d: timedelta) -> str:
        """Return it as Flux's standard duration: a bare number would be minutes."""
        return f"{int(d.total_seconds())}s"

    # PSI/J's thread that polls would call these: core asks (`batch_queues`).

    def get_status_command(self, native_ids: Collection[str]) -> list[str]:
        """Never called."""
        raise NotImplementedError

    def parse_status_output(self, exit_code: int, out: str) -> dict[str, JobStatus]:
        """Never called."""
        raise NotImplementedError

    def get_list_command(self) -> list[str]:
        """Never called."""
        raise NotImplementedError
