"""Transactions on the metadata database.

A transaction is one plain function of a SQLAlchemy connection, run whole in a worker thread:
one hop a transaction, and the event loop never waits for the database. It may be run more than
once, on PostgreSQL, so it changes nothing but the database: transactions there happen as if one
after the other (SERIALIZABLE), and one that met another is done again.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn, TypeVar

import structlog
from sqlalchemy import URL, Connection, Engine, RootTransaction, Table, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError

from layover.adapters.sql.engines import bound_lookups, connect, is_interrupted
from layover.adapters.sql.failures import Failure, failure_of
from layover.errors import StorageFull, StorageUnavailable

Result = TypeVar("Result")
Work = Callable[[Connection], Result]

# How long a transaction is done again, from when it was asked for, by why it failed.
_PATIENCE_SECONDS = {
    Failure.CONFLICT: 30.0,
    # As long as a restart of PostgreSQL takes. Whoever asks waits as long for an answer.
    Failure.LOST: 10.0,
}
_FIRST_PAUSE_SECONDS = 0.01
_LONGEST_PAUSE_SECONDS = 1.0

# More often than that a row that is there already is this transaction's own bug.
_MAX_DUPLICATES = 3

# What transactions lock to take turns; any table would do that nobody else locks.
_TURN_TABLE = "alembic_version"

# One that met others works alone. The others let it, for so long after any of their own met:
# a database whose transactions do not meet is asked for no lock at all.
_ALONE, _BESIDE_OTHERS = "EXCLUSIVE", "ROW SHARE"
_WARY_SECONDS = 10.0

# A database that does not answer for so long is not there.
_PING_SECONDS = 5

_log = structlog.get_logger(__name__)


class Database:
    """A metadata database; `url` is `sqlite:///FILE`, or `postgresql://...` as libpq reads it."""

    def __init__(self, url: str | URL) -> None:
        """Nothing is connected yet. Raises InvalidDatabaseUrl."""
        self._engines = connect(url)
        self._reads = ThreadPoolExecutor(self._engines.readers, thread_name_prefix="sql-read")
        self._writes = ThreadPoolExecutor(self._engines.writers, thread_name_prefix="sql-write")
        self._lookups: Connection | None = None
        self._turn = asyncio.Lock()
        # When a transaction last met others, by the machine's clock that nobody sets.
        self._met_at = -_WARY_SECONDS
        self._refusal: str | None = None
        # Whether the last attempt found no connection.
        self._is_lost = False

    @property
    def engine(self) -> Engine:
        """The engine that writes; for migrations."""
        return self._engines.writes

    async def read(self, work: Work[Result]) -> Result:
        """Run `work` in a transaction that only reads, all of it one state of the database.

        Raises StorageUnavailable when the database does not answer.
        """
        return await self._repeat(self._reads, self._engines.reads, work)

    async def look_up(self, work: Work[Result]) -> Result:
        """Run `work`, one query of a few rows by their key, where that costs least.

        Raises StorageUnavailable when the database does not answer.
        """
        if not self._engines.looks_up_inline:
            return await self._repeat(self._reads, self._engines.lookups, work)
        # On SQLite right here: the query takes a tenth of what the way to a thread and back
        # takes, for its own sake and because threads wait for the interpreter's lock.
        self._check()
        try:
            if self._lookups is None:
                self._lookups = self._engines.lookups.connect()
                bound_lookups(self._lookups)
            return work(self._lookups)
        except DBAPIError as error:
            if is_interrupted(error):
                # Not few rows after all: read where it holds up nobody.
                return await self._repeat(self._reads, self._engines.reads, work)
            _fail(error)

    async def write(self, work: Work[Result]) -> Result:
        """Run `work` in a transaction and commit it durably; an exception rolls it back.

        Raises StorageFull or StorageUnavailable, with nothing kept; but when the connection was
        lost during the commit, nobody knows, and it is StorageUnavailable too.
        """
        return await self._repeat(self._writes, self._engines.writes, work)

    async def ping(self) -> None:
        """Raise StorageUnavailable unless the database answers, soon."""
        self._check()
        await self.probe(lambda connection: connection.execute(text("SELECT 1")))

    async def probe(self, work: Work[Result]) -> Result:
        """Run a query or two at once or not at all, also while everything else is refused.

        Raises StorageUnavailable when the database does not answer soon.
        """
        # Where queries are looked up inline, their only connection is never given back.
        engines = self._engines
        engine = engines.reads if engines.looks_up_inline else engines.lookups
        try:
            async with asyncio.timeout(_PING_SECONDS):
                return await _in_thread(self._reads, lambda: _attempt(engine, work))
        except TimeoutError:
            raise StorageUnavailable("the database does not answer") from None
        except DBAPIError as error:
            _fail(error)

    def refuse(self, reason: str | None) -> None:
        """From now on raise StorageUnavailable with this reason, until it is None."""
        self._refusal = reason

    def close(self) -> None:
        """Wait for what runs and close every connection."""
        for executor in (self._reads, self._writes):
            executor.shutdown()
        if self._lookups is not None:
            self._lookups.close()
        self._engines.dispose()

    def _check(self) -> None:
        if self._refusal is not None:
            raise StorageUnavailable(self._refusal)

    async def _repeat(
        self, executor: ThreadPoolExecutor, engine: Engine, work: Work[Result]
    ) -> Result:
        """Run `work` again and again until it went through, or its failure is not to be mended."""
        asked_at = time.monotonic()
        pause = _FIRST_PAUSE_SECONDS
        duplicates = 0
        lock: str | None = None
        if engine is self._engines.writes and asked_at - self._met_at < _WARY_SECONDS:
            lock = _BESIDE_OTHERS

        def attempt() -> Result:
            if self._is_lost and time.monotonic() - asked_at > _PATIENCE_SECONDS[Failure.LOST]:
                # It waited for a thread behind others that waited for a connection in vain.
                raise StorageUnavailable
            result = _attempt(engine, work, lock)
            if self._is_lost:
                _log.warning("database_found_again")
            self._is_lost = False
            return result

        async with contextlib.AsyncExitStack() as stack:
            while True:
                self._check()
                try:
                    # A caller that is canceled leaves a transaction that has begun to run to its
                    # end.
                    return await _in_thread(executor, attempt)
                except DBAPIError as error:
                    failure = failure_of(error)
                    if failure is Failure.LOST and not self._is_lost:
                        _log.warning("database_lost", error=str(error.orig))
                    self._is_lost = failure is Failure.LOST
                    duplicates += failure is Failure.DUPLICATE
                    waited = time.monotonic() - asked_at
                    if failure is Failure.DUPLICATE:
                        is_worth_it = duplicates < _MAX_DUPLICATES
                    else:
                        is_worth_it = waited < _PATIENCE_SECONDS.get(failure, 0)
                    if not is_worth_it:
                        _fail(error)
                if failure is Failure.LOST:
                    await asyncio.sleep(random.uniform(0, pause))  # noqa: S311  # no secret
                    pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
                    continue
                if engine is self._engines.writes:
                    self._met_at = time.monotonic()
                    if lock == _ALONE:
                        continue
                    # Those who met take turns. Of many that want the same row one comes through
                    # at a time, and had they all tried again at once, the others would each time
                    # have worked in vain; nor would one that takes long ever come through.
                    await stack.enter_async_context(self._turn)
                    lock = _ALONE


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


def upsert_all(connection: Connection, table: Table, rows: Sequence[dict[str, object]]) -> None:
    """Insert `rows`, which have different keys, replacing those that are there."""
    if not rows:
        return
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(table)
    keys = table.primary_key.columns.keys()
    others = {name: statement.excluded[name] for name in rows[0] if name not in keys}
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=others), rows)


async def _in_thread(executor: ThreadPoolExecutor, call: Callable[[], Result]) -> Result:
    return await asyncio.get_running_loop().run_in_executor(executor, call)


def _attempt(engine: Engine, work: Work[Result], lock: str | None = None) -> Result:
    with engine.connect() as connection:
        transaction = connection.begin() if lock is None else _begin_locked(connection, lock)
        try:
            result = work(connection)
        except BaseException:
            transaction.rollback()
            raise
        try:
            transaction.commit()
        except DBAPIError as error:
            if failure_of(error) is Failure.LOST:
                # It may have been committed or not. Done again it could answer wrongly, as a
                # deletion that finds nothing would.
                _log.error("commit_outcome_unknown", error=str(error.orig))
                raise StorageUnavailable from error
            raise
        return result


def _begin_locked(connection: Connection, mode: str) -> RootTransaction:
    """Begin a transaction with a lock that it holds to its end ("Explicit Locking")."""
    transaction = connection.begin()
    try:
        # First of all: only behind it is settled what the transaction sees, so that it sees what
        # those have done whom it waited for.
        connection.exec_driver_sql(f"LOCK TABLE {_TURN_TABLE} IN {mode} MODE")
    except DBAPIError as error:
        transaction.rollback()
        if failure_of(error) is not Failure.CONFLICT:
            raise
        # Whose turn it is was suspended: nobody waits for longer than a lock may take.
        return connection.begin()
    return transaction


def _fail(error: DBAPIError) -> NoReturn:
    """Raise the exception that callers know for the driver's; itself where it is a bug of ours."""
    failure = failure_of(error)
    if failure in (Failure.BUG, Failure.DUPLICATE):
        raise error
    if failure is Failure.FULL:
        raise StorageFull from error
    _log.error("database_failed", error=str(error.orig))
    raise StorageUnavailable from error
