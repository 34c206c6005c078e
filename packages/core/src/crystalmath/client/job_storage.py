"""What the files of jobs take; throw them away, and carry jobs to another home."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, cast

from crystalmath.client.caller import LONG_S, Caller
from crystalmath.client.filters_document import filters_document
from crystalmath.client.transport import PAGE

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from crystalmath.models import Filters
    from crystalmath.models.answers import ArchivedJobs, ImportedJobs, Pruned, Usage


class JobStorage(Caller):
    """The room that jobs take, and archives of them."""

    def usage(self, **filters: Unpack[Filters]) -> Usage:
        """Measure what the files of jobs take: in all, by state, by recipe and by label.

        Parameters
        ----------
        **filters
            See :meth:`list`.

        Returns
        -------
        dict
            ``{"total", "states", "recipes", "labels"}``, of each ``{"jobs", "files", "size",
            "heavy_size"}``, sizes in bytes; heavy are the files that can be computed again.
        """
        return cast("Usage", self._answered("jobs.usage", filters_document(filters), LONG_S))

    def prune(
        self,
        job_ids: Sequence[str] | None = None,
        *,
        older_s: float | None = None,
        larger: int | None = None,
        keep_results: bool = False,
        dry_run: bool = False,
        **filters: Unpack[Filters],
    ) -> Pruned:
        """Throw away the run directories of jobs that have ended; their records stay.

        Parameters
        ----------
        job_ids : sequence of str, optional
            Of exactly these jobs; else something of what follows must say which are meant.
        older_s : float, optional
            Only of jobs that ended longer ago, in seconds.
        larger : int, optional
            Only of jobs of which more would be removed, in bytes.
        keep_results : bool
            Only the heavy files: wave functions, charge densities, copies of POTCARs.
        dry_run : bool
            Remove nothing, and tell of which jobs files would be removed.
        **filters
            See :meth:`list`.

        Returns
        -------
        dict
            ``{"jobs", "left"}``: of each job whose files were removed ``{"job_id", "name",
            "status", "recipe", "finished_at", "size"}``, of each other ``{"job_id", "error",
            "code"}``.

        Raises
        ------
        InvalidJob
            Nothing says which jobs are meant, or unfinished ones are. Nothing was removed.
        """
        asked = {
            "older_s": older_s,
            "larger": larger,
            "keep_results": keep_results,
            "dry_run": dry_run,
            **filters_document(filters),
        }
        if job_ids is None:
            return self._prune(asked)
        whole: Pruned = {"jobs": [], "left": [], "cursor": None, "error": None}
        for start in range(0, len(job_ids) or 1, PAGE):
            part = self._prune({**asked, "job_ids": list(job_ids[start : start + PAGE])})
            whole["jobs"] += part["jobs"]
            whole["left"] += part["left"]
        return whole

    def _prune(self, asked: Mapping[str, Any]) -> Pruned:
        whole = cast("Pruned", self._answered("jobs.prune", asked, LONG_S))
        while whole["cursor"] is not None:
            rest = self._answered("jobs.prune", {**asked, "cursor": whole["cursor"]}, LONG_S)
            whole["jobs"] += rest["jobs"]
            whole["left"] += rest["left"]
            whole["cursor"] = rest["cursor"]
        return whole

    def archive(
        self,
        path: str | os.PathLike[str],
        job_ids: Sequence[str] | None = None,
        **filters: Unpack[Filters],
    ) -> int:
        """Write jobs that have ended into a file, as :meth:`write_archive`; give their number."""
        return self.write_archive(path, job_ids, **filters)["jobs"]

    def write_archive(
        self,
        path: str | os.PathLike[str],
        job_ids: Sequence[str] | None = None,
        **filters: Unpack[Filters],
    ) -> ArchivedJobs:
        """Write jobs that have ended into a file that another home takes in.

        Record, results and files are in it; POTCARs and environments never are.

        Parameters
        ----------
        path : str or path
            The new file, a zip.
        job_ids : sequence of str, optional
            Exactly these jobs.
        **filters
            In their place the filters of :meth:`list`.

        Returns
        -------
        dict
            ``{"jobs", "files", "left_out"}``: how many are in it, and the files that could not be
            (as pipes, or what must not be read), with why.

        Raises
        ------
        InvalidJob
            The file is there already, or a job has not ended. Nothing was written.
        """
        asked: dict[str, Any] = {"file": str(Path(path).absolute())}
        if job_ids is None:
            asked["filters"] = filters_document(filters)
        else:
            asked["job_ids"] = list(job_ids)
        answer = self._answered("jobs.archive", asked, LONG_S)
        left_out = answer["left_out"]
        return {"jobs": answer["jobs"], "files": answer["files"], "left_out": left_out}

    def import_archive(self, path: str | os.PathLike[str]) -> ImportedJobs:
        """Take in the jobs of an archive that :meth:`archive` of another home has written.

        Returns
        -------
        dict
            ``{"job_ids", "known"}``; the latter were here already, and stay as they are.

        Raises
        ------
        InvalidJob
            Something in it is not as it should be. Nothing was taken in.
        """
        answer = self._answered("jobs.import", {"file": str(Path(path).absolute())}, LONG_S)
        return {"job_ids": answer["job_ids"], "known": answer["known"]}
