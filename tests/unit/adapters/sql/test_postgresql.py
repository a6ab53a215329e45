"""What is PostgreSQL's own: transactions that meet, a server that goes away and comes back."""

import asyncio
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from layover.adapters.sql import database as database_module
from layover.adapters.sql import postgresql as postgresql_module
from layover.adapters.sql.database import Database
from layover.adapters.sql.engines import InvalidDatabaseUrl
from layover.adapters.sql.failures import Failure
from layover.errors import StorageFull, StorageUnavailable
from tests.postgres import GUARDED_USER, Postgres

pytestmark = pytest.mark.anyio


@contextmanager
def opened(url: str) -> Iterator[Database]:
    database = Database(url)
    try:
        with database.engine.begin() as connection:
            connection.execute(text("CREATE TABLE numbers (n INTEGER PRIMARY KEY, filler BYTEA)"))
            connection.execute(text(f"CREATE TABLE {database_module._TURN_TABLE} (n INTEGER)"))
        yield database
    finally:
        database.close()


@pytest.fixture
def database(empty_postgres_url: str) -> Iterator[Database]:
    with opened(empty_postgres_url) as database:
        yield database


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[Postgres]:
    """A server that may be crashed; the shared one may not."""
    postgres = Postgres()
    yield postgres
    postgres.remove()


@pytest.fixture
def crashable(own_postgres: Postgres) -> Iterator[Database]:
    name = own_postgres.create()
    with opened(own_postgres.url(name)) as database:
        yield database


def insert(connection: Connection, *numbers: int) -> None:
    for number in numbers:
        connection.execute(text("INSERT INTO numbers (n) VALUES (:n)"), {"n": number})


def numbers(connection: Connection) -> list[int]:
    return list(connection.scalars(text("SELECT n FROM numbers ORDER BY n")))


def turns(connection: Connection) -> list[str]:
    """The locks that transactions hold or wait for to take turns."""
    held = "SELECT mode FROM pg_locks WHERE relation = CAST(:name AS regclass)"
    return list(connection.scalars(text(held), {"name": database_module._TURN_TABLE}))


def wait_for_others(url: str) -> None:
    """Wait until a transaction waits for its turn."""
    query = "SELECT 1 FROM pg_locks WHERE relation = %s::regclass AND NOT granted"
    with psycopg.connect(url, autocommit=True) as looking:
        while not looking.execute(query, [database_module._TURN_TABLE]).fetchall():
            time.sleep(0.01)


# --- transactions that meet -----------------------------------------------------------------


async def test_transactions_happen_as_if_one_after_the_other(database: Database) -> None:
    await database.write(lambda connection: insert(connection, 1, 2))
    # Each sees that the other's number is there and deletes its own: one of them has to see less.
    met = threading.Barrier(2)
    runs: list[int] = []

    def leave_one(connection: Connection, number: int) -> None:
        runs.append(number)
        if len(numbers(connection)) == 2:
            if len(runs) <= 2:
                met.wait(10)
            connection.execute(text("DELETE FROM numbers WHERE n = :n"), {"n": number})

    await asyncio.gather(
        database.write(lambda connection: leave_one(connection, 1)),
        database.write(lambda connection: leave_one(connection, 2)),
    )
    assert len(await database.read(numbers)) == 1
    assert len(runs) > 2


async def test_transactions_that_lock_each_other_out_both_come_through(database: Database) -> None:
    await database.write(lambda connection: insert(connection, 1, 2))
    met = threading.Barrier(2)
    runs: list[int] = []

    def lock(connection: Connection, first: int, second: int) -> None:
        runs.append(first)
        update = text("UPDATE numbers SET filler = 'x' WHERE n = :n")
        connection.execute(update, {"n": first})
        if len(runs) <= 2:
            met.wait(10)
        connection.execute(update, {"n": second})

    await asyncio.gather(
        database.write(lambda connection: lock(connection, 1, 2)),
        database.write(lambda connection: lock(connection, 2, 1)),
    )
    assert len(runs) > 2


async def test_many_that_want_the_same_row_take_turns_and_do_little_in_vain(
    database: Database, empty_postgres_url: str
) -> None:
    await database.write(lambda connection: insert(connection, 0))
    other = Database(empty_postgres_url)
    runs: list[int] = []

    def increase(connection: Connection) -> None:
        runs.append(1)
        (number,) = numbers(connection)
        connection.execute(text("UPDATE numbers SET n = :n"), {"n": number + 1})

    await asyncio.gather(
        *(server.write(increase) for server in (database, other) for _ in range(60))
    )
    assert await database.read(numbers) == [120]
    # All at once again and again, they would have been thousands.
    assert len(runs) < 4 * 120
    # Whoever's turn it was has given it back.
    assert await other.look_up(turns) == []
    other.close()


async def test_one_that_takes_long_comes_through_however_many_others_there_are(
    database: Database, empty_postgres_url: str
) -> None:
    await database.write(lambda connection: insert(connection, 0))
    loop = asyncio.get_running_loop()
    runs: list[int] = []
    others: list[Future[None]] = []

    def increase(connection: Connection, by: int = 1) -> None:
        (number,) = numbers(connection)
        connection.execute(text("UPDATE numbers SET n = :n"), {"n": number + by})

    def long(connection: Connection) -> None:
        runs.append(1)
        numbers(connection)
        others.extend(
            asyncio.run_coroutine_threadsafe(database.write(increase), loop) for _ in range(3)
        )
        if len(runs) == 1:
            # They come in between, and what it has read is no more.
            wait(others)
        else:
            wait_for_others(empty_postgres_url)
        increase(connection, 100)

    await database.write(long)
    for one in others:
        await asyncio.wrap_future(one)
    assert len(runs) == 2
    assert await database.read(numbers) == [106]
    assert await database.look_up(turns) == []


async def test_a_turn_ends_with_a_transaction_that_fails(database: Database) -> None:
    runs: list[int] = []

    def fail(connection: Connection) -> None:
        runs.append(1)
        if len(runs) == 1:
            connection.execute(text("DO $$ BEGIN RAISE serialization_failure; END $$"))
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await database.write(fail)
    assert len(runs) == 2
    assert await database.look_up(turns) == []


async def test_a_turn_that_does_not_end_is_not_waited_for_for_ever(
    empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql_module, "_SESSION", ("SET lock_timeout = '200ms'",))
    runs: list[int] = []

    def work(connection: Connection) -> None:
        runs.append(1)
        if len(runs) == 1:
            connection.execute(text("DO $$ BEGIN RAISE serialization_failure; END $$"))
        insert(connection, len(runs))

    with opened(empty_postgres_url) as database, psycopg.connect(empty_postgres_url) as suspended:
        suspended.execute(f"LOCK TABLE {database_module._TURN_TABLE} IN EXCLUSIVE MODE")
        await database.write(work)
        assert await database.read(numbers) == [2]


async def test_a_conflict_that_does_not_end_is_given_up_on(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(database_module._PATIENCE_SECONDS, Failure.CONFLICT, 0.2)
    raising = "DO $$ BEGIN RAISE serialization_failure; END $$"
    with pytest.raises(StorageUnavailable):
        await database.write(lambda connection: connection.execute(text(raising)))


async def test_a_row_that_is_there_is_a_bug_of_ours_after_some_attempts(database: Database) -> None:
    runs = []

    def work(connection: Connection) -> None:
        runs.append(1)
        insert(connection, 1)
        insert(connection, 1)

    with pytest.raises(IntegrityError):
        await database.write(work)
    assert len(runs) == 3
    assert await database.read(numbers) == []


async def test_a_statement_that_is_refused_is_a_bug_of_ours(database: Database) -> None:
    for run in (database.read, database.write, database.look_up):
        with pytest.raises(ProgrammingError):
            await run(lambda connection: connection.execute(text("SELECT nothing FROM nowhere")))
        assert await run(numbers) == []


async def test_nothing_waits_for_ever(database: Database) -> None:
    def limits(connection: Connection) -> set[str]:
        names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
        return {str(connection.execute(text(f"SHOW {name}")).scalar()) for name in names}

    for run in (database.read, database.write, database.look_up):
        assert "0" not in await run(limits)


async def test_text_that_cannot_be_kept_is_nowhere_to_be_found(database: Database) -> None:
    query = text("SELECT count(*) FROM pg_tables WHERE tablename = :name")

    def found(connection: Connection) -> object:
        return connection.execute(query, {"name": "numbers\0"}).scalar()

    for run in (database.read, database.write, database.look_up):
        assert await run(found) == 0


async def test_a_sum_of_whole_numbers_is_one(database: Database) -> None:
    query = text("SELECT sum(n) FROM (VALUES (CAST(5000000000 AS bigint)), (5000000000)) AS t (n)")
    for run in (database.read, database.write, database.look_up):
        found = await run(lambda connection: connection.execute(query).scalar())
        assert isinstance(found, int)
        assert found == 10_000_000_000


# --- a server that goes away ----------------------------------------------------------------


async def test_a_restart_between_transactions_is_not_noticed(
    crashable: Database, own_postgres: Postgres
) -> None:
    for run in (crashable.read, crashable.look_up, crashable.write):
        # Several of its connections, all of which are dead afterwards.
        await asyncio.gather(*(run(numbers) for _ in range(8)))
    own_postgres.restart()
    for run in (crashable.read, crashable.look_up, crashable.write):
        assert await asyncio.gather(*(run(numbers) for _ in range(16))) == [[]] * 16


async def test_a_transaction_that_a_restart_cut_off_is_done_again_whole(
    crashable: Database, own_postgres: Postgres
) -> None:
    begun, restarted = threading.Event(), threading.Event()

    def work(connection: Connection) -> None:
        insert(connection, 1)
        begun.set()
        restarted.wait(30)
        insert(connection, 2)

    writing = asyncio.create_task(crashable.write(work))
    await asyncio.to_thread(begun.wait)
    await asyncio.to_thread(own_postgres.restart)
    restarted.set()
    await writing
    assert await crashable.read(numbers) == [1, 2]


async def test_a_commit_whose_outcome_nobody_knows_is_no_success_and_not_done_again(
    crashable: Database, own_postgres: Postgres
) -> None:
    for statement in (
        "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql"
        " AS $$ BEGIN PERFORM pg_sleep(30); RETURN NULL; END $$",
        # Run by COMMIT itself.
        "CREATE CONSTRAINT TRIGGER dawdling AFTER INSERT ON numbers"
        " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION dawdle()",
    ):
        with crashable.engine.begin() as connection:
            connection.execute(text(statement))
    runs: list[int] = []

    def work(connection: Connection) -> None:
        runs.append(1)
        insert(connection, 1)

    writing = asyncio.create_task(crashable.write(work))
    committing = "SELECT 1 FROM pg_stat_activity WHERE query = 'COMMIT' AND wait_event = 'PgSleep'"
    while not await asyncio.to_thread(own_postgres.execute, committing):
        assert not writing.done()
    await asyncio.to_thread(own_postgres.restart)
    with pytest.raises(StorageUnavailable):
        await writing
    assert len(runs) == 1


async def test_a_server_that_stays_away_is_unavailable_and_then_back(
    crashable: Database, own_postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(database_module._PATIENCE_SECONDS, Failure.LOST, 0.3)
    await crashable.ping()
    own_postgres.stop()
    try:
        for run in (crashable.read, crashable.look_up, crashable.write):
            with pytest.raises(StorageUnavailable):
                await run(numbers)
        with pytest.raises(StorageUnavailable):
            await crashable.ping()
    finally:
        own_postgres.start()
    await crashable.ping()
    await crashable.write(lambda connection: insert(connection, 1))


async def test_a_server_that_is_suspended_is_told_soon(
    crashable: Database, own_postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "_PING_SECONDS", 0.3)
    (pid,) = await crashable.look_up(
        lambda connection: connection.execute(text("SELECT pg_backend_pid()")).scalars().all()
    )
    os.kill(pid, signal.SIGSTOP)
    try:
        started_at = time.monotonic()
        with pytest.raises(StorageUnavailable):
            await crashable.ping()
        assert time.monotonic() - started_at < 3
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.fixture
def small_tablespace(own_postgres: Postgres) -> Iterator[str]:
    """A tablespace on a file system of its own, of one MiB."""
    disk = own_postgres.folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=777", "tmpfs", str(disk)]
    subprocess.run(mount, check=True)
    try:
        # It has to be a folder of the server's user.
        (disk / "space").mkdir(mode=0o700)
        owner = own_postgres.folder.stat()
        os.chown(disk / "space", owner.st_uid, owner.st_gid)
        own_postgres.execute(f"CREATE TABLESPACE small LOCATION '{disk}/space'")
        yield "small"
        own_postgres.execute("DROP TABLESPACE small")
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


async def test_a_disk_without_room_is_full_and_works_again_when_there_is(
    small_tablespace: str, crashable: Database
) -> None:
    def move_to(tablespace: str) -> None:
        with crashable.engine.begin() as connection:
            connection.execute(text(f"ALTER TABLE numbers SET TABLESPACE {tablespace}"))

    fill = text("INSERT INTO numbers SELECT n, 'x' FROM generate_series(1, 100000) AS n")
    move_to(small_tablespace)
    with pytest.raises(StorageFull):
        await crashable.write(lambda connection: connection.execute(fill))
    assert await crashable.read(numbers) == []
    move_to("pg_default")
    await crashable.write(lambda connection: connection.execute(fill))
    assert len(await crashable.read(numbers)) == 100_000


# --- the URL and its secrets ----------------------------------------------------------------


async def test_a_password_comes_from_where_libpq_takes_it(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    password = "p/a:s@s word"
    postgres.execute(f"CREATE ROLE {GUARDED_USER} LOGIN PASSWORD '{password}'")
    address = f"127.0.0.1:{postgres.port}/postgres"

    async def ping(user: str) -> None:
        database = Database(f"postgresql://{user}@{address}")
        try:
            await database.ping()
        finally:
            database.close()

    with pytest.raises(StorageUnavailable):
        await ping(GUARDED_USER)
    await ping(f"{GUARDED_USER}:p%2Fa%3As%40s%20word")
    monkeypatch.setenv("PGPASSWORD", password)
    await ping(GUARDED_USER)
    monkeypatch.delenv("PGPASSWORD")
    file = tmp_path / "pgpass"
    file.write_text(f"*:*:*:{GUARDED_USER}:" + password.replace(":", "\\:"))
    file.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(file))
    await ping(GUARDED_USER)


async def test_a_password_is_in_no_error_log_or_text(
    postgres: Postgres, capfd: pytest.CaptureFixture[str]
) -> None:
    database = Database(f"postgresql://nobody:s3cret@127.0.0.1:{postgres.port}/nowhere")
    with pytest.raises(StorageUnavailable) as refused:
        await database.ping()
    error: BaseException | None = refused.value
    texts = [repr(database), str(database.engine), repr(database.engine.url)]
    while error is not None:
        texts.append(f"{error!r} {error}")
        error = error.__cause__
    database.close()
    out, err = capfd.readouterr()
    texts += [out, err]
    assert "s3cret" not in "".join(texts)
    assert "does not exist" in "".join(texts)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:s3cret/@host/x@y:z",
        "postgresql://user:s3cret@host:port/name",
        "postgresql://user:s3cret@host/name?no_such_parameter=s3cret",
    ],
)
async def test_what_is_no_url_is_told_without_what_it_holds(url: str) -> None:
    with pytest.raises(InvalidDatabaseUrl, match="postgresql://USER@HOST:PORT/DATABASE") as refused:
        Database(url)
    assert "s3cret" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


async def test_a_foreign_connection_is_none_of_ours(postgres: Postgres) -> None:
    # The dumper that takes NUL out of text is registered a connection, not for the process.
    with psycopg.connect(postgres.url()) as connection, pytest.raises(psycopg.DataError):
        connection.execute("SELECT %s::text", ["\0"])
