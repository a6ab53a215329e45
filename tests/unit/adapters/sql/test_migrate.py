import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import op
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, text

from layover.adapters.sql.database import Database
from layover.adapters.sql.migrate import DatabaseUnusable, SchemaUnknown, migrate
from layover.adapters.sql.schema import metadata
from layover.errors import LayoverError


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'test.db'}")
    yield database
    database.close()


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
        indexes = {index["name"]: index["column_names"] for index in found.get_indexes(table.name)}
        assert indexes == {
            index.name: [column.name for column in index.columns] for index in table.indexes
        }, table.name
        primary_key = found.get_pk_constraint(table.name)
        assert primary_key["constrained_columns"] == [
            column.name for column in table.primary_key.columns
        ], table.name


def test_migrating_again_changes_nothing(database: Database) -> None:
    migrate(database.engine)
    with database.engine.connect() as connection:
        before = connection.execute(text("SELECT sql FROM sqlite_master ORDER BY name")).all()
    migrate(database.engine)
    with database.engine.connect() as connection:
        after = connection.execute(text("SELECT sql FROM sqlite_master ORDER BY name")).all()
    assert before == after


def test_a_database_of_an_unknown_release_is_refused_untouched(
    database: Database, tmp_path: Path
) -> None:
    migrate(database.engine)
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        connection.execute(text("DROP TABLE tags"))
    database.close()
    before = (tmp_path / "test.db").read_bytes()
    with pytest.raises(SchemaUnknown, match="9999") as refused:
        migrate(database.engine)
    assert refused.value.revision == "9999"
    database.close()
    assert (tmp_path / "test.db").read_bytes() == before


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


def test_a_database_made_by_migrating_is_its_owners_alone(
    database: Database, tmp_path: Path
) -> None:
    migrate(database.engine)
    assert stat.S_IMODE((tmp_path / "test.db").stat().st_mode) == 0o600
