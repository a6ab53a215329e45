"""How PostgreSQL is connected to: isolation, and how long anything may take.

It has many writers: any thread may write, and whoever collides does it again (see database.py).
"""

from typing import Any

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.string import StrDumper
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from layover.adapters.sql.engines import Engines, InvalidDatabaseUrl

# Connections of one replica; 100 are PostgreSQL's default for all of its clients.
_READERS = 8
_WRITERS = 8

# What libpq is told where the URL says nothing else ("Parameter Key Words"): a server that is
# gone without a word is given up on, in connecting and in the midst of a query.
_CONNECTION_DEFAULTS = {
    "application_name": "layover",
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "25000",
}

# Nothing waits for ever: not a statement, not for a lock, and not PostgreSQL for a server that was
# suspended in the middle of a transaction and holds its locks.
_SESSION = (
    "SET statement_timeout = '60s'",
    "SET lock_timeout = '10s'",
    "SET idle_in_transaction_session_timeout = '60s'",
)


class _TextDumper(StrDumper):
    """Text without NUL, which PostgreSQL cannot keep: asked for, it is nowhere to be found."""

    def dump(self, obj: str) -> Buffer | None:
        return super().dump(obj.replace("\0", "\N{REPLACEMENT CHARACTER}"))


class _WholeNumberLoader(Loader):
    """A sum of big integers, which PostgreSQL gives as a decimal; no column has fractions."""

    def load(self, data: Buffer) -> int:
        return int(bytes(data))


def postgresql(url: str) -> Engines:
    """Prepare the connections. Raises InvalidDatabaseUrl."""
    parameters = {**_CONNECTION_DEFAULTS, **_parse(url)}
    reading = _engine(parameters, _READERS)
    return Engines(
        # One snapshot for all the queries of a transaction, as SQLite gives it. It never fails for
        # what others write, which SERIALIZABLE could.
        reads=reading.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        ),
        readers=_READERS,
        writes=_engine(parameters, _WRITERS).execution_options(isolation_level="SERIALIZABLE"),
        writers=_WRITERS,
        # A statement sees what was committed before it, without the way there and back for BEGIN.
        lookups=reading.execution_options(isolation_level="AUTOCOMMIT"),
        looks_up_inline=False,
    )


def _parse(url: str) -> dict[str, Any]:
    """libpq's own reading of it.

    Several hosts, sockets, sslmode, a service, and a password from PGPASSWORD or ~/.pgpass, all
    work as they do for psql.
    """
    try:
        parameters = conninfo_to_dict(url)
        for port in str(parameters.get("port", "")).split(","):
            int(port or 0)
        if "@" in str(parameters.get("dbname", "")):
            # A password with a slash in it: libpq would look for a host of the user's name, and
            # say to which port and database it failed to connect.
            raise ValueError
    except (psycopg.Error, ValueError):
        raise InvalidDatabaseUrl(
            "no URL of a PostgreSQL database: expected postgresql://USER@HOST:PORT/DATABASE,"
            " with whatever is no letter or digit in a password as %2F is for /"
        ) from None
    return parameters


def _engine(parameters: dict[str, Any], connections: int) -> Engine:
    # The URL stays out of SQLAlchemy's: it would be in messages, with what is in it.
    engine = create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(**parameters),
        pool_size=connections,
        max_overflow=0,
        hide_parameters=True,
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
        assert isinstance(connection, psycopg.Connection)
        for statement in _SESSION:
            connection.execute(statement)
        connection.commit()
        connection.adapters.register_dumper(str, _TextDumper)
        connection.adapters.register_loader("numeric", _WholeNumberLoader)

    return engine
