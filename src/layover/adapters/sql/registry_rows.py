"""What the registry's transactions do to its tables, each on the transaction's connection."""

import json
from collections.abc import Collection
from datetime import datetime, timedelta

from sqlalchemy import Connection, Executable, case, delete, insert, literal, select, update
from sqlalchemy.dialects import postgresql, sqlite

from layover.adapters.sql.database import insert_or_ignore, insert_or_ignore_all
from layover.adapters.sql.schema import (
    manifest_references,
    manifests,
    repositories,
    repository_blobs,
    tags,
)
from layover.oci.digest import Digest
from layover.oci.manifests import Manifest
from layover.oci.names import RepositoryName, Tag
from layover.registry.models import StoredManifest

# What a manifest refers to, in manifest_references.
TO_BLOB, TO_MANIFEST = "blob", "manifest"

_MANIFEST_KEYS = ("repository_id", "digest")
_TOLD_BY_BODY = ("media_type", "artifact_type", "subject", "annotations", "body")


def _put_manifest(statement: sqlite.Insert | postgresql.Insert) -> Executable:
    # A digest has one body: where another one lies under it, that one was damaged.
    return statement.on_conflict_do_update(
        index_elements=_MANIFEST_KEYS,
        set_={name: statement.excluded[name] for name in _TOLD_BY_BODY},
        where=manifests.c.body != statement.excluded.body,
    )


_PUT_MANIFEST = {
    "sqlite": _put_manifest(sqlite.insert(manifests)),
    "postgresql": _put_manifest(postgresql.insert(manifests)),
}

# SQLite takes 32,766 parameters a statement; a manifest may name 10,000 layers.
_MAX_PARAMETERS = 5_000


def delete_manifests(connection: Connection, repository_id: int, digests: set[str]) -> None:
    """Remove manifests that nothing names and nothing refers to any more."""
    for part in parts(digests):
        connection.execute(
            delete(manifest_references).where(
                manifest_references.c.repository_id == repository_id,
                manifest_references.c.manifest_digest.in_(part),
            )
        )
        connection.execute(
            delete(manifests).where(
                manifests.c.repository_id == repository_id, manifests.c.digest.in_(part)
            )
        )


def find_repository(connection: Connection, repository: RepositoryName) -> int | None:
    query = select(repositories.c.id).where(repositories.c.name == repository.value)
    return connection.execute(query).scalar()


def ensure_repository(connection: Connection, repository: RepositoryName, now: datetime) -> int:
    """A repository comes to be with its first content; its project is there already."""
    repository_id = find_repository(connection, repository)
    if repository_id is None:
        insert_or_ignore(
            connection,
            repositories,
            name=repository.value,
            project_id=repository.project_id,
            created_at=now,
        )
        repository_id = find_repository(connection, repository)
    assert repository_id is not None
    return repository_id


def link(
    connection: Connection,
    repository_id: int,
    digest: Digest,
    now: datetime,
    lease: timedelta,
) -> None:
    """Show in the repository a blob that a client brought, and lease it to that client."""
    until = now + lease
    named = first_user(connection, repository_id, digest, TO_BLOB) is not None
    insert_or_ignore(
        connection,
        repository_blobs,
        repository_id=repository_id,
        digest=str(digest),
        linked_at=now,
        leased_until=until,
        shown_until=until,
        check_at=None if named else until,
    )
    # Brought again: leased anew, and shown even where what names it is over by now. A lease that is
    # longer, from before the clock was set back, stays.
    leased_until = repository_blobs.c.leased_until
    connection.execute(
        update(repository_blobs)
        .where(
            repository_blobs.c.repository_id == repository_id,
            repository_blobs.c.digest == str(digest),
        )
        .values(
            leased_until=case(
                (leased_until < until, literal(until, leased_until.type)), else_=leased_until
            ),
            shown_until=until,
        )
    )


def first_user(connection: Connection, repository_id: int, digest: Digest, kind: str) -> str | None:
    """The digest of a manifest that refers to `digest`, if there is one."""
    query = (
        select(manifest_references.c.manifest_digest)
        .where(
            manifest_references.c.repository_id == repository_id,
            manifest_references.c.digest == str(digest),
            manifest_references.c.kind == kind,
        )
        .limit(1)
    )
    return connection.execute(query).scalar()


def insert_manifest(
    connection: Connection,
    repository_id: int,
    stored: StoredManifest,
    manifest: Manifest,
    now: datetime,
) -> None:
    """Keep a manifest and what it refers to, in place of damaged bytes if there are such."""
    connection.execute(
        _PUT_MANIFEST[connection.dialect.name],
        {
            "repository_id": repository_id,
            "digest": str(stored.digest),
            "media_type": stored.media_type,
            "artifact_type": manifest.artifact_type,
            "subject": str(manifest.subject.digest) if manifest.subject else None,
            "annotations": json.dumps(dict(manifest.annotations)),
            "body": stored.body,
            "pushed_at": now,
        },
    )
    kinds = {str(blob.digest): TO_BLOB for blob in manifest.needed_blobs}
    kinds |= {str(child.digest): TO_MANIFEST for child in manifest.manifests}
    insert_or_ignore_all(
        connection,
        manifest_references,
        [
            {
                "repository_id": repository_id,
                "manifest_digest": str(stored.digest),
                "digest": digest,
                "kind": kind,
            }
            for digest, kind in kinds.items()
        ],
    )


def set_tag(
    connection: Connection,
    repository_id: int,
    tag: Tag,
    digest: Digest,
    retention_id: int,
    now: datetime,
) -> None:
    """Name a manifest that was pushed outside of builds."""
    named = {
        "digest": str(digest),
        "build_id": None,
        "retention_id": retention_id,
        "updated_at": now,
    }
    changed = connection.execute(
        update(tags)
        .where(tags.c.repository_id == repository_id, tags.c.name == tag.value)
        .values(named)
    )
    if not changed.rowcount:
        connection.execute(
            insert(tags).values(repository_id=repository_id, name=tag.value, **named)
        )


def parts(values: Collection[str]) -> list[list[str]]:
    """`values` in lists that fit a statement's parameters."""
    ordered = sorted(values)
    return [
        ordered[start : start + _MAX_PARAMETERS]
        for start in range(0, len(ordered), _MAX_PARAMETERS)
    ]
