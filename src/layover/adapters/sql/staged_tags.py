"""What a running build named, on a transaction's connection: all of it is shown, or nothing.

A tag of a build is not one before the build has finished. Until then whoever asks for it finds
what it named before; and where the build fails, goes on to.
"""

from datetime import datetime

from sqlalchemy import Connection, delete, select, update

from layover.adapters.sql.database import upsert_all
from layover.adapters.sql.registry_rows import parts, set_tag
from layover.adapters.sql.schema import manifests, retained_manifests, staged_tags
from layover.oci.digest import Digest
from layover.oci.names import Tag


def stage_tag(
    connection: Connection, build_id: str, repository_id: int, tag: Tag, digest: Digest
) -> None:
    """Let the build name the manifest so once it has finished."""
    upsert_all(
        connection,
        staged_tags,
        [
            {
                "build_id": build_id,
                "repository_id": repository_id,
                "name": tag.value,
                "digest": str(digest),
            }
        ],
    )


def set_staged_tags(
    connection: Connection, build_id: str, retention_id: int, now: datetime
) -> None:
    """The build has finished: what it named is named so from now on."""
    own = staged_tags.c.build_id == build_id
    staged = select(staged_tags.c.repository_id, staged_tags.c.name, staged_tags.c.digest)
    for row in connection.execute(staged.where(own).order_by(staged_tags.c.name)).all():
        set_tag(
            connection,
            row.repository_id,
            Tag(row.name),
            Digest.parse(row.digest),
            build_id,
            retention_id,
            now,
        )
    connection.execute(delete(staged_tags).where(own))


def let_go(connection: Connection, build_id: str, retention_id: int, now: datetime) -> None:
    """The build has failed: nothing of it is there any more, and the collector takes it away."""
    connection.execute(delete(staged_tags).where(staged_tags.c.build_id == build_id))
    of_build = retained_manifests.c.retention_id == retention_id
    retained: dict[int, set[str]] = {}
    for row in connection.execute(select(retained_manifests).where(of_build)).all():
        retained.setdefault(row.repository_id, set()).add(row.digest)
    connection.execute(delete(retained_manifests).where(of_build))
    for repository_id, digests in retained.items():
        for part in parts(digests):
            connection.execute(
                update(manifests)
                .where(manifests.c.repository_id == repository_id, manifests.c.digest.in_(part))
                .values(check_at=now)
            )
