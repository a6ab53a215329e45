"""Repositories, links, manifests, tags and upload sessions in SQL."""

import json
from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Connection, and_, bindparam, delete, func, insert, select, update

from layover.adapters.sql.database import Database, insert_or_ignore, insert_or_ignore_all
from layover.adapters.sql.schema import (
    blobs,
    manifest_references,
    manifests,
    repositories,
    repository_blobs,
    tags,
    uploads,
)
from layover.oci.digest import Digest
from layover.oci.manifests import Descriptor, Manifest
from layover.oci.names import Reference, RepositoryName, Tag
from layover.registry.models import (
    BlobInUse,
    BlobUnknown,
    ManifestBlobUnknown,
    ManifestInUse,
    ManifestUnknown,
    Referrer,
    ReferrerPage,
    StoredManifest,
    TagPage,
    TagProtected,
    Upload,
    is_named_for,
)

# What a manifest refers to, in manifest_references.
_TO_BLOB, _TO_MANIFEST = "blob", "manifest"

# SQLite takes 32,766 parameters a statement; a manifest may name 10,000 layers.
_MAX_PARAMETERS = 5_000

# What a page of referrers holds: annotations, and the rest of a descriptor.
_REFERRERS_PAGE_BYTES = 1 << 20
_DESCRIPTOR_BYTES = 500


# What every pull asks. Made once: building a statement and finding it in SQLAlchemy's cache
# takes longer than SQLite does to answer it.
_IN_REPOSITORY = repositories.c.name == bindparam("repository")
_BLOB_SIZE = (
    select(blobs.c.size_bytes)
    .join(repository_blobs, repository_blobs.c.digest == blobs.c.digest)
    .join(repositories)
    .where(_IN_REPOSITORY, blobs.c.digest == bindparam("digest"))
)
_MANIFEST = (
    select(manifests.c.digest, manifests.c.media_type, manifests.c.body)
    .select_from(manifests)
    .join(repositories)
    .where(_IN_REPOSITORY)
)
_MANIFEST_BY_DIGEST = _MANIFEST.where(manifests.c.digest == bindparam("reference"))
_MANIFEST_BY_TAG = _MANIFEST.join(
    tags,
    and_(tags.c.repository_id == manifests.c.repository_id, tags.c.digest == manifests.c.digest),
).where(tags.c.name == bindparam("reference"))


class SqlRegistryStore:
    """The RegistryStore of a metadata database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- blobs --------------------------------------------------------------------------------

    async def blob_size(self, repository: RepositoryName, digest: Digest) -> int | None:
        asked = {"repository": repository.value, "digest": str(digest)}
        return await self._database.read(
            lambda connection: connection.execute(_BLOB_SIZE, asked).scalar()
        )

    async def link_upload(self, upload: Upload, digest: Digest, now: datetime) -> None:
        def work(connection: Connection) -> None:
            insert_or_ignore(
                connection, blobs, digest=str(digest), size_bytes=upload.size_bytes, created_at=now
            )
            _link(connection, _ensure_repository(connection, upload.repository, now), digest, now)
            connection.execute(delete(uploads).where(uploads.c.id == upload.id))

        await self._database.write(work)

    async def mount_blob(
        self, source: RepositoryName, target: RepositoryName, digest: Digest, now: datetime
    ) -> bool:
        def work(connection: Connection) -> bool:
            source_id = _repository_id(connection, source)
            if source_id is None or not _linked(connection, source_id, {str(digest)}):
                return False
            _link(connection, _ensure_repository(connection, target, now), digest, now)
            return True

        return await self._database.write(work)

    async def unlink_blob(self, repository: RepositoryName, digest: Digest) -> None:
        def work(connection: Connection) -> None:
            repository_id = _repository_id(connection, repository)
            if repository_id is None or not _linked(connection, repository_id, {str(digest)}):
                raise BlobUnknown(repository, digest)
            user = _first_user(connection, repository_id, digest, _TO_BLOB)
            if user is not None:
                raise BlobInUse(digest, user)
            connection.execute(
                delete(repository_blobs).where(
                    repository_blobs.c.repository_id == repository_id,
                    repository_blobs.c.digest == str(digest),
                )
            )

        await self._database.write(work)

    # --- upload sessions ----------------------------------------------------------------------

    async def create_upload(self, upload: Upload, now: datetime) -> None:
        def work(connection: Connection) -> None:
            connection.execute(
                insert(uploads).values(
                    id=upload.id,
                    repository_id=_ensure_repository(connection, upload.repository, now),
                    size_bytes=upload.size_bytes,
                    created_at=now,
                    expires_at=upload.expires_at,
                )
            )

        await self._database.write(work)

    async def find_upload(
        self, repository: RepositoryName, upload_id: str, now: datetime
    ) -> Upload | None:
        query = (
            select(uploads)
            .join(repositories)
            .where(
                uploads.c.id == upload_id,
                repositories.c.name == repository.value,
                uploads.c.expires_at > now,
            )
        )
        row = await self._database.read(lambda connection: connection.execute(query).first())
        return None if row is None else Upload(row.id, repository, row.size_bytes, row.expires_at)

    async def resize_upload(self, upload_id: str, size_bytes: int, expires_at: datetime) -> None:
        statement = (
            update(uploads)
            .where(uploads.c.id == upload_id)
            .values(size_bytes=size_bytes, expires_at=expires_at)
        )
        await self._database.write(lambda connection: connection.execute(statement))

    async def renew_uploads(self, upload_ids: Collection[str], expires_at: datetime) -> None:
        def work(connection: Connection) -> None:
            for part in parts(upload_ids):
                connection.execute(
                    update(uploads).where(uploads.c.id.in_(part)).values(expires_at=expires_at)
                )

        # Most of the time nobody uploads, and then the disk need not be woken.
        if upload_ids:
            await self._database.write(work)

    async def delete_upload(self, upload_id: str) -> None:
        statement = delete(uploads).where(uploads.c.id == upload_id)
        await self._database.write(lambda connection: connection.execute(statement))

    async def live_uploads(self, now: datetime) -> frozenset[str]:
        query = select(uploads.c.id).where(uploads.c.expires_at > now)
        return await self._database.read(
            lambda connection: frozenset(connection.execute(query).scalars())
        )

    async def delete_expired_uploads(self, now: datetime) -> None:
        statement = delete(uploads).where(uploads.c.expires_at <= now)
        await self._database.write(lambda connection: connection.execute(statement))

    # --- manifests ----------------------------------------------------------------------------

    async def put_manifest(
        self,
        repository: RepositoryName,
        stored: StoredManifest,
        manifest: Manifest,
        tag: Tag | None,
        build_id: str | None,
        now: datetime,
    ) -> None:
        def work(connection: Connection) -> None:
            repository_id = _ensure_repository(connection, repository, now)
            if tag is not None:
                _check_tag(connection, repository_id, tag, build_id)
            _check_references(connection, repository, repository_id, manifest)
            _insert_manifest(connection, repository_id, stored, manifest, now)
            if tag is not None:
                _set_tag(connection, repository_id, tag, stored.digest, build_id, now)

        await self._database.write(work)

    async def find_manifest(
        self, repository: RepositoryName, reference: Reference
    ) -> StoredManifest | None:
        query = _MANIFEST_BY_TAG if isinstance(reference, Tag) else _MANIFEST_BY_DIGEST
        asked = {"repository": repository.value, "reference": str(reference)}
        row = await self._database.read(lambda connection: connection.execute(query, asked).first())
        return row and StoredManifest(Digest.parse(row.digest), row.media_type, row.body)

    async def delete_manifest(self, repository: RepositoryName, digest: Digest) -> None:
        def work(connection: Connection) -> None:
            repository_id = _repository_id(connection, repository)
            if repository_id is None or not _has_manifests(
                connection, repository_id, {str(digest)}
            ):
                raise ManifestUnknown(repository, digest)
            index = _first_user(connection, repository_id, digest, _TO_MANIFEST)
            if index is not None:
                raise ManifestInUse(digest, index)
            named = and_(tags.c.repository_id == repository_id, tags.c.digest == str(digest))
            for row in connection.execute(
                select(tags.c.name, tags.c.build_id).where(named, tags.c.build_id.is_not(None))
            ):
                if is_named_for(Tag(row.name), row.build_id):
                    raise TagProtected(Tag(row.name), row.build_id)
            connection.execute(delete(tags).where(named))
            delete_manifests(connection, repository_id, {str(digest)})

        await self._database.write(work)

    # --- tags and referrers -------------------------------------------------------------------

    async def delete_tag(self, repository: RepositoryName, tag: Tag) -> None:
        def work(connection: Connection) -> None:
            repository_id = _repository_id(connection, repository)
            if repository_id is not None:
                _check_tag(connection, repository_id, tag, None)
            gone = connection.execute(
                delete(tags).where(tags.c.repository_id == repository_id, tags.c.name == tag.value)
            )
            if not gone.rowcount:
                raise ManifestUnknown(repository, tag)

        await self._database.write(work)

    async def list_tags(
        self, repository: RepositoryName, limit: int | None, after: str | None
    ) -> TagPage:
        query = (
            select(tags.c.name)
            .join(repositories)
            .where(repositories.c.name == repository.value)
            .order_by(tags.c.name)
        )
        if after is not None:
            query = query.where(tags.c.name > after)
        if limit is not None:
            query = query.limit(limit + 1)
        names = await self._database.read(
            lambda connection: connection.execute(query).scalars().all()
        )
        kept = names if limit is None else names[:limit]
        return TagPage(tuple(Tag(name) for name in kept), has_more=len(kept) < len(names))

    async def list_referrers(
        self,
        repository: RepositoryName,
        subject: Digest,
        artifact_type: str | None,
        after: Digest | None,
    ) -> ReferrerPage:
        query = (
            select(
                manifests.c.digest,
                manifests.c.media_type,
                manifests.c.artifact_type,
                manifests.c.annotations,
                # Never the body itself: a page of them would be gigabytes.
                func.length(manifests.c.body).label("size_bytes"),
            )
            .join(repositories)
            .where(repositories.c.name == repository.value, manifests.c.subject == str(subject))
            .order_by(manifests.c.digest)
        )
        if artifact_type is not None:
            query = query.where(manifests.c.artifact_type == artifact_type)
        if after is not None:
            query = query.where(manifests.c.digest > str(after))

        def work(connection: Connection) -> ReferrerPage:
            found: list[Referrer] = []
            room = _REFERRERS_PAGE_BYTES
            # Row by row: annotations are as large as manifests may be.
            for row in connection.execution_options(yield_per=1).execute(query):
                room -= _DESCRIPTOR_BYTES + len(row.annotations)
                if room < 0 and found:
                    return ReferrerPage(tuple(found), has_more=True)
                found.append(
                    Referrer(
                        Descriptor(
                            media_type=row.media_type,
                            digest=Digest.parse(row.digest),
                            size_bytes=row.size_bytes,
                            annotations=tuple(json.loads(row.annotations).items()),
                        ),
                        row.artifact_type,
                    )
                )
            return ReferrerPage(tuple(found), has_more=False)

        return await self._database.read(work)


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


def _repository_id(connection: Connection, repository: RepositoryName) -> int | None:
    query = select(repositories.c.id).where(repositories.c.name == repository.value)
    return connection.execute(query).scalar()


def _ensure_repository(connection: Connection, repository: RepositoryName, now: datetime) -> int:
    """A repository comes to be with its first content; its project is there already."""
    repository_id = _repository_id(connection, repository)
    if repository_id is None:
        insert_or_ignore(
            connection,
            repositories,
            name=repository.value,
            project_id=repository.project_id,
            created_at=now,
        )
        repository_id = _repository_id(connection, repository)
    assert repository_id is not None
    return repository_id


def _link(connection: Connection, repository_id: int, digest: Digest, now: datetime) -> None:
    insert_or_ignore(
        connection,
        repository_blobs,
        repository_id=repository_id,
        digest=str(digest),
        linked_at=now,
    )


def _linked(connection: Connection, repository_id: int, digests: set[str]) -> set[str]:
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


def _has_manifests(connection: Connection, repository_id: int, digests: set[str]) -> set[str]:
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


def _first_user(
    connection: Connection, repository_id: int, digest: Digest, kind: str
) -> str | None:
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


def _check_tag(connection: Connection, repository_id: int, tag: Tag, build_id: str | None) -> None:
    """Raise TagProtected when the tag is another build's own name; save tags move."""
    owner = connection.execute(
        select(tags.c.build_id).where(
            tags.c.repository_id == repository_id, tags.c.name == tag.value
        )
    ).scalar()
    if owner is not None and owner != build_id and is_named_for(tag, owner):
        raise TagProtected(tag, owner)


def _check_references(
    connection: Connection, repository: RepositoryName, repository_id: int, manifest: Manifest
) -> None:
    """Raise ManifestBlobUnknown unless the repository holds what the manifest needs."""
    needed_blobs = {str(blob.digest): blob.digest for blob in manifest.needed_blobs}
    needed_manifests = {str(child.digest): child.digest for child in manifest.manifests}
    missing = {
        **_without(needed_blobs, _linked(connection, repository_id, set(needed_blobs))),
        **_without(
            needed_manifests, _has_manifests(connection, repository_id, set(needed_manifests))
        ),
    }
    if missing:
        raise ManifestBlobUnknown(repository, tuple(missing.values()))


def _insert_manifest(
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
    kinds = {str(blob.digest): _TO_BLOB for blob in manifest.needed_blobs}
    kinds |= {str(child.digest): _TO_MANIFEST for child in manifest.manifests}
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


def _set_tag(
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


def _without(needed: dict[str, Digest], found: set[str]) -> dict[str, Digest]:
    return {text: digest for text, digest in needed.items() if text not in found}


def parts(values: Collection[str]) -> list[list[str]]:
    """`values` in lists that fit a statement's parameters."""
    ordered = sorted(values)
    return [
        ordered[start : start + _MAX_PARAMETERS]
        for start in range(0, len(ordered), _MAX_PARAMETERS)
    ]
