"""Read one state of the database in SQL, with SQLite's own module or with SQLAlchemy.

Importing SQLAlchemy takes far longer than most queries. So the queries are plain SQL with named
parameters (``:name``), which both take. Rows are mappings by the names of columns.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import time
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeAlias, TypeVar
from urllib.parse import quote

from crystalmath.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from contextlib import AbstractContextManager

    from sqlalchemy.engine import Connection

_Arguments = ParamSpec("_Arguments")
_Answer = TypeVar("_Answer")
#: A row: it has the methods of a mapping, but is no ``Mapping``.
Row: TypeAlias = Any

#: The schema that this release reads and writes: the newest file of ``migrations/versions``.
HEAD = "0002"
#: The remedy for tables that no release has made, and what it loses.
SET_ASIDE = (
    "stop the server (`crystalmath stop`), move the database away (with SQLite also its files with "
    "-wal and -shm), and `crystalmath doctor --rebuild` records its jobs again; jobs without a run "
    "directory are lost (they waited for others, or were pruned), and so are findings of the "
    "preflight and events"
)
#: Wait so long for a server to come back, or for a lock, in seconds.
TIMEOUT_S = 30.0
#: PostgreSQL reports a held lock after this time, in seconds.
LOCK_S = 2.0
#: The pause before the next try, in seconds.
PAUSE_S = 0.2
#: How long SQLite waits for another process that writes, in seconds.
BUSY_S = 30.0
#: Errors of SQLite and PostgreSQL if the schema's version is right and its tables are not.
_OTHER_TABLES = re.compile(
    r"no such (?:column|table)|has no column named|(?:column|relation) \S+ (?:of .*)?does not exist"
)


class DroppedError(StoreError):
    """A connection was lost before its transaction was committed: nothing of it is recorded."""


class LockedError(StoreError):
    """Another program holds a lock on the database: nothing was read or changed."""


def patient(method: Callable[_Arguments, _Answer]) -> Callable[_Arguments, _Answer]:
    """Make a store's method retry for `TIMEOUT_S` after a dropped connection or a lock."""

    @wraps(method)
    def again(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Answer:
        deadline = None
        while True:
            try:
                return method(*args, **kwargs)
            except DroppedError:
                now = time.monotonic()
                deadline = now + TIMEOUT_S if deadline is None else deadline
                if now >= deadline:
                    raise
            except LockedError as error:
                store: Any = args[0]
                now = store.locked_at = time.monotonic()
                if deadline is None:
                    deadline = now + TIMEOUT_S - LOCK_S
                    import logging

                    log = logging.getLogger("crystalmath.store")
                    log.warning("%s; waiting up to %.0f s for it", error, TIMEOUT_S)
                if now >= deadline:
                    raise StoreError(
                        f"{error} for more than {TIMEOUT_S:.0f} s; nothing was changed: try again "
                        "once it is free (pg_locks and pg_stat_activity tell who holds it)"
                    ) from error
            time.sleep(PAUSE_S)

    return again


def is_storable(text: object) -> bool:
    """Return whether this is a text that every database can store and compare.

    PostgreSQL has no NUL, and no database has half a surrogate pair.
    """
    if not isinstance(text, str) or "\0" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Parameters(dict[str, Any]):
    """The parameters of a statement; `add` names them."""

    def add(self, value: object) -> str:
        """Add a value, and return its placeholder in the statement."""
        name = f"p{len(self)}"
        self[name] = value
        return f":{name}"

    def equal(self, column: str, text: str) -> str:
        """Compare a column with a text; no row equals a text that drivers would refuse."""
        return f"{column} = {self.add(text)}" if is_storable(text) else "1 = 0"

    def among(self, column: str, values: Collection[object]) -> str:
        """Compare a column with a few values."""
        return f"{column} IN ({', '.join(map(self.add, values))})" if values else "1 = 0"


class Snapshot:
    """One state of the database, from a connection in a transaction."""

    def __init__(self, connection: sqlite3.Connection | Connection) -> None:
        self._sqlite: sqlite3.Connection | None = None
        if isinstance(connection, sqlite3.Connection):
            self._sqlite = connection
        elif connection.dialect.name == "sqlite":
            self._sqlite = connection.connection.driver_connection
        else:
            self._connection = connection

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is SQLite, not PostgreSQL."""
        return self._sqlite is not None

    def rows(
        self, query: str, parameters: dict[str, Any] | None = None, *, many: bool = False
    ) -> Iterator[Row]:
        """Read rows; with `many` PostgreSQL's are fetched in batches."""
        if self._sqlite is not None:
            cursor = self._sqlite.cursor()
            cursor.row_factory = sqlite3.Row
            return cursor.execute(query, parameters or {})
        from sqlalchemy import text

        options = {"yield_per": 1000} if many else {}
        result = self._connection.execute(text(query), parameters or {}, execution_options=options)
        return iter(result.mappings())

    def row(self, query: str, parameters: dict[str, Any] | None = None) -> Row | None:
        """Read the first row, if there is any."""
        return next(self.rows(query, parameters), None)

    def value(self, query: str, parameters: dict[str, Any] | None = None) -> Any:
        """Read the column ``value`` of the first row; ``None`` if there is none."""
        row = self.row(query, parameters)
        return None if row is None else row["value"]

    def ids(self, parameters: Parameters, values: Collection[str]) -> str:
        """Add any number of ids as one parameter, and return the query that selects them."""
        name = parameters.add(json.dumps(list(values)))
        if self.is_sqlite:
            return f"SELECT value FROM json_each({name})"
        return f"SELECT json_array_elements_text(CAST({name} AS json))"

    def schema_version(self) -> str | None:
        """Return which schema the tables have; ``None`` if there are none."""
        named = "SELECT max(name) AS value FROM sqlite_master WHERE name = 'alembic_version'"
        if not self.is_sqlite:
            named = "SELECT CAST(to_regclass('alembic_version') AS text) AS value"
        if self.value(named) is None:
            return None
        version: str | None = self.value("SELECT version_num AS value FROM alembic_version")
        return version


class Readable(Protocol):
    """A database that can be read."""

    def reading(self) -> AbstractContextManager[Snapshot]:
        """Read one state of the database."""

    def close(self) -> None:
        """Close it."""


class SqliteFile:
    """A SQLite database opened for reading, without SQLAlchemy, by one thread."""

    def __init__(self, file: Path) -> None:
        self.file = file
        with self._translated():
            self._connection = sqlite3.connect(
                sqlite_uri(file), timeout=BUSY_S, isolation_level=None, uri=True
            )

    @contextlib.contextmanager
    def reading(self) -> Iterator[Snapshot]:
        """Read one state of the database."""
        with self._translated():
            self._connection.execute("BEGIN")
            try:
                yield Snapshot(self._connection)
            finally:
                self._connection.rollback()

    def close(self) -> None:
        """Close it."""
        self._connection.close()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise unusable(self.file, error) from error


def is_writable(file: Path) -> bool:
    """Return whether this process may write to a SQLite file, and make others beside it."""
    return os.access(file.parent, os.W_OK) and os.access(file, os.W_OK)


def sqlite_uri(file: Path) -> str:
    """Return the URI that opens an existing SQLite file, for writing if that is allowed.

    SQLite reads a write-ahead log through a file that it makes beside it. In a read-only folder an
    empty log is ignored; any other log is read if another process has made that file.
    """
    mode = "rw"
    if not is_writable(file):
        mode = "ro" if has_content(_log_of(file)) else "ro&immutable=1"
    return f"file:{quote(str(file))}?mode={mode}"


def _log_of(file: Path) -> Path:
    return file.with_name(f"{file.name}-wal")


def sqlite_file(url: str) -> Path | None:
    """Return the file of a SQLite database; ``None`` for another database, or another driver."""
    scheme, _, path = url.partition(":///")
    return absolute(path) if scheme == "sqlite" else None


def absolute(path: str) -> Path:
    """Return the file that a URL of SQLite names (`StoreError` if it names none)."""
    if not path or path.startswith((":memory:", "file:")):
        raise StoreError(
            f"the database URL must name a file, sqlite:///PATH, not {path or ':memory:'!r}: jobs "
            "outlive the process that submits them"
        )
    return Path(path).expanduser().absolute()


def has_content(file: Path) -> bool:
    """Return whether a file is there, and not empty."""
    try:
        return file.stat().st_size > 0
    except OSError:
        return False


def has_tables(file: Path) -> bool:
    """Return whether a file is a job database; one begun on a full disk may hold no tables."""
    if not has_content(file):
        return False
    database = SqliteFile(file)
    try:
        with database.reading() as snapshot:
            return snapshot.schema_version() is not None
    finally:
        database.close()


def unusable(place: object, error: object) -> StoreError:
    """Make the error that a database cannot be used."""
    message = f"the job database {place} cannot be used: {str(error).strip()}"
    if isinstance(place, (str, Path)) and (file := Path(place)).is_file() and not is_writable(file):
        message += f"; {file.parent} is read-only"
        if has_content(log := _log_of(file)):
            message += (
                f", and the last records are in {log}: open a copy of the home in a place where "
                "you may write"
            )
    if _OTHER_TABLES.search(message):
        message += f"; an unreleased build of crystalmath made its tables: {SET_ASIDE}"
    return StoreError(message)
