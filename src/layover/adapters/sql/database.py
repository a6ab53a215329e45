"""Transactions on the metadata database.

A transaction is one plain function of a SQLAlchemy connection, run whole in a worker thread:
one hop a transaction, and the event loop never waits for the database. SQLite has a single
writer, so its write transactions queue for one thread instead of colliding on its lock.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import structlog
from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DatabaseError, DBAPIError, OperationalError
from sqlalchemy.pool import ConnectionPoolEntry

from layover.errors import StorageFull, StorageUnavailable

Result = TypeVar("Result")
Work = Callable[[Connection], Result]

_READERS = 4

_log = structlog.get_logger(__name__)


class Database:
    """A metadata database; `url` is SQLAlchemy's, `sqlite:///FILE` for the embedded default."""

    def __init__(self, url: str | URL) -> None:
        self._engine = create_engine(url, pool_size=_READERS, max_overflow=0)
        self._write_engine = self._engine
        self._reads = ThreadPoolExecutor(_READERS, thread_name_prefix="sql-read")
        self._writes = self._reads
        self._lookup_engine: Engine | None = None
        self._lookups: Connection | None = None
        if self._engine.dialect.name == "sqlite":
            if self._engine.url.database:
                # SQLite would make it readable for everybody, and keys are in it; what it
                # makes beside it is as readable as this.
                os.close(os.open(self._engine.url.database, os.O_CREAT | os.O_RDWR, 0o600))
            self._write_engine = create_engine(url, pool_size=1, max_overflow=0)
            self._writes = ThreadPoolExecutor(1, thread_name_prefix="sql-write")
            _prepare_sqlite(self._engine, begin="BEGIN")
            # IMMEDIATE takes the write lock at once: a transaction that reads first never
            # fails half-way because another process wrote in between.
            _prepare_sqlite(self._write_engine, begin="BEGIN IMMEDIATE")
            # No BEGIN: a transaction left open would see an old state of the database for ever.
            self._lookup_engine = create_engine(url, pool_size=1, max_overflow=0)
            _prepare_sqlite(self._lookup_engine, begin=None)

    @property
    def engine(self) -> Engine:
        """The engine that writes; for migrations."""
        return self._write_engine

    async def read(self, work: Work[Result]) -> Result:
        """Run `work` in a transaction that only reads.

        Raises StorageUnavailable when the database does not answer.
        """
        return await _in_thread(self._reads, lambda: _transact(self._engine, work))

    async def look_up(self, work: Work[Result]) -> Result:
        """Run `work`, one query of a few rows by their key, where that costs least.

        Raises StorageUnavailable when the database does not answer.
        """
        if self._lookup_engine is None:
            return await self.read(work)
        # On SQLite right here: the query takes a tenth of what the way to a thread and back
        # takes, for its own sake and because threads wait for the interpreter's lock.
        with _translated():
            if self._lookups is None:
                self._lookups = self._lookup_engine.connect()
            return work(self._lookups)

    async def write(self, work: Work[Result]) -> Result:
        """Run `work` in a transaction and commit it durably; an exception rolls it back.

        Raises StorageFull or StorageUnavailable, with nothing kept.
        """
        return await _in_thread(self._writes, lambda: _transact(self._write_engine, work))

    async def ping(self) -> None:
        """Raise StorageUnavailable unless the database answers."""
        await self.read(lambda connection: connection.execute(text("SELECT 1")).scalar())

    def close(self) -> None:
        """Wait for what runs and close every connection."""
        for executor in {self._reads, self._writes}:
            executor.shutdown()
        if self._lookups is not None:
            self._lookups.close()
        for engine in {self._engine, self._write_engine, self._lookup_engine}:
            if engine is not None:
                engine.dispose()


def insert_or_ignore(connection: Connection, table: Table, **values: object) -> None:
    """Insert a row unless there is one with the same key; alike on every database we know."""
    insert_or_ignore_all(connection, table, [values])


def insert_or_ignore_all(
    connection: Connection, table: Table, rows: Sequence[dict[str, object]]
) -> None:
    """Insert those of `rows` whose keys are new, in one go."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    if rows:
        connection.execute(dialect.insert(table).on_conflict_do_nothing(), rows)


async def _in_thread(executor: ThreadPoolExecutor, call: Callable[[], Result]) -> Result:
    # A caller that is canceled leaves a transaction that has begun to run to its end.
    return await asyncio.get_running_loop().run_in_executor(executor, call)


def _transact(engine: Engine, work: Work[Result]) -> Result:
    with _translated(), engine.begin() as connection:
        return work(connection)


@contextmanager
def _translated() -> Iterator[None]:
    """Turn the driver's exceptions about the medium into ours."""
    try:
        yield
    except DBAPIError as error:
        if not _is_of_the_medium(error):
            raise
        if _is_full(error):
            raise StorageFull from error
        _log.error("database_failed", error=str(error.orig))
        raise StorageUnavailable from error


def _is_of_the_medium(error: DBAPIError) -> bool:
    """Whether the database failed; a statement that it refused is a bug of ours."""
    # A damaged file is a plain DatabaseError, the class above all the others.
    return isinstance(error, OperationalError) or type(error) is DatabaseError


def _is_full(error: DBAPIError) -> bool:
    # SQLite's own code for a write that found no room ("Result and Error Codes").
    code = getattr(error.orig, "sqlite_errorcode", None)
    return code == sqlite3.SQLITE_FULL


def _prepare_sqlite(engine: Engine, begin: str | None) -> None:
    @event.listens_for(engine, "connect")
    def connect(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
        assert isinstance(connection, sqlite3.Connection)
        # The driver's own BEGIN comes too late and never for reads; ours is below.
        connection.isolation_level = None
        for pragma in (
            "journal_mode=WAL",
            # What was acknowledged survives a power cut, not only a crash of the process.
            "synchronous=FULL",
            "foreign_keys=ON",
            "busy_timeout=10000",
        ):
            connection.execute(f"PRAGMA {pragma}")

    if begin is not None:

        @event.listens_for(engine, "begin")
        def start(connection: Connection) -> None:
            connection.exec_driver_sql(begin)
