"""``crystalmath path``: where a job works."""

from __future__ import annotations

from crystalmath.cli.shared import output
from crystalmath.cli.shared.common_arguments import JobId, Json, any_client
from crystalmath.errors import FilesRemoved


def path(job_id: JobId, *, as_json: Json = False) -> int:
    """Print a job's work directory.

    Whatever state the job is in; nothing where the directory was removed.
    """
    with any_client() as client:
        job = client.job(client.find(job_id))
    if said := job.without_files():
        raise FilesRemoved(said)
    if as_json:
        output.write_json({"job_id": job.job_id, "path": str(job.work_dir)})
    else:
        output.write(str(job.work_dir))
    return 0
