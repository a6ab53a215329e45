"""What one process at a time does: whose turn it is, on a transaction's connection.

A lease ends by itself when its holder dies. Who holds one renews it by taking it again.
"""

from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, or_, update

from layover.adapters.sql.database import insert_or_ignore
from layover.adapters.sql.schema import server_leases

# Of whoever removes blobs' bytes, and of whoever must not have them removed: a backup.
COLLECTOR = "collector"

# Nobody takes one for longer: it is renewed.
_LONGEST = timedelta(minutes=10)


def take(connection: Connection, name: str, holder: str, now: datetime, until: datetime) -> bool:
    """Take the lease, or renew it, until then; False when it is another's."""
    insert_or_ignore(connection, server_leases, name=name, holder=holder, expires_at=until)
    taken = connection.execute(
        update(server_leases)
        .where(
            server_leases.c.name == name,
            or_(
                server_leases.c.holder == holder,
                server_leases.c.expires_at <= now,
                # Taken before the clock was set back.
                server_leases.c.expires_at > now + _LONGEST,
            ),
        )
        .values(holder=holder, expires_at=until)
    )
    return taken.rowcount == 1


def renew(connection: Connection, name: str, holder: str, until: datetime) -> bool:
    """Go on holding it until then; False when another has had it since, if only for a while."""
    renewed = connection.execute(
        update(server_leases)
        .where(server_leases.c.name == name, server_leases.c.holder == holder)
        .values(expires_at=until)
    )
    return renewed.rowcount == 1


def release(connection: Connection, name: str, holder: str) -> None:
    """Give the lease back; of one that is another's by now nothing changes."""
    connection.execute(
        delete(server_leases).where(server_leases.c.name == name, server_leases.c.holder == holder)
    )
