"""Writes tables to files: CSV, JSON lines, extended XYZ, an ASE database, Parquet.

Each line is written when it comes. Formats that need the columns first keep the lines in a
temporary file meanwhile, not in memory.
"""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from importlib.util import find_spec
from itertools import islice
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any

from crystalmath import server
from crystalmath.client.job_values import parameters_of
from crystalmath.errors import CrystalMathError, InvalidJob, did_you_mean
from crystalmath.jobs.documents import cleaned
from crystalmath.models import JobState
from crystalmath.models.columns import JOB_COLUMNS, PHASE_COLUMNS
from crystalmath.reading.table_rows import Line, line_of
from crystalmath.recipes.summary import GEOMETRY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Self

    from crystalmath.client.transport import Caller
    from crystalmath.models import Job

#: Jobs whose results are in memory at once.
_PAGE = 100
#: Lines of Parquet, or rows of a database, that are written at once.
_GROUP = 1000
#: Columns of the geometry, which ASE's formats have themselves.
_ARRAYS = ("cell_ang", "pbc", "numbers", "positions_ang")


def chosen_lines(
    caller: Caller,
    jobs: Iterable[Job],
    columns: Sequence[str] | None,
    references: Mapping[str, str] | None,
    limit: int | None,
) -> Iterator[Line]:
    """Yield a line for each job up to the limit; all jobs count for formation energies.

    `InvalidJob`: none of the `columns` needs the `references`, or an energy cannot be calculated.
    """
    if set(PHASE_COLUMNS).isdisjoint(columns or ()):
        if references:
            raise InvalidJob(
                f"references are for the columns {' and '.join(PHASE_COLUMNS)}; name one of these "
                "columns too"
            )
        return lines(caller, islice(jobs, limit))
    from crystalmath.client.phase_energies import phase_energies

    every = [*jobs]
    energies = phase_energies(caller, every, references)
    return lines(caller, islice(every, limit), energies)


def lines(
    caller: Caller,
    jobs: Iterable[Job],
    energies: Mapping[str, Mapping[str, float]] | None = None,
) -> Iterator[Line]:
    """Yield a line for each job, in their order; at most a page of results is in memory.

    `energies` has further values of jobs, by their ids and columns.
    """
    rest = iter(jobs)
    while page := list(islice(rest, _PAGE)):
        parameters = parameters_of(caller, [job.job_id for job in page])
        completed = [job.job_id for job in page if job.state is JobState.COMPLETED]
        results = _results(caller, completed)
        for job in page:
            has_result = job.state is JobState.COMPLETED
            result = next(results) if has_result else None
            line = line_of(job, parameters.get(job.job_id) or {}, result)
            line.values.update((energies or {}).get(job.job_id, {}))
            yield line


def _results(caller: Caller, job_ids: Sequence[str]) -> Iterator[Any]:
    """Yield results as plain JSON, in order; ``None`` if the files are gone."""
    left = list(job_ids)
    while left:
        answer = caller.ask(server.JOBS_RESULTS, job_ids=left)
        for each in answer["results"]:
            yield cleaned(each["result"])
        if not answer["results"]:
            yield _large(caller, left[0])
        left = left[max(1, len(answer["results"])) :]


def _large(caller: Caller, job_id: str) -> Any:
    try:
        text = caller.result_text(job_id, brief=True)
    except CrystalMathError:
        return None
    return None if text is None else cleaned(json.loads(text))


def write_table(
    path: Path, lines: Iterable[Line], columns: Sequence[str] | None, form: str | None = None
) -> tuple[int, int]:
    """Write lines to a new file, which appears once it is complete.

    Returns how many jobs were written, and how many left out because they have no geometry. `form`
    is one of ``FORMATS``, by default the file's suffix. `InvalidJob`: the format is unknown, the
    file exists or cannot be written, or no job has one of the columns. `CrystalMathError`: a
    package that the format needs is not installed.
    """
    form = form or path.suffix.lstrip(".").lower()
    if form not in FORMATS:
        raise InvalidJob(
            f"{path.name!r} ends in no format that is known; name one of {', '.join(FORMATS)}"
        )
    if path.exists():
        raise InvalidJob(f"{path} is there already; remove it, or write another file")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise InvalidJob(f"{path} cannot be written: {path.parent} is no folder to write into")
    _require(form)
    # ASE takes the kind of a database from its suffix.
    part = path.with_name(f".{path.stem}.{os.getpid()}.{form}")
    try:
        seen: set[str] = set()
        counted = FORMATS[form](part, _noting(lines, seen), columns)
        _refuse_unknown(columns, seen)
        part.replace(path)
    except OSError as error:
        if error.filename != str(part):
            raise
        raise InvalidJob(f"{path} cannot be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
    return counted


def frame(lines: Iterable[Line], columns: Sequence[str] | None) -> Any:
    """Return a pandas DataFrame: the record's columns, and all others that a line has."""
    if find_spec("pandas") is None:
        raise CrystalMathError(f"a table needs pandas, which is missing: {_REMEDY}")
    import pandas as pd

    seen: set[str] = set()
    rows = [line.values for line in _noting(lines, seen)]
    _refuse_unknown(columns, seen)
    # The record's columns are there even without values: scripts rely on them.
    every = {*JOB_COLUMNS, *(name for row in rows for name in row)}
    names = _ordered(every) if columns is None else columns
    return pd.DataFrame(
        {name: [row.get(name) for row in rows] for name in names}, columns=list(names)
    )


def _noting(lines: Iterable[Line], seen: set[str]) -> Iterator[Line]:
    for line in lines:
        seen.update(line.values)
        yield line


def _refuse_unknown(columns: Sequence[str] | None, seen: set[str]) -> None:
    """Raise `InvalidJob` for a column that no job has, if there are jobs."""
    known = seen | {*JOB_COLUMNS, *PHASE_COLUMNS, *GEOMETRY}
    for name in (columns or ()) if seen else ():
        if name not in known:
            hint = did_you_mean(name, known, "without --columns all are written")
            raise InvalidJob(f"no job has a column {name!r}; {hint}")


class Spool:
    """Lines in a temporary file, and the columns that they have."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self.types: dict[str, set[type]] = {}
        self.count = 0
        with ExitStack() as stack:
            self._file: IO[str] = stack.enter_context(TemporaryFile("w+", encoding="utf-8"))
            for line in lines:
                for name, value in line.values.items():
                    self.types.setdefault(name, set()).add(_type(value))
                self._file.write(json.dumps(line.values) + "\n")
                self.count += 1
            stack.pop_all()  # the file stays open until the end of the caller's block

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def columns(self) -> list[str]:
        """All columns: those of the record first."""
        return _ordered(self.types)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self._file.seek(0)
        return map(json.loads, self._file)


def _ordered(names: Iterable[str]) -> list[str]:
    known = set(names)
    groups: list[list[str]] = [
        [name for name in JOB_COLUMNS if name in known],
        sorted(name for name in known if name.startswith("labels_")),
        sorted(name for name in known if name.startswith("params.")),
    ]
    taken = {*GEOMETRY, *(name for group in groups for name in group)}
    groups.append(sorted(known - taken))
    return [*(name for group in groups for name in group), *(n for n in GEOMETRY if n in known)]


# --- formats ---------------------------------------------------------------------------------


def _csv(path: Path, lines: Iterable[Line], columns: Sequence[str] | None) -> tuple[int, int]:
    import csv

    with Spool(lines) as spool, path.open("w", encoding="utf-8", newline="") as file:
        names = spool.columns if columns is None else columns
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        for row in spool:
            writer.writerow([_cell(row.get(name)) for name in names])
        return spool.count, 0


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, (list, dict, bool)) else value


def _jsonl(path: Path, lines: Iterable[Line], columns: Sequence[str] | None) -> tuple[int, int]:
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for line in lines:
            file.write(json.dumps(_chosen(line.values, columns)) + "\n")
            count += 1
    return count, 0


def _chosen(values: Mapping[str, Any], columns: Sequence[str] | None) -> dict[str, Any]:
    return dict(values) if columns is None else {name: values.get(name) for name in columns}


def _described(line: Line, columns: Sequence[str] | None) -> dict[str, Any]:
    """Return the scalars beside a geometry, without those that the geometry has itself."""
    own = {*_ARRAYS, "volume_ang3", "natoms", "formula"}
    values = _chosen(line.values, columns)
    return {
        name: value
        for name, value in values.items()
        if name not in own and isinstance(value, (str, int, float, bool))
    }


def _extxyz(path: Path, lines: Iterable[Line], columns: Sequence[str] | None) -> tuple[int, int]:
    from ase.io.extxyz import write_extxyz

    count = left = 0
    with path.open("w", encoding="utf-8") as file:
        for line in lines:
            if line.atoms is None:
                left += 1
                continue
            # A recipe may leave values of any size and type in info; they are replaced.
            line.atoms.info = {
                _escaped(name): _escaped(value) if isinstance(value, str) else value
                for name, value in _described(line, columns).items()
                # A reader would take the next entry as the value of a blank one.
                if not isinstance(value, str) or value.strip()
            }
            write_extxyz(file, [line.atoms])
            count += 1
    return count, left


def _escaped(text: str) -> str:
    """Return a text as one line with doubled backslashes, which ASE does not escape."""
    return " ".join(text.split()).replace("\\", r"\\")


def _db(path: Path, lines: Iterable[Line], columns: Sequence[str] | None) -> tuple[int, int]:
    from ase.db import connect

    count = left = 0
    rest = iter(lines)
    opened = connect(path, append=False)
    try:
        while page := list(islice(rest, _GROUP)):
            with opened as database:
                for line in page:
                    if line.atoms is None:
                        left += 1
                        continue
                    line.atoms.info = {}
                    described = _described(line, columns)
                    database.write(line.atoms, data=described, key_value_pairs=_pairs(described))
                    count += 1
    finally:
        if (connection := getattr(opened, "connection", None)) is not None:
            connection.close()
    return count, left


def _pairs(described: Mapping[str, Any]) -> dict[str, Any]:
    """Return keys and values that ASE can select by: plain names, and numbers for their texts."""
    from ase.db.core import convert_str_to_int_float_bool_or_str, reserved_keys

    pairs = {}
    for name, value in described.items():
        key = "".join(c if c.isalnum() and c.isascii() else "_" for c in name)
        key = f"job_{key}" if key in reserved_keys or not key[0].islower() else key
        while key in pairs:  # of another parameter: a.b and a_b
            key += "_"
        read = convert_str_to_int_float_bool_or_str(value) if isinstance(value, str) else value
        pairs[key] = read
    return pairs


def _parquet(path: Path, lines: Iterable[Line], columns: Sequence[str] | None) -> tuple[int, int]:
    import pyarrow as pa
    from pyarrow import parquet

    with Spool(lines) as spool:
        names = spool.columns if columns is None else columns
        readers = {name: _reader(name, spool.types.get(name, set()), pa) for name in names}
        schema = pa.schema([(name, kind) for name, (kind, _) in readers.items()])
        rows = iter(spool)
        with parquet.ParquetWriter(path, schema) as writer:
            while page := list(islice(rows, _GROUP)):
                made = {
                    name: [None if row.get(name) is None else read(row[name]) for row in page]
                    for name, (_, read) in readers.items()
                }
                writer.write_table(pa.table(made, schema=schema))
        return spool.count, 0


class _LargeInt:
    """The type of an integer of more than 64 bits, such as a seed."""


def _type(value: object) -> type:
    large = type(value) is int and not -(2**63) <= value < 2**63
    return _LargeInt if large else type(value)


def _reader(name: str, types: set[type], pa: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Return a column's type and the conversion of its values; mixed ones become JSON."""
    lists: dict[str, Any] = {
        "cell_ang": pa.list_(pa.list_(pa.float64())),
        "positions_ang": pa.list_(pa.list_(pa.float64())),
        "numbers": pa.list_(pa.int64()),
        "pbc": pa.list_(pa.bool_()),
    }
    if name in lists:
        return lists[name], lambda value: value
    single: dict[type, Any] = {
        bool: pa.bool_(),
        int: pa.int64(),
        float: pa.float64(),
        str: pa.string(),
    }
    if len(types) == 1 and (one := next(iter(types))) in single:
        return single[one], lambda value: value
    if types and types <= {int, float}:
        return pa.float64(), float
    return pa.string(), lambda value: value if isinstance(value, str) else json.dumps(value)


#: The functions that write tables, by the file's suffix.
FORMATS: dict[str, Callable[[Path, Iterable[Line], Sequence[str] | None], tuple[int, int]]] = {
    "csv": _csv,
    "jsonl": _jsonl,
    "extxyz": _extxyz,
    "xyz": _extxyz,
    "db": _db,
    "parquet": _parquet,
}
_REMEDY = "pip install 'crystalmath[tables]'"


def _require(form: str) -> None:
    if form == "parquet" and find_spec("pyarrow") is None:
        raise CrystalMathError(f"Parquet needs pyarrow, which is missing: {_REMEDY}")
