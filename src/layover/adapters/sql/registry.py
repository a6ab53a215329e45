"""Repositories, links, manifests, tags and upload sessions in SQL."""

import json
from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Connection, and_, bindparam, delete, func, insert, select, update

from layover.adapters.sql.database import Database, insert_or_ignore
from layover.adapters.sql.registry_rows import (
    TO_BLOB,
    TO_MANIFEST,
    check_build,
    check_references,
    check_tag,
    delete_manifests,
    ensure_repository,
    find_repository,
    first_user,
    has_manifests,
    insert_manifest,
    link,
    linked,
    parts,
    set_tag,
)
from layover.adapters.sql.schema import (
    blobs,
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
        return await self._database.look_up(
            lambda connection: connection.execute(_BLOB_SIZE, asked).scalar()
        )

    async def link_upload(self, upload: Upload, digest: Digest, now: datetime) -> None:
        def work(connection: Connection) -> None:
            insert_or_ignore(
                connection, blobs, digest=str(digest), size_bytes=upload.size_bytes, created_at=now
            )
            link(connection, ensure_repository(connection, upload.repository, now), digest, now)
            connection.execute(delete(uploads).where(uploads.c.id == upload.id))

        await self._database.write(work)

    async def mount_blob(
        self, source: RepositoryName, target: RepositoryName, digest: Digest, now: datetime
    ) -> bool:
        def work(connection: Connection) -> bool:
            source_id = find_repository(connection, source)
            if source_id is None or not linked(connection, source_id, {str(digest)}):
                return False
            link(connection, ensure_repository(connection, target, now), digest, now)
            return True

        return await self._database.write(work)

    async def unlink_blob(self, repository: RepositoryName, digest: Digest) -> None:
        def work(connection: Connection) -> None:
            repository_id = find_repository(connection, repository)
            if repository_id is None or not linked(connection, repository_id, {str(digest)}):
                raise BlobUnknown(repository, digest)
            user = first_user(connection, repository_id, digest, TO_BLOB)
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
                    repository_id=ensure_repository(connection, upload.repository, now),
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
        row = await self._database.look_up(lambda connection: connection.execute(query).first())
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
            if build_id is not None:
                check_build(connection, build_id)
            repository_id = ensure_repository(connection, repository, now)
            if tag is not None:
                check_tag(connection, repository_id, tag, build_id)
            check_references(connection, repository, repository_id, manifest)
            insert_manifest(connection, repository_id, stored, manifest, now)
            if tag is not None:
                set_tag(connection, repository_id, tag, stored.digest, build_id, now)

        await self._database.write(work)

    async def find_manifest(
        self, repository: RepositoryName, reference: Reference
    ) -> StoredManifest | None:
        query = _MANIFEST_BY_TAG if isinstance(reference, Tag) else _MANIFEST_BY_DIGEST
        asked = {"repository": repository.value, "reference": str(reference)}
        row = await self._database.look_up(
            lambda connection: connection.execute(query, asked).first()
        )
        return row and StoredManifest(Digest.parse(row.digest), row.media_type, row.body)

    async def delete_manifest(self, repository: RepositoryName, digest: Digest) -> None:
        def work(connection: Connection) -> None:
            repository_id = find_repository(connection, repository)
            if repository_id is None or not has_manifests(connection, repository_id, {str(digest)}):
                raise ManifestUnknown(repository, digest)
            index = first_user(connection, repository_id, digest, TO_MANIFEST)
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
            repository_id = find_repository(connection, repository)
            if repository_id is not None:
                check_tag(connection, repository_id, tag, None)
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
