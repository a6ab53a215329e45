import asyncio
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from layover.adapters.sql.database import Database
from layover.adapters.sql.migrate import migrate
from layover.errors import StorageFull, StorageUnavailable

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'test.db'}"
    postgres: str = request.getfixturevalue("empty_postgres_url")
    return postgres


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    with opened(url) as database:
        yield database


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Database]:
    with opened(f"sqlite:///{tmp_path / 'test.db'}") as database:
        yield database


@contextmanager
def opened(url: str) -> Iterator[Database]:
    database = Database(url)
    blob = "BLOB" if url.startswith("sqlite") else "BYTEA"
    with database.engine.begin() as connection:
        connection.execute(text(f"CREATE TABLE numbers (n INTEGER PRIMARY KEY, filler {blob})"))
    yield database
    database.close()


async def count(database: Database) -> int:
    return await database.read(
        lambda connection: int(
            connection.execute(text("SELECT count(*) FROM numbers")).scalar_one()
        )
    )


def insert(connection: Connection, number: int) -> None:
    connection.execute(text("INSERT INTO numbers (n) VALUES (:n)"), {"n": number})


async def test_an_exception_rolls_all_of_a_transaction_back(database: Database) -> None:
    def work(connection: Connection) -> None:
        insert(connection, 1)
        insert(connection, 2)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await database.write(work)
    assert await count(database) == 0


async def test_a_transaction_reads_one_state_however_long_it_takes(database: Database) -> None:
    loop = asyncio.get_running_loop()

    def work(connection: Connection) -> list[int]:
        query = text("SELECT count(*) FROM numbers")
        before = connection.execute(query).scalar_one()
        asyncio.run_coroutine_threadsafe(
            database.write(lambda connection: insert(connection, 1)), loop
        ).result()
        return [before, connection.execute(query).scalar_one()]

    assert await database.read(work) == [0, 0]
    assert await count(database) == 1


async def test_writers_of_two_processes_that_read_first_both_succeed(
    database: Database, url: str
) -> None:
    # With a plain BEGIN one of them would fail: its snapshot is older than the other's write.
    # Where many of them meet they lock a table that every database has which a server uses.
    migrate(database.engine)
    other = Database(url)

    def work(connection: Connection) -> None:
        highest = connection.execute(text("SELECT coalesce(max(n), 0) FROM numbers")).scalar_one()
        insert(connection, highest + 1)

    await asyncio.gather(*(writer.write(work) for writer in (database, other) for _ in range(20)))
    assert await count(other) == 40
    other.close()


async def look_up_count(database: Database) -> int:
    return await database.look_up(
        lambda connection: int(
            connection.execute(text("SELECT count(*) FROM numbers")).scalar_one()
        )
    )


async def test_a_look_up_sees_what_was_just_committed_here_and_by_another_process(
    database: Database, url: str
) -> None:
    other = Database(url)
    for number in range(1, 6):
        # Invariant 6: a look-up that kept its transaction would see the first state for ever.
        writer = database if number % 2 else other
        await writer.write(partial(insert, number=number))
        assert await look_up_count(database) == number
        assert await look_up_count(other) == number
    other.close()


async def test_a_ping_waits_for_no_look_up(database: Database) -> None:
    await look_up_count(database)
    async with asyncio.timeout(2):
        await database.ping()


async def test_a_look_up_goes_on_after_one_that_failed(sqlite: Database) -> None:
    with pytest.raises(ProgrammingError):
        await sqlite.look_up(lambda connection: connection.execute(text("SELECT 1; SELECT 2")))
    assert await look_up_count(sqlite) == 0


async def test_a_look_up_leaves_no_reader_behind(sqlite: Database, tmp_path: Path) -> None:
    assert await look_up_count(sqlite) == 0
    await sqlite.write(lambda connection: insert(connection, 1))
    with closing(sqlite3.connect(tmp_path / "test.db", isolation_level=None)) as other:
        # A checkpoint that truncates needs every reader gone.
        busy, *_ = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert busy == 0


async def test_a_caller_that_is_canceled_leaves_its_transaction_whole(sqlite: Database) -> None:
    begun, may_go_on = threading.Event(), threading.Event()

    def work(connection: Connection) -> None:
        insert(connection, 1)
        begun.set()
        may_go_on.wait()
        insert(connection, 2)

    task = asyncio.create_task(sqlite.write(work))
    await asyncio.to_thread(begun.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    may_go_on.set()
    # The one writer has come to the next transaction, so it is through with that one.
    await sqlite.write(lambda connection: insert(connection, 3))
    assert await count(sqlite) == 3


async def test_what_is_acknowledged_is_on_the_disk(sqlite: Database) -> None:
    def pragmas(connection: Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return [connection.execute(text(f"PRAGMA {name}")).scalar() for name in names]

    # 2 is FULL: the log is flushed at each commit.
    assert await sqlite.write(pragmas) == ["wal", 2, 1]
    assert await sqlite.read(pragmas) == ["wal", 2, 1]


async def test_a_database_without_room_is_full_and_works_again_when_there_is(
    sqlite: Database,
) -> None:
    def limit(connection: Connection, pages: int) -> None:
        connection.execute(text(f"PRAGMA max_page_count={pages}"))

    def fill(connection: Connection) -> None:
        connection.execute(text("INSERT INTO numbers (filler) VALUES (zeroblob(1000000))"))

    await sqlite.write(lambda connection: limit(connection, 20))
    with pytest.raises(StorageFull):
        await sqlite.write(fill)
    assert await count(sqlite) == 0
    await sqlite.write(lambda connection: limit(connection, 2**30))
    await sqlite.write(fill)
    assert await count(sqlite) == 1


async def test_a_database_that_stays_locked_is_unavailable(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'test.db'}")
    await database.ping()
    await database.write(lambda connection: connection.execute(text("PRAGMA busy_timeout=1")))
    with sqlite3.connect(tmp_path / "test.db", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageUnavailable):
            await database.write(lambda connection: None)
        other.execute("ROLLBACK")
    other.close()
    await database.write(lambda connection: None)
    database.close()


async def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "test.db").write_bytes(b"no database at all" * 1000)
    database = Database(f"sqlite:///{tmp_path / 'test.db'}")
    with pytest.raises(StorageUnavailable):
        await database.ping()
    database.close()


async def test_a_statement_that_the_database_refuses_is_a_bug_of_ours(sqlite: Database) -> None:
    await sqlite.write(lambda connection: insert(connection, 1))
    with pytest.raises(IntegrityError):
        await sqlite.write(lambda connection: insert(connection, 1))
    with pytest.raises(ProgrammingError):
        await sqlite.read(lambda connection: connection.execute(text("SELECT 1; SELECT 2")))


async def test_the_database_is_its_owners_alone(sqlite: Database, tmp_path: Path) -> None:
    await sqlite.write(lambda connection: insert(connection, 1))
    names = ("test.db", "test.db-wal", "test.db-shm")
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in names] == [0o600] * 3


async def test_a_look_up_that_is_none_holds_up_nobody(database: Database) -> None:
    threads: list[int] = []

    def look_at(rows: int) -> Callable[[Connection], int]:
        counted = text(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :rows)"
            " SELECT count(*) FROM n"
        )

        def work(connection: Connection) -> int:
            threads.append(threading.get_ident())
            return int(connection.execute(counted, {"rows": rows}).scalar_one())

        return work

    assert await database.look_up(look_at(300_000)) == 300_000
    assert threads[-1] != threading.get_ident()
    # And what is one is as it was, however often it is asked, broken off now and then.
    for _ in range(3_000):
        assert await database.look_up(look_at(10)) == 10
    on_loop = threads.count(threading.get_ident())
    assert on_loop > 2_900 or not database._engines.looks_up_inline
