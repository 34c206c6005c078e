"""The part of the job store that is SQLite's alone."""

from __future__ import annotations

import logging
import sqlite3
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.exc import DBAPIError

from crystalmath.store.plain_sql import BUSY_S, HEAD

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

_LOG = logging.getLogger("crystalmath.store")

#: How long another writer is waited for, and how much of that in silence, in milliseconds.
_BUSY_MS, _SILENT_MS = int(BUSY_S * 1000), 1000
#: Readers and writers of a WAL share memory, which those on two hosts do not have. (SQLite's own
#: words: "WAL does not work over a network filesystem".)
_JOURNALS = {False: "WAL", True: "DELETE"}
#: Writes nothing, unless another release has migrated the tables.
_WRITE_NOTHING = "UPDATE alembic_version SET version_num = version_num WHERE version_num <> ?"
#: The low byte of a code says what it is about, the next one says more.
_KIND = 0xFF


def listen(engine: Engine, *, network: bool) -> None:
    """Prepare each connection; on a network file system for writers on several hosts."""
    event.listen(engine, "connect", partial(_set_pragmas, journal=_JOURNALS[network]))


def take_turn(connection: Connection, *, prepared: bool) -> bool:
    """Begin a transaction as the only one that writes; its connection has not reached SQLite yet.

    `prepared` says whether the tables are there. Return whether they are for sure those of this
    release.
    """
    # At once: a writer that began as a reader could fail half-way.
    driver: Any = connection.connection.dbapi_connection
    driver.execute(f"PRAGMA busy_timeout = {_SILENT_MS}")
    try:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    except DBAPIError as error:
        if getattr(error.orig, "sqlite_errorcode", 0) & _KIND != sqlite3.SQLITE_BUSY:
            raise
        _LOG.warning("another program writes to the job database; waiting up to %d s", BUSY_S)
        driver.execute(f"PRAGMA busy_timeout = {_BUSY_MS - _SILENT_MS}")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    finally:
        driver.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
    # Where the file was opened for reading only, SQLite refuses no earlier than this.
    return prepared and connection.exec_driver_sql(_WRITE_NOTHING, (HEAD,)).rowcount == 0


def is_read_only(error: BaseException) -> bool:
    """Return whether SQLite has opened the file for reading only; it stays so for a connection."""
    code = getattr(error.orig, "sqlite_errorcode", 0) if isinstance(error, DBAPIError) else 0
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
