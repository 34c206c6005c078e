"""Ask about one job: what it was asked, what it writes, how far it is, what came of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from crystalmath.client.caller import Caller
from crystalmath.client.client_errors import raise_answered
from crystalmath.client.result_fetcher import ResultFetcher
from crystalmath.client.transport import split_last
from crystalmath.errors import InvalidJob
from crystalmath.models import Inputs, JobState, Progress
from crystalmath.models.fields import from_wire

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystalmath.client.transport import Transport
    from crystalmath.models.answers import JobFiles, LogPart, Specification, Story

#: So many jobs at once are asked for their progress.
READ_AT_ONCE = 200

#: So many with the histories of their ionic steps.
HISTORIES_AT_ONCE = 20


class OneJob(Caller):
    """All that can be asked of a job whose id is known."""

    def __init__(self, transport: Transport) -> None:
        super().__init__(transport)
        #: What futures get their results from.
        self.results = ResultFetcher(transport)

    def specification(self, job_id: str) -> Specification:
        """Return what a job was asked to do, as JSON; its environment is left out.

        Returns
        -------
        dict
            ``{"job_id", "recipe", "structure", "params", "engine", "cluster", "walltime_s",
            "resources", "priority", "continue_lost", "name", "labels", "potcars", "parents"}``.
        """
        return cast("Specification", self._answer("jobs.specification", job_id=job_id))

    def show(self, job_id: str) -> Story:
        """Tell a job's whole story: what it came of, its attempts and events, what came of it.

        Returns
        -------
        dict
            ``{"job", "params", "potcars", "parents", "children", "attempts", "events"}``.
        """
        return cast("Story", self._answer("jobs.show", job_id=job_id))

    def script(self, job_id: str) -> str:
        """Write a job as a Python script that runs the same calculation with quacc alone.

        Raises
        ------
        InvalidJob
            A parameter cannot be written as Python.
        """
        return str(self._answer("jobs.script", job_id=job_id)["script"])

    def inputs(self, job_id: str) -> Inputs:
        """Return the inputs of a job's programs for each calculation, before and after it ran.

        Once the job has written input files, they are read (``source`` is ``files``). Before, and
        of calculators that write none, its recipe is asked, which may take seconds.

        Parameters
        ----------
        job_id : str
            The job; `UnknownJob` if there is no such one.
        """
        return Inputs.read(self._answer("jobs.inputs", job_id=job_id)["inputs"])

    def export_inputs(self, job_id: str, directory: str | os.PathLike[str]) -> list[Path]:
        """Write a folder from which a job's calculation runs without us.

        ``run.py`` runs it with quacc. Of VASP and Quantum ESPRESSO there are the input files, too,
        and ``run.sh`` starts the program, of several steps each in ``step-1`` and so on. A POTCAR
        is put together there from where it is kept.

        Parameters
        ----------
        job_id : str
            The job.
        directory : str or path
            The folder; it may be there already.

        Returns
        -------
        list of pathlib.Path
            What was written.

        Raises
        ------
        CrystalMathError
            One of the files is there already; nothing was written.
        """
        from crystalmath.client.input_folder import input_files, write_texts

        told = self._answered("jobs.script", {"job_id": job_id, "shell": True})
        texts = input_files(self.inputs(job_id), os.fspath(directory))
        texts[Path(directory, "run.py")] = told["script"]
        if told["shell"] is not None:
            texts[Path(directory, "run.sh")] = told["shell"]
        return write_texts(texts, "--inputs")

    def logs(
        self,
        job_id: str,
        file: str | None = None,
        *,
        tail: int | None = None,
        offset: int | None = None,
        max_bytes: int | None = None,
        timeout_s: float | None = None,
    ) -> LogPart:
        """Read what a job has written.

        Parameters
        ----------
        job_id : str
            The job.
        file : str, optional
            A file below its work directory; default: its log.
        tail : int, optional
            Only so many last lines.
        offset : int, optional
            From this byte on: the ``offset`` of the answer before.
        max_bytes : int, optional
            So much at most.
        timeout_s : float, optional
            How long to wait for more to be written, in seconds.

        Returns
        -------
        dict
            ``{"job_id", "file", "others", "text", "offset", "size", "finished"}``; of several
            files of a name `file` is the newest, and `others` names the rest.
        """
        return cast(
            "LogPart",
            self._answer(
                "jobs.logs",
                job_id=job_id,
                file=file,
                tail=tail,
                offset=offset,
                max_bytes=max_bytes,
                timeout_s=timeout_s,
            ),
        )

    def files(self, job_id: str, *, attempt: int | None = None) -> JobFiles:
        """List the files of a job, with their sizes in bytes and times in s since the epoch.

        Parameters
        ----------
        job_id : str
            The job.
        attempt : int, optional
            Of this attempt; default: the present one.

        Returns
        -------
        dict
            ``{"job_id", "attempt", "work_dir", "files", "more"}``; each file is ``{"file",
            "size", "modified_at", "is_link"}``, and :meth:`logs` reads it by its ``file``.
        """
        return cast("JobFiles", self._answer("jobs.files", job_id=job_id, attempt=attempt))

    def progress(
        self, job_ids: Sequence[str], *, history: bool = False
    ) -> dict[str, Progress | None]:
        """Return how far the calculations of jobs have come, from what their programs write.

        Parameters
        ----------
        job_ids : sequence of str
            The jobs; `UnknownJob` if there is no such one.
        history : bool
            Tell the ionic steps of all of their calculations too, as ``history`` of each.

        Returns
        -------
        dict of str to (Progress or None)
            By job id; ``None`` where nothing is written yet that a reader knows.
        """
        told: dict[str, Progress | None] = {}
        most = HISTORIES_AT_ONCE if history else READ_AT_ONCE
        for start in range(0, len(job_ids), most):
            page = list(job_ids[start : start + most])
            asked = self._answer("jobs.progress", job_ids=page, history=history)
            for job in asked["jobs"]:
                if job["status"] == "error":
                    raise_answered(job)
                read = job["progress"]
                told[job["job_id"]] = read and Progress(**from_wire(Progress, read))
        return told

    def traceback(self, job_id: str) -> str | None:
        """Return the traceback of a job that failed, if its recipe raised."""
        return self._answer("jobs.result", job_id=job_id).get("traceback")

    def result_json(
        self, job_id: str, field: str | None = None, *, brief: bool = False
    ) -> bytes | None:
        """Return a result as JSON text, as it is stored; ``None`` unless the job completed.

        Parameters
        ----------
        job_id : str
            The job.
        field : str, optional
            Only this part of it: ``results.energy``.
        brief : bool
            Of a large result only what a table has of it: the scalars, final geometry and forces
            of its last calculation.
        """
        part: dict[str, Any] = {} if field is None else {"field": field}
        part |= {"brief": True} if brief else {}
        answer = self._transport.call_raw("jobs.result", {"job_id": job_id, **part})
        told, result = split_last(answer, "result")
        raise_answered(told)
        return result if told["status"] == JobState.COMPLETED.value else None

    def decoded(self, job_id: str) -> Any:
        """Return what the recipe of a completed job returned; the job's future calls it."""
        from crystalmath.recipes import codec

        fetched = self.results.take(job_id)
        if fetched is not None:
            return codec.decode_result_document(fetched["result"])
        text = self.result_json(job_id)
        if text is None:
            raise InvalidJob(f"the job {job_id} has not completed")
        return codec.decode_result_json(text)
