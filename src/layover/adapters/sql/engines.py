"""How each database is connected to: isolation, durability, and how many connections.

SQLite has a single writer, so one connection writes, behind it a thread of its own.
"""

import os
import sqlite3
from dataclasses import dataclass

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry

_SQLITE_READERS = 4

# SQLite has 2,000 by default. Of a million blobs, the 200 that a step of the collector removes lie
# on as many pages in each of several indexes: what does not fit is written twice.
_SQLITE_CACHE_KIB = 2_000
_SQLITE_WRITER_CACHE_KIB = 16_384

# Some milliseconds' worth: what a look-up by key takes a hundred times.
_LOOKUP_STEPS = 50_000


class InvalidDatabaseUrl(ValueError):
    """The URL is none. What it holds is not repeated: a password may be in it."""


@dataclass(frozen=True, slots=True)
class Engines:
    """The connections to one database, by what they are for, and how many threads use each."""

    # Transactions that see one state of the database from their first query to their last.
    reads: Engine
    readers: int
    # Transactions that have happened one after the other.
    writes: Engine
    writers: int
    # Single queries, each of the latest state.
    lookups: Engine
    # Whether a look-up is too quick to be worth a thread.
    looks_up_inline: bool

    def dispose(self) -> None:
        """Close every connection that nobody uses."""
        for engine in (self.reads, self.writes, self.lookups):
            engine.dispose()


def connect(url: str | URL) -> Engines:
    """Prepare the connections; none is made. `url` is `postgresql://...` or `sqlite:///FILE`.

    Raises InvalidDatabaseUrl.
    """
    if isinstance(url, str) and url.startswith(("postgresql://", "postgres://")):
        # Its driver takes time to load, and most servers have SQLite.
        from layover.adapters.sql.postgresql import postgresql

        return postgresql(url)
    return _sqlite(make_url(url))


def _sqlite(url: URL) -> Engines:
    if url.database:
        # SQLite would make it readable for everybody, and keys are in it; what it makes beside
        # it is as readable as this.
        os.close(os.open(url.database, os.O_CREAT | os.O_RDWR, 0o600))
    return Engines(
        reads=_sqlite_engine(url, _SQLITE_READERS, begin="BEGIN"),
        readers=_SQLITE_READERS,
        # IMMEDIATE takes the write lock at once: a transaction that reads first never fails
        # half-way because another process wrote in between.
        writes=_sqlite_engine(url, 1, begin="BEGIN IMMEDIATE", cache_kib=_SQLITE_WRITER_CACHE_KIB),
        writers=1,
        # No BEGIN: a transaction left open would see an old state of the database for ever.
        lookups=_sqlite_engine(url, 1, begin=None),
        looks_up_inline=True,
    )


def bound_lookups(connection: Connection) -> None:
    """Let SQLite break off what reads many rows on this connection; see is_interrupted.

    SQLite counts a statement's steps over all of its runs, so that now and then it breaks off one
    that reads few; done again it is none the worse.
    """
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    driver.set_progress_handler(lambda: 1, _LOOKUP_STEPS)


def is_interrupted(error: DBAPIError) -> bool:
    """Whether a statement was broken off for reading too much."""
    return (
        isinstance(error.orig, sqlite3.OperationalError)
        and error.orig.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT
    )


def _sqlite_engine(
    url: URL, connections: int, begin: str | None, cache_kib: int = _SQLITE_CACHE_KIB
) -> Engine:
    engine = create_engine(url, pool_size=connections, max_overflow=0, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def prepare(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
        assert isinstance(connection, sqlite3.Connection)
        # The driver's own BEGIN comes too late and never for reads; ours is below.
        connection.isolation_level = None
        for pragma in (
            "journal_mode=WAL",
            # What was acknowledged survives a power cut, not only a crash of the process.
            "synchronous=FULL",
            "foreign_keys=ON",
            "busy_timeout=10000",
            # Negative: in KiB and not in pages.
            f"cache_size=-{cache_kib}",
        ):
            connection.execute(f"PRAGMA {pragma}")

    if begin is not None:

        @event.listens_for(engine, "begin")
        def start(connection: Connection) -> None:
            connection.exec_driver_sql(begin)

    return engine
