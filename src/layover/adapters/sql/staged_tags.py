"""What a running build named, on a transaction's connection: all of it is shown, or nothing.

A tag of a build is not one before the build has finished (docs/decisions/0016).
"""

from datetime import datetime

from sqlalchemy import Connection, delete, literal, select
from sqlalchemy.dialects import postgresql, sqlite

from layover.adapters.sql.database import upsert_all
from layover.adapters.sql.receipt_rows import open_receipts
from layover.adapters.sql.retention_rows import (
    DELETED,
    bury_all,
    end_lonely_pushes,
    mark_manifests,
    visible_manifests,
)
from layover.adapters.sql.schema import (
    Timestamp,
    repositories,
    retained_manifests,
    retentions,
    staged_tags,
    tags,
)
from layover.oci.digest import Digest
from layover.oci.names import Tag


def stage_tag(
    connection: Connection, build_id: str, repository_id: int, tag: Tag, digest: Digest
) -> None:
    """Let the build name the manifest so once it has finished."""
    row = {
        "build_id": build_id,
        "repository_id": repository_id,
        "name": tag.value,
        "digest": str(digest),
    }
    upsert_all(connection, staged_tags, [row])


def set_staged_tags(
    connection: Connection, build_id: str, retention_id: int, now: datetime
) -> None:
    """The build has finished: what it named is named so from now on."""
    staged = select(
        staged_tags.c.repository_id,
        staged_tags.c.name,
        staged_tags.c.digest,
        staged_tags.c.build_id,
        literal(retention_id),
        literal(now, Timestamp),
    ).where(staged_tags.c.build_id == build_id)
    columns = ["repository_id", "name", "digest", "build_id", "retention_id", "updated_at"]
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(tags).from_select(columns, staged)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=columns[:2],
            set_={name: statement.excluded[name] for name in columns[2:]},
        )
    )
    for repository_id, digests in _retained(connection, retention_id).items():
        end_lonely_pushes(connection, repository_id, digests)


def let_go(connection: Connection, retention_id: int, now: datetime) -> None:
    """The build has failed: nothing of it is there any more, and the collector takes it away."""
    retained = _retained(connection, retention_id)
    if not retained:
        return
    ended = select(
        retentions.c.id,
        retentions.c.project_id,
        retentions.c.build_id,
        literal(now, Timestamp).label("ended_at"),
        retentions.c.end_reason,
    ).where(retentions.c.id == retention_id)
    row = connection.execute(ended).one()
    open_receipts(connection, {row.id: row})
    connection.execute(
        delete(retained_manifests).where(retained_manifests.c.retention_id == retention_id)
    )
    for repository_id, digests in retained.items():
        mark_manifests(connection, repository_id, digests, now)
    names = select(repositories.c.id, repositories.c.name).where(repositories.c.id.in_(retained))
    bury_all(
        connection,
        [
            (row.project_id, repository.name, digest, DELETED, now)
            for repository in connection.execute(names).all()
            for digest in retained[repository.id]
            - visible_manifests(connection, repository.id, retained[repository.id], now)
        ],
    )


def _retained(connection: Connection, retention_id: int) -> dict[int, set[str]]:
    """The digests of what the retention retains, by repository."""
    of_retention = retained_manifests.c.retention_id == retention_id
    found: dict[int, set[str]] = {}
    for row in connection.execute(select(retained_manifests).where(of_retention)):
        found.setdefault(row.repository_id, set()).add(row.digest)
    return found
