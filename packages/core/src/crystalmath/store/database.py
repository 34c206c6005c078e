"""Open the job database, keep it safe, and migrate it to the present schema.

Alembic takes longer to import than everything else here. So the version table is read with plain
SQL, and Alembic is imported only if there is something to migrate.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine, event
from sqlalchemy.engine import URL, Connection, Engine, RootTransaction, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from crystalmath._permissions import make_own
from crystalmath._storage import file_system, is_network
from crystalmath.errors import StoreError, UnknownSchemaError
from crystalmath.store import postgresql
from crystalmath.store.plain_sql import (
    BUSY_S,
    HEAD,
    SET_ASIDE,
    DroppedError,
    LockedError,
    Snapshot,
    absolute,
    has_content,
    has_tables,
    is_writable,
    patient,
    sqlite_uri,
    unusable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOG = logging.getLogger("crystalmath.store")

_LOCK_TIMEOUT_S = 60.0
#: Wait so long for another writer, and at first so long without a warning, in milliseconds.
_BUSY_MS, _SILENT_MS = int(BUSY_S * 1000), 1000
#: By whether the file system is a network's. Readers and writers of a WAL share memory, so they
#: must be on one host. (SQLite: "WAL does not work over a network filesystem".)
_JOURNALS = {False: "WAL", True: "DELETE"}
#: Writes nothing, unless another release has migrated the tables.
_WRITE_NOTHING = "UPDATE alembic_version SET version_num = version_num WHERE version_num <> ?"
#: The low byte of a code says what it is about, the next one says more.
_KIND = 0xFF


class Database:
    """An open job database. Threads may share it; processes that fork may not.

    With `network`, other hosts may write to a SQLite file; by default its file system's kind
    decides. `place` is its name in messages: the file, or the URL without any password. `schema` is
    the schema of PostgreSQL with all tables; ``None`` for the connection's own.
    """

    def __init__(self, url: URL, *, network: bool | None = None) -> None:
        self.file = _file(url)
        self.schema: str | None = None
        self._secrets = _secrets(url)
        if self.file is None:
            url, self.schema = postgresql.split_schema(url)
        self.place = _place(url) + (f" (schema {self.schema})" if self.schema else "")
        if network is None:
            network = self.file is not None and is_network(file_system(self.file))
        self._engine = _engine(url, self.place, self.schema, network=network)
        self._reader = self._engine
        if self.file is None:
            self._reader = self._engine.execution_options(isolation_level="REPEATABLE READ")
        self._opened: tuple[int, int] | None = None
        self._closed = False
        # SQLite's writers poll for their turn; threads of one process can queue instead.
        self._turn = threading.Lock()
        # The writing connection of a SQLite file is kept: taking one from the pool costs half a
        # transaction.
        self._writer: Connection | None = None

    @contextmanager
    def reading(self) -> Iterator[Snapshot]:
        """Read one state of the database."""
        with self._translated(), self._reader.connect() as connection, connection.begin():
            if self.file is not None:
                connection.exec_driver_sql("BEGIN")
            yield Snapshot(connection)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Yield the only writing connection; commit at the end, or roll back after an error."""
        with self.alone() as connection:
            transaction, is_known = self._begin(connection)
            try:
                if self._opened is not None and not is_known:
                    # A newer release may have migrated it while it was open here.
                    _refuse_unknown(Snapshot(connection).schema_version(), self.place)
                yield connection
            except BaseException:
                transaction.rollback()
                raise
            self._commit(connection, transaction)

    @contextmanager
    def alone(self) -> Iterator[Connection]:
        """Yield the writing connection outside a transaction; other threads wait for it."""
        with self._translated(), self._turn, self._writing_connection() as connection:
            yield connection

    @contextmanager
    def _writing_connection(self) -> Iterator[Connection]:
        """Yield the connection of the last transaction, or a new one if that failed.

        The caller holds `_turn`.
        """
        connection, self._writer = self._writer or self._engine.connect(), None
        try:
            yield connection
            if self.file is not None:
                self._writer = connection
        finally:
            if self._writer is None:
                connection.close()

    def _begin(self, connection: Connection) -> tuple[RootTransaction, bool]:
        """Begin the only writing transaction; return whether the schema is certainly known."""
        is_known = False
        for again in (True, False):
            transaction = connection.begin()
            try:
                # Not as a listener of SQLAlchemy's: an engine with one checks all events at each
                # statement, which takes a fifth of its time.
                if self.file is None:
                    postgresql.take_turn(connection, self.schema)
                else:
                    is_known = _take_turn(connection, prepared=self._opened is not None)
                break
            except BaseException as error:
                transaction.rollback()
                if not (again and _is_read_only(error)):
                    raise
                # The file may be writable by now, but not by what was opened before.
                connection.invalidate()
                self._engine.pool.dispose()
        return transaction, is_known

    def _commit(self, connection: Connection, transaction: RootTransaction) -> None:
        number = connection.info.get(postgresql.TRANSACTION)
        try:
            transaction.commit()
        except BaseException as error:
            transaction.rollback()
            # The connection was lost: only the server knows whether the commit took effect.
            if number is None or not postgresql.is_dropped(error):
                raise
            if not postgresql.was_committed(self._engine, number):
                raise

    def is_replaced(self) -> bool:
        """Return whether another file stands in place of the opened SQLite file; cheap."""
        return self._opened is not None and self._opened != self._on_disk()

    def remember_file(self) -> None:
        """Remember the present SQLite file as the opened one."""
        self._opened = self._on_disk()

    def _on_disk(self) -> tuple[int, int] | None:
        try:
            status = self.file.stat() if self.file is not None else None
        except OSError:
            return None
        return None if status is None else (status.st_dev, status.st_ino)

    def close(self) -> None:
        """Close the idle connections now, and those in use as they are let go."""
        self._closed = True
        self._close_idle()

    def _close_idle(self) -> None:
        if self._turn.acquire(blocking=False):  # otherwise the writer does this afterwards
            writer, self._writer = self._writer, None
            self._turn.release()
            if writer is not None:
                writer.close()
        # The engine's own `dispose` would replace the pool; connections in use return to this one.
        self._engine.pool.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error) as error:
            message = str(error.orig if isinstance(error, DBAPIError) else error)
            leaks = any(secret in str(error) for secret in self._secrets)
            for secret in self._secrets:
                message = message.replace(secret, "***")
            raised = unusable(self.place, message)
            if self.file is None and postgresql.is_dropped(error):
                raised = DroppedError(*raised.args)
            if self.file is None and postgresql.is_locked(error):
                raised = LockedError(f"another program has locked the job database {self.place}")
            raise raised from (None if leaks else error)
        finally:
            if self._closed:
                self._close_idle()


class OpenFile:
    """A removed SQLite file, read by the store's writing connection, which still has it open.

    A new connection would make another file in its place.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextmanager
    def reading(self) -> Iterator[Snapshot]:
        """Read one state of the database."""
        with self._database.alone() as connection, connection.begin():
            connection.exec_driver_sql("BEGIN")
            yield Snapshot(connection)

    def close(self) -> None:
        """Do nothing: the store closes the file."""


def open_database(url: str, *, create: bool = True, network: bool | None = None) -> Database:
    """Open a job database; `create` it if it is missing, and migrate an older schema.

    `network` is as for `Database`. `UnknownSchemaError` is raised if this build does not know its
    schema. `StoreError` is raised if it cannot be opened; without `create` also if it is missing,
    or older than this release.
    """
    database = Database(_parse(url), network=network)
    try:
        _prepare(database, create=create)
        database.remember_file()
    except BaseException:
        database.close()
        raise
    return database


def exists(url: str) -> bool:
    """Return whether there is a job database, without making one.

    `StoreError` is raised if the URL names no usable database, or the server cannot be reached.
    """
    parsed = _parse(url)
    file = _file(parsed)
    if file is not None:
        return has_tables(file)
    database = Database(parsed)
    try:
        with database.reading() as snapshot:
            return snapshot.schema_version() is not None
    finally:
        database.close()


@patient
def _prepare(database: Database, *, create: bool) -> None:
    missing = database.file is not None and not has_content(database.file)
    version = None
    if not missing:
        with database.reading() as snapshot:
            version = snapshot.schema_version()
    if version == HEAD:
        return
    _refuse_unknown(version, database.place)
    if version is None and not create:
        raise StoreError(f"there is no job database at {database.place}; submit a job to make one")
    if not create:
        raise StoreError(
            f"the job database {database.place} has schema version {version}, and this release "
            f"reads {HEAD}; `crystalmath serve`, or the next submission, brings it forward"
        )
    with _alone(database.file):
        _migrate(database)


def _migrate(database: Database) -> None:
    with database.writing() as connection:
        if database.schema is not None:
            postgresql.make_schema(connection, database.schema)
        # Another process may have been here first.
        version = Snapshot(connection).schema_version()
        if version != HEAD:
            _refuse_unknown(version, database.place)
            _upgrade(connection)


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    scripts = Path(__file__).parent / "migrations"
    config = Config()
    # The configuration interpolates percent signs.
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, HEAD)


def _refuse_unknown(version: str | None, place: str) -> None:
    older = version is None or (version.isdecimal() and len(version) == len(HEAD))
    if not older or (version is not None and version > HEAD):
        raise UnknownSchemaError(
            f"the job database {place} has schema version {version}, which this build of "
            f"crystalmath, with schema {HEAD}, does not know. If a newer release has made it, "
            f"upgrade crystalmath. If an older unreleased build has, {SET_ASIDE}"
        )


@contextmanager
def _alone(file: Path | None) -> Iterator[None]:
    """Keep other processes out while a SQLite file is created. PostgreSQL has its own lock."""
    guard: AbstractContextManager[object] = nullcontext()
    if file is not None:
        from filelock import FileLock, Timeout

        try:
            make_own(file.parent)
            guard = FileLock(f"{file}.lock", timeout=_LOCK_TIMEOUT_S, mode=0o600).acquire()
            _touch(file)
        except Timeout as error:
            raise StoreError(
                f"another process has held {file}.lock for {_LOCK_TIMEOUT_S:.0f} s; "
                "see whether another crystalmath hangs"
            ) from error
        except OSError as error:
            raise StoreError(
                f"cannot create the job database {file}: {error.strerror or error}; set "
                "CRYSTALMATH_HOME or CRYSTALMATH_DATABASE_URL to a place where you may write"
            ) from error
    with guard:
        yield


def _touch(file: Path) -> None:
    """Create the file, readable by its owner only, and make its name durable."""
    os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
    for directory in (file.parent, file.parent.parent):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _parse(url: str) -> URL:
    parsed = None
    # SQLAlchemy's own message quotes the password.
    with suppress(SQLAlchemyError, ValueError):
        parsed = make_url(url)
    if parsed is None or parsed.get_backend_name() not in {"sqlite", "postgresql"}:
        raise StoreError(
            "the database URL (CRYSTALMATH_DATABASE_URL, or database_url in config.toml) must be "
            "sqlite:///PATH or postgresql://USER@HOST/NAME"
        )
    if parsed.get_backend_name() == "sqlite":
        # All of it is the path: a home may have a question mark in its name.
        return parsed.set(database=str(absolute(url.partition(":///")[2])), query={})
    return parsed


def _file(url: URL) -> Path | None:
    return Path(str(url.database)) if url.get_backend_name() == "sqlite" else None


def _place(url: URL) -> str:
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    # The query may hold a password too.
    return url.set(query={}).render_as_string(hide_password=True)


def _secrets(url: URL) -> tuple[str, ...]:
    named = [value for key, value in url.query.items() if "pass" in key.lower()]
    return tuple(str(secret) for secret in (url.password, *named) if secret)


def _engine(url: URL, place: str, schema: str | None, *, network: bool) -> Engine:
    is_file = url.get_backend_name() == "sqlite"
    options: dict[str, Any]
    if is_file:
        # A pool, because SQLite tidies the WAL away when the last connection closes.
        connecting: dict[str, Any] = {"check_same_thread": False, "timeout": 30.0}
        file = Path(str(url.database))

        def connect() -> sqlite3.Connection:
            is_uri = has_content(file) and not is_writable(file)
            name = sqlite_uri(file) if is_uri else file
            connection: sqlite3.Connection = sqlite3.connect(name, uri=is_uri, **connecting)
            return connection

        options = {"poolclass": QueuePool, "creator": connect}
    else:
        url = postgresql.with_driver(url)
        options = postgresql.engine_options(url)
    try:
        engine = create_engine(url, future=True, hide_parameters=True, **options)
    except (ImportError, SQLAlchemyError) as error:
        raise StoreError(
            f"no driver for the job database {place}: {error}; "
            "pip install 'crystalmath[postgresql]'"
        ) from error
    if is_file:
        # On a network file system for writers on several hosts.
        event.listen(engine, "connect", partial(_set_pragmas, journal=_JOURNALS[network]))
    else:
        postgresql.listen(engine, schema)
    return engine


# --- SQLite alone ---------------------------------------------------------------------------------


def _take_turn(connection: Connection, *, prepared: bool) -> bool:
    """Begin the only writing transaction, on a connection that has not sent a statement yet.

    `prepared` says whether the tables exist. Return whether they certainly belong to this release.
    """
    # At once: a writer that began as a reader could fail half-way.
    driver: Any = connection.connection.dbapi_connection
    driver.execute(f"PRAGMA busy_timeout = {_SILENT_MS}")
    try:
        driver.execute("BEGIN IMMEDIATE")
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & _KIND != sqlite3.SQLITE_BUSY:
            raise
        _LOG.warning("another program writes to the job database; waiting up to %d s", BUSY_S)
        driver.execute(f"PRAGMA busy_timeout = {_BUSY_MS - _SILENT_MS}")
        driver.execute("BEGIN IMMEDIATE")
    finally:
        driver.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
    # SQLite refuses a file that was opened for reading only no earlier than this statement.
    return prepared and driver.execute(_WRITE_NOTHING, (HEAD,)).rowcount == 0


def _is_read_only(error: BaseException) -> bool:
    """Return whether SQLite has opened the connection's file for reading only."""
    code = getattr(error, "sqlite_errorcode", 0)
    moved = code == sqlite3.SQLITE_READONLY_DBMOVED  # then another one would be opened
    return code & _KIND == sqlite3.SQLITE_READONLY and not moved


def _set_pragmas(connection: sqlite3.Connection, _record: object, *, journal: str) -> None:
    # The driver must not begin transactions of its own; Database does.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout = {_BUSY_MS}",
        f"journal_mode = {journal}",
        "synchronous = FULL",
        "foreign_keys = ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
