"""What the registry's transactions do to its tables, each on the transaction's connection."""

import json
from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select, update

from layover.adapters.sql.database import insert_or_ignore, insert_or_ignore_all
from layover.adapters.sql.schema import (
    builds,
    manifest_references,
    manifests,
    repositories,
    repository_blobs,
    tags,
)
from layover.builds.models import LIVE
from layover.oci.digest import Digest
from layover.oci.manifests import Manifest
from layover.oci.names import RepositoryName, Tag
from layover.registry.models import (
    BuildOver,
    ManifestBlobUnknown,
    StoredManifest,
    TagProtected,
    is_named_for,
)

# What a manifest refers to, in manifest_references.
TO_BLOB, TO_MANIFEST = "blob", "manifest"

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


def link(connection: Connection, repository_id: int, digest: Digest, now: datetime) -> None:
    insert_or_ignore(
        connection,
        repository_blobs,
        repository_id=repository_id,
        digest=str(digest),
        linked_at=now,
    )


def linked(connection: Connection, repository_id: int, digests: set[str]) -> set[str]:
    """Those of `digests` that are blobs which the repository shows."""
    return {
        digest
        for part in parts(digests)
        for digest in connection.execute(
            select(repository_blobs.c.digest).where(
                repository_blobs.c.repository_id == repository_id,
                repository_blobs.c.digest.in_(part),
            )
        ).scalars()
    }


def has_manifests(connection: Connection, repository_id: int, digests: set[str]) -> set[str]:
    """Those of `digests` that are manifests of the repository."""
    return {
        digest
        for part in parts(digests)
        for digest in connection.execute(
            select(manifests.c.digest).where(
                manifests.c.repository_id == repository_id, manifests.c.digest.in_(part)
            )
        ).scalars()
    }


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


def check_tag(connection: Connection, repository_id: int, tag: Tag, build_id: str | None) -> None:
    """Raise TagProtected when the tag is another build's own name; save tags move."""
    owner = connection.execute(
        select(tags.c.build_id).where(
            tags.c.repository_id == repository_id, tags.c.name == tag.value
        )
    ).scalar()
    if owner is not None and owner != build_id and is_named_for(tag, owner):
        raise TagProtected(tag, owner)


def check_build(connection: Connection, build_id: str) -> None:
    """Raise BuildOver unless the build lives, and keep it alive until the transaction ends.

    Its token was asked for before the manifest came. An image that appeared after its build
    was deleted could be deleted by nobody any more.
    """
    live = (
        select(builds.c.id)
        .where(builds.c.id == build_id, builds.c.status.in_([status.value for status in LIVE]))
        .with_for_update(read=True)
    )
    if connection.execute(live).first() is None:
        raise BuildOver(build_id)


def check_references(
    connection: Connection, repository: RepositoryName, repository_id: int, manifest: Manifest
) -> None:
    """Raise ManifestBlobUnknown unless the repository holds what the manifest needs."""
    needed_blobs = {str(blob.digest): blob.digest for blob in manifest.needed_blobs}
    needed_manifests = {str(child.digest): child.digest for child in manifest.manifests}
    missing = {
        **without(needed_blobs, linked(connection, repository_id, set(needed_blobs))),
        **without(
            needed_manifests, has_manifests(connection, repository_id, set(needed_manifests))
        ),
    }
    if missing:
        raise ManifestBlobUnknown(repository, tuple(missing.values()))


def insert_manifest(
    connection: Connection,
    repository_id: int,
    stored: StoredManifest,
    manifest: Manifest,
    now: datetime,
) -> None:
    insert_or_ignore(
        connection,
        manifests,
        repository_id=repository_id,
        digest=str(stored.digest),
        media_type=stored.media_type,
        artifact_type=manifest.artifact_type,
        subject=str(manifest.subject.digest) if manifest.subject else None,
        annotations=json.dumps(dict(manifest.annotations)),
        body=stored.body,
        pushed_at=now,
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
    build_id: str | None,
    now: datetime,
) -> None:
    changed = connection.execute(
        update(tags)
        .where(tags.c.repository_id == repository_id, tags.c.name == tag.value)
        .values(digest=str(digest), build_id=build_id, updated_at=now)
    )
    if not changed.rowcount:
        connection.execute(
            insert(tags).values(
                repository_id=repository_id,
                name=tag.value,
                digest=str(digest),
                build_id=build_id,
                updated_at=now,
            )
        )


def without(needed: dict[str, Digest], found: set[str]) -> dict[str, Digest]:
    return {text: digest for text, digest in needed.items() if text not in found}


def parts(values: Collection[str]) -> list[list[str]]:
    """`values` in lists that fit a statement's parameters."""
    ordered = sorted(values)
    return [
        ordered[start : start + _MAX_PARAMETERS]
        for start in range(0, len(ordered), _MAX_PARAMETERS)
    ]
