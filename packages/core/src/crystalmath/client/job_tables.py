"""Make tables of jobs and their results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

from crystalmath.client.asking import Asking

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from crystalmath.models import Filters


class JobTables(Asking):
    """Jobs as lines, in memory or in a file; see :mod:`.table_rows` and :mod:`.table_files`."""

    def table(
        self,
        *,
        columns: Sequence[str] | None = None,
        sort: str | None = None,
        limit: int | None = None,
        **filters: Unpack[Filters],
    ) -> Any:
        """Return jobs as a pandas DataFrame: parameters, labels, energies, geometry, results.

        Columns are named as in ``crystalmath list``; labels are ``labels.NAME``, parameters
        ``params.NAME``, and what a recipe gives has the recipe's own names
        (``results.gibbs_energy``). Of a flow the last result counts, as in its summary.

        Parameters
        ----------
        columns : sequence of str, optional
            Which columns; default: all that any of the jobs has.
        sort, limit, **filters
            See :meth:`list`.

        Raises
        ------
        CrystalMathError
            pandas is not installed.
        """
        from crystalmath.client.table_files import frame
        from crystalmath.client.table_rows import lines

        return frame(lines(self, self.list(sort=sort, limit=limit, **filters)), columns)

    def export(
        self,
        path: str | PathLike[str],
        *,
        columns: Sequence[str] | None = None,
        sort: str | None = None,
        limit: int | None = None,
        **filters: Unpack[Filters],
    ) -> tuple[int, int]:
        """Write jobs as a table to a file.

        Parameters
        ----------
        path : str or path
            A new file; its end names the format: ``.csv``, ``.jsonl``, ``.extxyz``, ``.db``,
            ``.parquet``.
        columns, sort, limit, **filters
            See :meth:`table`.

        Returns
        -------
        tuple of int
            How many jobs were written, and how many were left out of ``.extxyz`` and ``.db``
            because they have no geometry.

        Raises
        ------
        InvalidJob
            The file is there already, or its name ends in no format.
        CrystalMathError
            pyarrow, which Parquet needs, is not installed.
        """
        from pathlib import Path

        from crystalmath.client.table_files import write_table
        from crystalmath.client.table_rows import lines

        jobs = self.list(sort=sort, limit=limit, **filters)
        return write_table(Path(path), lines(self, jobs), columns)
