"""What every pull asks of the database, and what a caller asks that sees one build alone.

Made once: building a statement and finding it in SQLAlchemy's cache takes longer than SQLite does
to answer it. What is narrowed to a build are statements of their own, so that nobody else's have a
condition more.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Select, Table, and_, bindparam, select

from layover.adapters.sql.retention_rows import NOW, is_live, is_needed_by, is_shown
from layover.adapters.sql.schema import (
    blobs,
    manifests,
    repositories,
    repository_blobs,
    retained_manifests,
    retentions,
    staged_tags,
    tags,
)
from layover.oci.digest import Digest
from layover.oci.names import Reference, RepositoryName, Tag

_BUILD: BindParameter[str] = bindparam("build")
_IN_REPOSITORY = repositories.c.name == bindparam("repository")
_OF_BUILD = retentions.c.build_id == _BUILD

_LINKED = (
    select(blobs.c.digest, blobs.c.size_bytes, blobs.c.key, repository_blobs.c.leased_until)
    .join(repository_blobs, repository_blobs.c.digest == blobs.c.digest)
    .join(repositories)
    .where(_IN_REPOSITORY, blobs.c.digest == bindparam("digest"), blobs.c.quarantined_at.is_(None))
)
BLOB = _LINKED.where(is_shown(NOW))
_BLOB_OF_BUILD = _LINKED.where(is_needed_by(_BUILD, NOW))

_MANIFEST = (
    select(
        manifests.c.repository_id,
        manifests.c.digest,
        manifests.c.media_type,
        manifests.c.body,
        manifests.c.leased_until,
        retentions.c.expires_at,
    )
    .select_from(manifests)
    .join(repositories, repositories.c.id == manifests.c.repository_id)
)
_RETAINED = (
    _MANIFEST.join(
        retained_manifests,
        and_(
            retained_manifests.c.repository_id == manifests.c.repository_id,
            retained_manifests.c.digest == manifests.c.digest,
        ),
    )
    .join(retentions, retentions.c.id == retained_manifests.c.retention_id)
    .where(_IN_REPOSITORY, manifests.c.digest == bindparam("reference"), is_live(NOW))
)
_BY_DIGEST = (
    # It is there as long as the last of them; a running build has no end yet.
    _RETAINED.order_by(retentions.c.expires_at.desc().nulls_first()).limit(1)
)


def _named_in(table: Table, lives_as: ColumnElement[bool]) -> Select[Any]:
    """The manifest that a row of the table names so, while the retention lives that it has."""
    return (
        _MANIFEST.join(
            table,
            and_(
                table.c.repository_id == manifests.c.repository_id,
                table.c.digest == manifests.c.digest,
            ),
        )
        .join(retentions, lives_as)
        .where(_IN_REPOSITORY, table.c.name == bindparam("reference"), is_live(NOW))
    )


_BY_TAG = _named_in(tags, retentions.c.id == tags.c.retention_id)
_BY_STAGED_TAG = _named_in(staged_tags, retentions.c.build_id == staged_tags.c.build_id).where(
    staged_tags.c.build_id == _BUILD
)
_BY_DIGEST_OF_BUILD, _BY_TAG_OF_BUILD = _RETAINED.where(_OF_BUILD), _BY_TAG.where(_OF_BUILD)

Asked = tuple[Select[Any], dict[str, Any]]


def blob_query(
    repository: RepositoryName, digest: Digest, now: datetime, of_build: str | None = None
) -> Asked:
    """The blob if the repository shows it; with `of_build`, if that build needs it there."""
    asked = {"repository": repository.value, "digest": str(digest), "now": now}
    if of_build is None:
        return BLOB, asked
    return _BLOB_OF_BUILD, {**asked, "build": of_build}


def manifest_query(
    repository: RepositoryName, reference: Reference, now: datetime, of_build: str | None = None
) -> Asked:
    """The manifest if the repository shows it; with `of_build`, if that build retains it there,
    under a tag if that is the build's."""
    asked = {"repository": repository.value, "reference": str(reference), "now": now}
    if of_build is None:
        return _BY_TAG if isinstance(reference, Tag) else _BY_DIGEST, asked
    query = _BY_TAG_OF_BUILD if isinstance(reference, Tag) else _BY_DIGEST_OF_BUILD
    return query, {**asked, "build": of_build}


def staged_query(repository: RepositoryName, tag: Tag, now: datetime, build_id: str) -> Asked:
    """The manifest that the running build named so: nobody else sees it there yet."""
    asked = {"repository": repository.value, "reference": tag.value, "now": now}
    return _BY_STAGED_TAG, {**asked, "build": build_id}
