"""What a database's exceptions mean: do the transaction again, tell the user, or mend a bug."""

import sqlite3
from enum import Enum, auto

from sqlalchemy.exc import DatabaseError, DBAPIError, OperationalError


class Failure(Enum):
    """Why a transaction failed, by what can be done."""

    # It met another one: nothing of it was kept, and doing it again helps.
    CONFLICT = auto()
    # A row is there that it had not seen. Another one's, and then doing it again helps; or its own.
    DUPLICATE = auto()
    # The connection is gone, or none is to be had for now.
    LOST = auto()
    # There is no room left.
    FULL = auto()
    # The medium failed.
    MEDIUM = auto()
    # The database refused a statement of ours.
    BUG = auto()


# PostgreSQL's codes ("PostgreSQL Error Codes"), longer ones first.
_BY_SQLSTATE = {
    # Serialization failure, deadlock, lock timeout.
    "40001": Failure.CONFLICT,
    "40P01": Failure.CONFLICT,
    "55P03": Failure.CONFLICT,
    # "Serialization Failure Handling": also these can be one, and are worth another attempt.
    "23505": Failure.DUPLICATE,
    "23P01": Failure.DUPLICATE,
    "53100": Failure.FULL,
    # Too many connections.
    "53300": Failure.LOST,
    # It is being shut down, has crashed, or is starting up.
    "57P01": Failure.LOST,
    "57P02": Failure.LOST,
    "57P03": Failure.LOST,
    # The session idled in its transaction for too long: this process was suspended.
    "25P03": Failure.LOST,
    # What was the primary is one no more.
    "25006": Failure.MEDIUM,
    "08": Failure.LOST,
    # Internal errors, among them data that is corrupt on the disk.
    "XX": Failure.MEDIUM,
}


def failure_of(error: DBAPIError) -> Failure:
    """Tell what a driver's exception means."""
    sqlstate = getattr(error.orig, "sqlstate", None)
    if sqlstate is not None:
        for known, failure in _BY_SQLSTATE.items():
            if sqlstate.startswith(known):
                return failure
    elif error.connection_invalidated or _is_unconnected(error):
        return Failure.LOST
    # SQLite's own code for a write that found no room ("Result and Error Codes").
    if getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return Failure.FULL
    # A damaged file is a plain DatabaseError, the class above all the others.
    if isinstance(error, OperationalError) or type(error) is DatabaseError:
        return Failure.MEDIUM
    return Failure.BUG


def _is_unconnected(error: DBAPIError) -> bool:
    """Whether PostgreSQL could not be connected to: such an error has no code."""
    return isinstance(error, OperationalError) and not isinstance(error.orig, sqlite3.Error)
