"""Brings a database's schema to the version that this release knows."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Connection, Engine, MetaData, Table, Text, select
from sqlalchemy.exc import DBAPIError

from layover.adapters.sql.database import Database
from layover.adapters.sql.failures import Failure, failure_of
from layover.errors import LayoverError

_log = structlog.get_logger(__name__)

# Held while migrating, by whichever server comes first ("Advisory Locks"); any number would do.
_MIGRATION_LOCK = 7_306_086_953_108_271

# Alembic's (its documentation, "The Migration Environment").
_VERSIONS = Table("alembic_version", MetaData(), Column("version_num", Text))


class DatabaseUnusable(LayoverError):
    """The server cannot start on this database."""


class DatabaseUnreachable(DatabaseUnusable):
    """The database does not answer yet; trying again may help."""


class SchemaUnknown(DatabaseUnusable):
    """The database was written by a release with a schema that this one does not know."""

    def __init__(self, revision: str) -> None:
        super().__init__(
            f"the database has schema {revision!r}, which this release does not know:"
            " start the release that wrote it, or a newer one"
        )
        self.revision = revision


def migrate(engine: Engine) -> None:
    """Run the migrations that are missing, all in one transaction; one server at a time.

    Raises SchemaUnknown, with nothing changed, when the database is from another release,
    DatabaseUnreachable when PostgreSQL does not answer, and DatabaseUnusable when it is no
    database, or has no room.
    """
    try:
        _migrate(engine)
    except DBAPIError as error:
        if failure_of(error) in (Failure.LOST, Failure.CONFLICT):
            raise DatabaseUnreachable(f"cannot reach the database: {error.orig}") from error
        file = f" {engine.url}" if engine.dialect.name == "sqlite" else ""
        raise DatabaseUnusable(f"cannot use the database{file}: {error.orig}") from error


def known_revision() -> str:
    """The schema that this release works with."""
    head = _scripts(_config()).get_current_head()
    assert head is not None
    return head


def known_revisions() -> frozenset[str]:
    """Every schema that this release can work with, once it has migrated it."""
    return frozenset(script.revision for script in _scripts(_config()).walk_revisions())


class SchemaWatch:
    """Notices that another release migrated the database under a server that runs.

    Its statements are made for the schema that it knows. Until it is started anew, or the
    database is restored, the server answers nothing from it and writes nothing into it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known = known_revision()
        self._found: str | None = self._known

    async def check(self) -> None:
        """Look at the database's schema.

        Raises StorageUnavailable when it is another one, or the database does not answer.
        """
        found = await self._database.probe(current_revision)
        if found != self._found:
            self._found = found
            _log.error("schema_changed", found=found, known=self._known)
            self._database.refuse(None if found == self._known else str(SchemaUnknown(str(found))))
        await self._database.ping()


def current_revision(connection: Connection) -> str | None:
    """The schema that the database has; None where it has none yet."""
    # Alembic's own way makes a table of its own each time, which SQLAlchemy remembers.
    if not connection.dialect.has_table(connection, _VERSIONS.name):
        return None
    found: str | None = connection.execute(select(_VERSIONS.c.version_num)).scalar()
    return found


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def _scripts(config: Config) -> ScriptDirectory:
    return ScriptDirectory.from_config(config)


def _migrate(engine: Engine) -> None:
    config = _config()
    scripts = _scripts(config)
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            # It has to see what whoever held the lock before has done.
            connection.execution_options(isolation_level="READ COMMITTED")
        _migrate_on(connection, config, scripts)


def _migrate_on(connection: Connection, config: Config, scripts: ScriptDirectory) -> None:
    known = {script.revision for script in scripts.walk_revisions()}
    with _foreign_keys_unchecked(connection), connection.begin():
        if connection.dialect.name == "postgresql":
            _prepare_postgresql(connection)
        current = current_revision(connection)
        if current is not None and current not in known:
            raise SchemaUnknown(current)
        if current == scripts.get_current_head():
            # What follows reads every row, which takes seconds where there are a million.
            return
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        if connection.dialect.name == "sqlite":
            broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
            assert broken is None, f"a migration broke a foreign key: {broken}"


def _prepare_postgresql(connection: Connection) -> None:
    encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
    if encoding != "UTF8":
        raise DatabaseUnusable(
            f"the database is encoded in {encoding}: create it with ENCODING 'UTF8'"
        )
    # A table of a million rows takes its time, and so may the replica that came first. Locks on
    # tables do not wait for long: whoever uses one would wait behind.
    connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
    connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
    connection.exec_driver_sql("SET LOCAL lock_timeout = '10s'")


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
