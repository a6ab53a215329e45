"""Brings a database's schema to the version that this release knows."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from layover.errors import LayoverError


class DatabaseUnusable(LayoverError):
    """The server cannot start on this database."""


class SchemaUnknown(DatabaseUnusable):
    """The database was written by a release with a schema that this one does not know."""

    def __init__(self, revision: str) -> None:
        super().__init__(
            f"the database has schema {revision!r}, which this release does not know:"
            " start the release that wrote it, or a newer one"
        )
        self.revision = revision


def migrate(engine: Engine) -> None:
    """Run the migrations that are missing, all in one transaction.

    Raises SchemaUnknown, with nothing changed, when the database is from another release, and
    DatabaseUnusable when it does not answer, is no database, or has no room.
    """
    try:
        _migrate(engine)
    except DBAPIError as error:
        raise DatabaseUnusable(f"cannot use the database {engine.url}: {error.orig}") from error


def _migrate(engine: Engine) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    with engine.connect() as connection, _foreign_keys_unchecked(connection), connection.begin():
        current = MigrationContext.configure(connection).get_current_revision()
        if current is not None and current not in known:
            raise SchemaUnknown(current)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        if engine.dialect.name == "sqlite":
            broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
            assert broken is None, f"a migration broke a foreign key: {broken}"


@contextmanager
def _foreign_keys_unchecked(connection: Connection) -> Iterator[None]:
    """On SQLite a table is altered by making it anew, and dropping the old one would delete
    what refers to it ("Making Other Kinds Of Table Schema Changes")."""
    if connection.dialect.name != "sqlite":
        yield
        return
    # On the driver's connection: the pragma does nothing in a transaction.
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    driver.execute("PRAGMA foreign_keys=OFF")
    try:
        yield
    finally:
        driver.execute("PRAGMA foreign_keys=ON")
