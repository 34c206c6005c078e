"""The job store on PostgreSQL: a schema for each home, and connections that may drop."""

from __future__ import annotations

import re
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateSchema

from crystalmath.errors import StoreError
from crystalmath.store.plain_sql import LOCK_S, PAUSE_S, TIMEOUT_S

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Connection, Engine

# The number is arbitrary, so that other programs in the same database are unlikely to use it. A
# schema that does not exist yet is not the current one.
_BEGIN = (
    "SELECT pg_advisory_xact_lock(1668446579, hashtext(coalesce(current_schema(), %s))), "
    "txid_current()"
)
#: The key in a writing connection's `info` for the server's number of its transaction.
TRANSACTION = "crystalmath_transaction"
#: After this time the server ends a writer that hangs with the lock, in milliseconds.
_IDLE_MS = "60000"
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_DRIVERS = ("psycopg2", "psycopg")
#: Timeouts of connecting, and for noticing that the server has vanished, in seconds.
_CONNECT = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}


def split_schema(url: URL) -> tuple[URL, str | None]:
    """Split ``?schema=NAME`` off a URL, as no driver knows it."""
    named = url.query.get("schema")
    if named is None:
        return url, None
    if not isinstance(named, str) or not _NAME.fullmatch(named):
        raise StoreError(
            "the schema in the database URL (CRYSTALMATH_DATABASE_URL, or database_url in "
            f"config.toml) must be one name of a-z, 0-9 and _, not {named!r}"
        )
    return url.difference_update_query(["schema"]), named


def with_driver(url: URL) -> URL:
    """Add the installed driver's name to a URL that names none."""
    if url.drivername != "postgresql":
        return url
    for driver in _DRIVERS:
        if find_spec(driver) is not None:
            return url.set(drivername=f"postgresql+{driver}")
    return url


def engine_options(url: URL) -> dict[str, Any]:
    """Return the options for SQLAlchemy's `create_engine`."""
    ours = url.get_driver_name() in _DRIVERS
    return {
        "pool_pre_ping": True,
        "isolation_level": "READ COMMITTED",
        "connect_args": {k: v for k, v in _CONNECT.items() if k not in url.query} if ours else {},
    }


def listen(engine: Engine, schema: str | None) -> None:
    """Set the schema of each connection."""

    def use(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        for name, value in (
            *([("search_path", schema)] if schema else []),
            ("idle_in_transaction_session_timeout", _IDLE_MS),
            ("lock_timeout", f"{LOCK_S:g}s"),
        ):
            cursor.execute("SELECT set_config(%s, %s, false)", (name, value))
        cursor.close()
        connection.commit()

    # First: SQLAlchemy asks each engine's first connection for its schema.
    event.listen(engine, "connect", use, insert=True)


def take_turn(connection: Connection, schema: str | None) -> None:
    """Wait until no other process writes to a schema, for the transaction that has just begun.

    One writer at a time, as with SQLite: otherwise a follower could miss events, as they would
    appear out of order.
    """
    begun = connection.exec_driver_sql(_BEGIN, (schema or "public",))
    connection.info[TRANSACTION] = int(begun.one()[1])


def make_schema(connection: Connection, schema: str) -> None:
    """Make a schema unless it exists."""
    existing = connection.exec_driver_sql("SELECT to_regnamespace(%s)", (schema,)).scalar()
    if existing is None:
        connection.execute(CreateSchema(schema))


def is_dropped(error: BaseException) -> bool:
    """Return whether an error means that the server has gone, or is going or coming."""
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    # Without a code: no connection could be made. 57P: it shuts down, or starts; 08: no connection.
    known = _code(error)
    operational = type(error.orig).__name__ == "OperationalError"
    return (known is None and operational) or str(known).startswith(("57P", "08"))


def is_locked(error: BaseException) -> bool:
    """Return whether an error means that another process has held a lock for too long."""
    return isinstance(error, DBAPIError) and _code(error) == "55P03"


def _code(error: DBAPIError) -> str | None:
    code: str | None = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
    return code


def was_committed(engine: Engine, number: int) -> bool:
    """Return whether the transaction of this number, whose commit was not answered, took effect.

    It waits until the server is there. `StoreError` is raised if the server does not come back, or
    has forgotten the transaction.
    """
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        state: object = None
        try:
            with engine.connect() as connection:
                status = connection.exec_driver_sql("SELECT txid_status(%s)", (number,))
                state = status.scalar()
        except DBAPIError as error:
            if not is_dropped(error):
                raise
        if state in {"committed", "aborted"}:
            return state == "committed"
        if time.monotonic() >= deadline:
            raise StoreError(
                "the database server went away during a commit, and has not reported its outcome "
                f"for {TIMEOUT_S:.0f} s; list the jobs to see what is on record"
            )
        time.sleep(PAUSE_S)
