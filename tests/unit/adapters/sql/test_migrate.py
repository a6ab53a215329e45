import sqlite3
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from alembic import op
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, Inspector, inspect, text

from layover.adapters.sql.database import Database
from layover.adapters.sql.migrate import (
    _MIGRATION_LOCK,
    DatabaseUnreachable,
    DatabaseUnusable,
    SchemaUnknown,
    SchemaWatch,
    known_revision,
    migrate,
)
from layover.adapters.sql.schema import metadata
from layover.errors import LayoverError, StorageUnavailable
from tests.e2e.processes import free_port
from tests.postgres import Postgres


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'test.db'}"
    postgres: str = request.getfixturevalue("empty_postgres_url")
    return postgres


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    database = Database(url)
    yield database
    database.close()


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'test.db'}")
    yield database
    database.close()


@pytest.fixture
def postgresql(empty_postgres_url: str) -> Iterator[Database]:
    database = Database(empty_postgres_url)
    yield database
    database.close()


def content(database: Database) -> dict[str, object]:
    """All that inspection tells of a database, its revision included."""
    found = inspect(database.engine)
    tables = found.get_table_names()
    with database.engine.connect() as connection:
        revisions = (
            connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all()
        )
    return {
        "revisions": revisions,
        "columns": {table: repr(found.get_columns(table)) for table in tables},
        "indexes": {table: repr(indexes(found, table)) for table in tables},
    }


def indexes(found: Inspector, table: str) -> list[dict[str, object]]:
    """A table's indexes, with the conditions of those that are of some rows alone as text."""
    return [
        {**index, "dialect_options": {k: str(v) for k, v in index["dialect_options"].items()}}
        for index in found.get_indexes(table)
    ]


def set_revision(database: Database, revision: str) -> None:
    with database.engine.begin() as connection:
        connection.execute(
            text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision}
        )


def test_the_migrations_make_exactly_the_schema(database: Database) -> None:
    migrate(database.engine)
    with database.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, metadata) == []


def test_names_of_constraints_and_indexes_are_the_schemas(database: Database) -> None:
    # compare_metadata looks at neither the one nor the order of columns in the other.
    migrate(database.engine)
    found = inspect(database.engine)
    for table in metadata.sorted_tables:
        indexes = {
            index["name"]: index["column_names"]
            for index in found.get_indexes(table.name)
            # PostgreSQL lists those of constraints too.
            if "duplicates_constraint" not in index
        }
        assert indexes == {
            index.name: [column.name for column in index.columns] for index in table.indexes
        }, table.name
        primary_key = found.get_pk_constraint(table.name)
        assert primary_key["constrained_columns"] == [
            column.name for column in table.primary_key.columns
        ], table.name


def test_text_is_sorted_by_its_bytes(postgresql: Database) -> None:
    migrate(postgresql.engine)
    query = text(
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = 'public' AND table_name <> 'alembic_version'"
        " AND data_type IN ('text', 'character varying') AND collation_name IS DISTINCT FROM 'C'"
    )
    with postgresql.engine.connect() as connection:
        assert connection.execute(query).all() == []
        # What the columns are protected from.
        assert connection.execute(text("SELECT 'a' < 'B'")).scalar()


def test_migrating_again_changes_nothing(database: Database) -> None:
    migrate(database.engine)
    before = content(database)
    migrate(database.engine)
    assert content(database) == before


def test_a_database_that_needs_no_migration_is_not_read_through(sqlite: Database) -> None:
    migrate(sqlite.engine)
    with closing(sqlite3.connect(str(sqlite.engine.url.database))) as damaged, damaged:
        # Whoever checks each row against those that it names finds this one.
        damaged.execute("INSERT INTO tombstones VALUES ('no project', '', '', 'expired', 0)")
    migrate(sqlite.engine)


def test_a_database_of_an_unknown_release_is_refused_untouched(database: Database) -> None:
    migrate(database.engine)
    set_revision(database, "9999")
    with database.engine.begin() as connection:
        connection.execute(text("DROP TABLE tags"))
    before = content(database)
    with pytest.raises(SchemaUnknown, match="9999") as refused:
        migrate(database.engine)
    assert refused.value.revision == "9999"
    assert content(database) == before


def test_a_file_of_an_unknown_release_is_not_written_to(sqlite: Database, tmp_path: Path) -> None:
    migrate(sqlite.engine)
    set_revision(sqlite, "9999")
    sqlite.close()
    before = (tmp_path / "test.db").read_bytes()
    with pytest.raises(SchemaUnknown):
        migrate(sqlite.engine)
    sqlite.close()
    assert (tmp_path / "test.db").read_bytes() == before


def test_servers_that_start_at_once_migrate_once(url: str, database: Database) -> None:
    others = [Database(url) for _ in range(7)]
    try:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda server: migrate(server.engine), [database, *others]))
    finally:
        for other in others:
            other.close()
    assert content(database)["revisions"] == [known_revision()]


def test_a_server_waits_for_the_one_that_migrates_and_then_finds_it_done(
    postgresql: Database, empty_postgres_url: str
) -> None:
    other = Database(empty_postgres_url)
    waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    with ThreadPoolExecutor(1) as threads:
        with other.engine.begin() as holding:
            holding.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
            migrating = threads.submit(migrate, postgresql.engine)
            while not holding.execute(waiting).scalar():
                assert not migrating.done()
            # In the place of the one that came first, which does the work.
            with psycopg.connect(empty_postgres_url) as connection:
                connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
                connection.execute("INSERT INTO alembic_version VALUES (%s)", [known_revision()])
        migrating.result(30)
    other.close()
    assert inspect(postgresql.engine).get_table_names() == ["alembic_version"]


def test_a_server_that_is_away_is_told_from_one_that_is_of_no_use(postgres: Postgres) -> None:
    for url, error in (
        (f"postgresql://postgres@127.0.0.1:{free_port()}/x", DatabaseUnreachable),
        (f"postgresql://postgres@127.0.0.1:{postgres.port}/missing", DatabaseUnreachable),
    ):
        database = Database(url)
        with pytest.raises(error, match=r"127\.0\.0\.1"):
            migrate(database.engine)
        database.close()
    name = f"latin_{uuid4().hex}"
    postgres.execute(
        f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' LOCALE_PROVIDER libc"
        " TEMPLATE template0"
    )
    database = Database(postgres.url(name))
    with pytest.raises(DatabaseUnusable, match=r"LATIN1.*UTF8") as refused:
        migrate(database.engine)
    assert not isinstance(refused.value, DatabaseUnreachable)
    database.close()
    postgres.drop(name)


@pytest.mark.anyio
async def test_a_server_notices_that_another_release_migrated_the_database(
    database: Database,
) -> None:
    migrate(database.engine)
    watch = SchemaWatch(database)
    await watch.check()
    set_revision(database, "9999")
    with pytest.raises(StorageUnavailable, match="9999"):
        await watch.check()
    for run in (database.read, database.look_up, database.write):
        with pytest.raises(StorageUnavailable, match="9999"):
            await run(lambda connection: connection.execute(text("DELETE FROM tags")))
    with pytest.raises(StorageUnavailable, match="9999"):
        await database.ping()
    # Restored from a backup, as after an upgrade that was given up.
    set_revision(database, known_revision())
    await watch.check()
    await database.write(lambda connection: connection.execute(text("DELETE FROM tags")))


@pytest.mark.anyio
async def test_looking_at_the_schema_again_and_again_leaves_nothing_behind(
    database: Database,
) -> None:
    migrate(database.engine)
    watch = SchemaWatch(database)
    sizes = []
    for _ in range(3):
        await watch.check()
        sizes.append([len(engine._compiled_cache or ()) for engine in engines_of(database)])
    assert sizes[0] == sizes[1] == sizes[2]


def engines_of(database: Database) -> list[Engine]:
    engines = database._engines
    return [engines.reads, engines.lookups, engines.writes]


def test_a_migration_that_fails_half_way_leaves_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    class BrokenError(Exception):
        pass

    def breaks(*_: object, **__: object) -> None:
        raise BrokenError

    monkeypatch.setattr(op, "create_index", breaks)
    with pytest.raises(BrokenError):
        migrate(database.engine)
    assert inspect(database.engine).get_table_names() == []
    monkeypatch.undo()
    migrate(database.engine)
    assert "tags" in inspect(database.engine).get_table_names()


def test_what_is_no_database_is_named_in_an_error_that_a_user_can_read(tmp_path: Path) -> None:
    (tmp_path / "test.db").write_bytes(b"no database at all" * 1000)
    database = Database(f"sqlite:///{tmp_path / 'test.db'}")
    with pytest.raises(DatabaseUnusable, match=r"test\.db.*not a database"):
        migrate(database.engine)
    database.close()
    assert issubclass(DatabaseUnusable, LayoverError)


def test_a_database_made_by_migrating_is_its_owners_alone(sqlite: Database, tmp_path: Path) -> None:
    migrate(sqlite.engine)
    assert stat.S_IMODE((tmp_path / "test.db").stat().st_mode) == 0o600
