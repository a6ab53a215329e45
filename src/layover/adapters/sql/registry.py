"""Repositories, links, manifests and tags in SQL."""

import json
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, func, select, union_all, update

from layover.adapters.sql.database import Database
from layover.adapters.sql.quotas import check_quota_of_blob
from layover.adapters.sql.registry_queries import blob_query, manifest_query, staged_query
from layover.adapters.sql.registry_rows import (
    TO_BLOB,
    TO_MANIFEST,
    ensure_repository,
    find_repository,
    insert_manifest,
    link,
    set_tag,
)
from layover.adapters.sql.retention_rows import (
    DELETED,
    above,
    bury,
    check_blobs,
    check_build,
    check_tag,
    end_lonely_pushes,
    expiry,
    forget_retained,
    is_live,
    is_retained_by,
    is_shown,
    is_visible,
    renew_pushes,
    retain,
    retain_push,
    retaining,
    retention_of_build,
    visible_manifests,
    visible_user,
)
from layover.adapters.sql.schema import (
    blobs,
    manifests,
    projects,
    repositories,
    repository_blobs,
    retained_manifests,
    retentions,
    staged_tags,
    tags,
    tombstones,
)
from layover.adapters.sql.staged_tags import stage_tag
from layover.oci.digest import Digest
from layover.oci.manifests import Descriptor, Manifest
from layover.oci.names import Reference, RepositoryName, Tag
from layover.registry.models import (
    BlobInUse,
    BlobUnknown,
    BuildOver,
    Gone,
    ManifestInUse,
    ManifestUnknown,
    Referrer,
    ReferrerPage,
    RepositoryPage,
    StoredBlob,
    StoredManifest,
    TagPage,
    TagProtected,
    named_build,
)

# What a page of referrers holds: annotations, and the rest of a descriptor.
_REFERRERS_PAGE_BYTES = 1 << 20
_DESCRIPTOR_BYTES = 500


class SqlRegistryStore:
    """The RegistryStore of a metadata database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- blobs --------------------------------------------------------------------------------

    async def find_blob(
        self,
        repository: RepositoryName,
        digest: Digest,
        now: datetime,
        of_build: str | None = None,
    ) -> StoredBlob | None:
        query, asked = blob_query(repository, digest, now, of_build)
        row = await self._database.look_up(
            lambda connection: connection.execute(query, asked).first()
        )
        return row and StoredBlob(digest, row.size_bytes, row.key)

    async def lease_blob(
        self, repository: RepositoryName, digest: Digest, now: datetime, lease: timedelta
    ) -> StoredBlob | None:
        query, asked = blob_query(repository, digest, now)
        row = await self._database.look_up(
            lambda connection: connection.execute(query, asked).first()
        )
        if row is None or _is_leased(row.leased_until, now, lease):
            return row and StoredBlob(digest, row.size_bytes, row.key)

        def work(connection: Connection) -> StoredBlob | None:
            # Asked again: told is what holds where the lease is written.
            row = connection.execute(query, asked).first()
            if row is None:
                return None
            connection.execute(
                update(repository_blobs)
                .where(
                    repository_blobs.c.repository_id == find_repository(connection, repository),
                    repository_blobs.c.digest == str(digest),
                )
                .values(leased_until=now + lease)
            )
            return StoredBlob(digest, row.size_bytes, row.key)

        return await self._database.write(work)

    async def mount_blob(
        self,
        source: RepositoryName | None,
        target: RepositoryName,
        digest: Digest,
        now: datetime,
        lease: timedelta,
    ) -> bool:
        shown = (
            select(blobs.c.size_bytes)
            .select_from(repository_blobs)
            .join(blobs, blobs.c.digest == repository_blobs.c.digest)
            .join(repositories, repositories.c.id == repository_blobs.c.repository_id)
            .where(
                repository_blobs.c.digest == str(digest),
                blobs.c.quarantined_at.is_(None),
                is_shown(now),
                repositories.c.project_id == target.project_id
                if source is None
                else repositories.c.name == source.value,
            )
            .limit(1)
        )

        def work(connection: Connection) -> bool:
            size_bytes = connection.execute(shown).scalar()
            if size_bytes is None:
                return False
            check_quota_of_blob(connection, target.project_id, digest, size_bytes)
            target_id = ensure_repository(connection, target, now)
            link(connection, target_id, digest, now, lease)
            return True

        return await self._database.write(work)

    async def unlink_blob(self, repository: RepositoryName, digest: Digest, now: datetime) -> None:
        query, asked = blob_query(repository, digest, now)

        def work(connection: Connection) -> None:
            if connection.execute(query, asked).first() is None:
                raise BlobUnknown(repository, digest)
            repository_id = find_repository(connection, repository)
            assert repository_id is not None
            user = visible_user(connection, repository_id, digest, TO_BLOB, now)
            if user is not None:
                raise BlobInUse(digest, user)
            # The collector takes the link away, once no lease is on it.
            connection.execute(
                update(repository_blobs)
                .where(
                    repository_blobs.c.repository_id == repository_id,
                    repository_blobs.c.digest == str(digest),
                )
                .values(shown_until=None, check_at=now)
            )

        await self._database.write(work)

    # --- manifests ----------------------------------------------------------------------------

    async def put_manifest(
        self,
        repository: RepositoryName,
        stored: StoredManifest,
        manifest: Manifest,
        names: Sequence[Tag],
        build_id: str | None,
        now: datetime,
        *,
        lease: timedelta = timedelta(0),
        may_miss_blobs: bool = False,
    ) -> None:
        digest = stored.digest

        def work(connection: Connection) -> None:
            if build_id is not None:
                check_build(connection, build_id)
            for tag in names:
                check_tag(connection, repository, tag, build_id, now)
            repository_id = ensure_repository(connection, repository, now)
            check_blobs(
                connection, repository, repository_id, manifest, now, may_miss=may_miss_blobs
            )
            insert_manifest(connection, repository_id, stored, manifest, now)
            subjects = {str(manifest.subject.digest)} if manifest.subject else set[str]()
            retained_by = set[int]()
            # What was visible is retained with all that needs it already, however many builds
            # share it.
            if not visible_manifests(connection, repository_id, {str(digest)}, now):
                # Those that waited for it: indexes that name it, and what it is a referrer of.
                waiting = above(connection, repository_id, {str(digest)})
                retained_by = retaining(connection, repository_id, waiting, now)
            own: int | None = None
            if build_id is not None:
                own = retention_of_build(connection, build_id, now)
                if own is None:
                    # What nothing retains would be there for nobody, and for ever.
                    raise BuildOver(build_id)
            elif names or not visible_manifests(connection, repository_id, subjects, now):
                own = retain_push(connection, repository.project_id, repository_id, digest, now)
            if own is not None:
                retained_by.add(own)
            retain(connection, repository_id, digest, retained_by, now)
            if build_id is None:
                # What a running build brought may go with it.
                end_lonely_pushes(connection, repository_id, {str(digest)})
            for tag in names:
                assert own is not None
                if build_id is None:
                    set_tag(connection, repository_id, tag, digest, own, now)
                else:
                    stage_tag(connection, build_id, repository_id, tag, digest)
            if lease:
                # Last: before, a lease means that it is pushed because of what was told of it.
                _lease_manifest(connection, repository_id, str(digest), now + lease)

        await self._database.write(work)

    async def find_manifest(
        self,
        repository: RepositoryName,
        reference: Reference,
        now: datetime,
        *,
        build_id: str | None = None,
        of_build: str | None = None,
    ) -> StoredManifest | None:
        row = await self._look_up(repository, reference, now, build_id, of_build)
        return row and StoredManifest(
            Digest.parse(row.digest), row.media_type, row.body, row.expires_at
        )

    async def lease_manifest(
        self,
        repository: RepositoryName,
        reference: Reference,
        now: datetime,
        lease: timedelta,
        *,
        pushes: bool,
        build_id: str | None = None,
    ) -> StoredManifest | None:
        query, asked = manifest_query(repository, reference, now)

        def work(connection: Connection) -> StoredManifest | None:
            row = _find_staged(connection, repository, reference, now, build_id)
            if row is None:
                row = connection.execute(query, asked).first()
                if row is None or (
                    pushes
                    and isinstance(reference, Tag)
                    and _is_to_be_pushed(connection, row.repository_id, reference, build_id)
                ):
                    return None
            if not _is_leased(row.leased_until, now, lease):
                _lease_manifest(connection, row.repository_id, row.digest, now + lease)
            expires_at = row.expires_at
            if pushes:
                renewed = renew_pushes(
                    connection, repository.project_id, row.repository_id, row.digest, now
                )
                if renewed is not None and expires_at is not None:
                    expires_at = max(expires_at, renewed)
            return StoredManifest(Digest.parse(row.digest), row.media_type, row.body, expires_at)

        if not pushes:
            row = await self._look_up(repository, reference, now, build_id)
            if row is None or _is_leased(row.leased_until, now, lease):
                return row and StoredManifest(
                    Digest.parse(row.digest), row.media_type, row.body, row.expires_at
                )
        return await self._database.write(work)

    async def _look_up(
        self,
        repository: RepositoryName,
        reference: Reference,
        now: datetime,
        build_id: str | None,
        of_build: str | None = None,
    ) -> Row[Any] | None:
        query, asked = manifest_query(repository, reference, now, of_build)
        return await self._database.look_up(
            lambda connection: (
                _find_staged(connection, repository, reference, now, build_id)
                or connection.execute(query, asked).first()
            )
        )

    async def extend_pulled(
        self,
        repository: RepositoryName,
        digest: Digest,
        now: datetime,
        of_build: str | None = None,
    ) -> None:
        retained = (
            select(retained_manifests.c.retention_id)
            .join(repositories, repositories.c.id == retained_manifests.c.repository_id)
            .where(
                repositories.c.name == repository.value,
                retained_manifests.c.digest == str(digest),
            )
        )
        wanted = select(projects.c.retention_seconds).where(
            projects.c.id == repository.project_id, projects.c.extends_on_pull
        )

        def work(connection: Connection) -> None:
            seconds = connection.execute(wanted).scalar()
            if seconds is None:
                return
            until = expiry(now, timedelta(seconds=seconds))
            extended = update(retentions).where(
                retentions.c.id.in_(retained), is_live(now), retentions.c.expires_at < until
            )
            if of_build is not None:
                extended = extended.where(retentions.c.build_id == of_build)
            connection.execute(extended.values(expires_at=until))

        await self._database.write(work)

    async def delete_manifest(
        self, repository: RepositoryName, digest: Digest, now: datetime
    ) -> None:
        def work(connection: Connection) -> None:
            repository_id = find_repository(connection, repository)
            if repository_id is None or not visible_manifests(
                connection, repository_id, {str(digest)}, now
            ):
                raise ManifestUnknown(repository, digest)
            index = visible_user(connection, repository_id, digest, TO_MANIFEST, now)
            if index is not None:
                raise ManifestInUse(digest, index)
            named = and_(tags.c.repository_id == repository_id, tags.c.digest == str(digest))
            shown = (
                select(tags.c.name, tags.c.build_id)
                .join(retentions, retentions.c.id == tags.c.retention_id)
                .where(named, tags.c.build_id.is_not(None), is_live(now))
            )
            staged = and_(
                staged_tags.c.repository_id == repository_id, staged_tags.c.digest == str(digest)
            )
            to_be_shown = select(staged_tags.c.name, staged_tags.c.build_id).where(staged)
            for row in connection.execute(union_all(shown, to_be_shown)):
                if named_build(row.name) == row.build_id:
                    raise TagProtected(Tag(row.name), row.build_id)
            connection.execute(delete(staged_tags).where(staged))
            for name in connection.execute(select(tags.c.name).where(named)).scalars().all():
                bury(connection, repository, name, DELETED, now)
            connection.execute(delete(tags).where(named))
            bury(connection, repository, str(digest), DELETED, now)
            # Invisible from here on; the collector takes it away, once no lease is on it.
            forget_retained(connection, repository_id, {str(digest)}, now)
            connection.execute(
                update(retentions)
                .where(
                    retentions.c.repository_id == repository_id,
                    retentions.c.digest == str(digest),
                    retentions.c.ended_at.is_(None),
                )
                .values(ended_at=now, end_reason=DELETED)
            )

        await self._database.write(work)

    async def find_gone(
        self, repository: RepositoryName, reference: Reference, now: datetime
    ) -> Gone | None:
        ended = select(retentions.c.expires_at, retentions.c.ended_at, retentions.c.end_reason)
        if isinstance(reference, Tag):
            ended = ended.join(tags, tags.c.retention_id == retentions.c.id).join(
                repositories, repositories.c.id == tags.c.repository_id
            )
            ended = ended.where(tags.c.name == reference.value)
        else:
            ended = ended.join(
                retained_manifests, retained_manifests.c.retention_id == retentions.c.id
            ).join(repositories, repositories.c.id == retained_manifests.c.repository_id)
            ended = ended.where(retained_manifests.c.digest == str(reference))
        ended = ended.where(repositories.c.name == repository.value, ~is_live(now))
        # The last of them tells, and a manifest can be of thousands of builds.
        over_at = func.coalesce(retentions.c.ended_at, retentions.c.expires_at)
        ended = ended.order_by(over_at.desc()).limit(1)
        buried = select(tombstones.c.reason, tombstones.c.gone_at).where(
            tombstones.c.project_id == repository.project_id,
            tombstones.c.repository == repository.value,
            tombstones.c.reference == str(reference),
        )

        def work(connection: Connection) -> Gone | None:
            found = [
                Gone(row.end_reason == DELETED, row.ended_at or row.expires_at)
                for row in connection.execute(ended)
            ]
            found += [
                Gone(row.reason == DELETED, row.gone_at) for row in connection.execute(buried)
            ]
            return max(found, key=lambda gone: gone.at, default=None)

        return await self._database.read(work)

    # --- tags and referrers -------------------------------------------------------------------

    async def delete_tag(self, repository: RepositoryName, tag: Tag, now: datetime) -> None:
        def work(connection: Connection) -> None:
            check_tag(connection, repository, tag, None, now)
            repository_id = find_repository(connection, repository)
            if repository_id is None:
                raise ManifestUnknown(repository, tag)
            live = select(retentions.c.id).where(
                retentions.c.id == tags.c.retention_id, is_live(now)
            )
            gone = connection.execute(
                delete(tags).where(
                    tags.c.repository_id == repository_id,
                    tags.c.name == tag.value,
                    live.exists(),
                )
            )
            if not gone.rowcount:
                raise ManifestUnknown(repository, tag)
            bury(connection, repository, tag.value, DELETED, now)

        await self._database.write(work)

    async def list_tags(
        self,
        repository: RepositoryName,
        limit: int | None,
        after: str | None,
        now: datetime,
        of_build: str | None = None,
    ) -> TagPage:
        # A build has few tags. Without the sum SQLite reads all of the repository, in order.
        of_repository = tags.c.repository_id if of_build is None else tags.c.repository_id + 0
        query = (
            select(tags.c.name)
            .join(repositories, repositories.c.id == of_repository)
            .join(retentions, retentions.c.id == tags.c.retention_id)
            .where(repositories.c.name == repository.value, is_live(now))
            .order_by(tags.c.name)
        )
        if of_build is not None:
            query = query.where(retentions.c.build_id == of_build)
        if after is not None:
            query = query.where(tags.c.name > after)
        if limit is not None:
            query = query.limit(limit + 1)
        names = await self._database.read(
            lambda connection: connection.execute(query).scalars().all()
        )
        kept = names if limit is None else names[:limit]
        return TagPage(tuple(Tag(name) for name in kept), has_more=len(kept) < len(names))

    async def list_repositories(
        self,
        project_ids: Collection[str],
        limit: int | None,
        after: str | None,
        now: datetime,
        of_build: str | None = None,
    ) -> RepositoryPage:
        shown = (
            select(retained_manifests.c.digest)
            .join(retentions, retentions.c.id == retained_manifests.c.retention_id)
            .where(retained_manifests.c.repository_id == repositories.c.id, is_live(now))
        )
        if of_build is not None:
            shown = shown.where(retentions.c.build_id == of_build)
        query = (
            select(repositories.c.name)
            .where(repositories.c.project_id.in_(project_ids), shown.exists())
            .order_by(repositories.c.name)
        )
        if after is not None:
            query = query.where(repositories.c.name > after)
        if limit is not None:
            query = query.limit(limit + 1)
        names = await self._database.read(
            lambda connection: connection.execute(query).scalars().all()
        )
        kept = names if limit is None else names[:limit]
        return RepositoryPage(
            tuple(RepositoryName(name) for name in kept), has_more=len(kept) < len(names)
        )

    async def list_referrers(
        self,
        repository: RepositoryName,
        subject: Digest,
        artifact_type: str | None,
        after: Digest | None,
        now: datetime,
        of_build: str | None = None,
    ) -> ReferrerPage:
        row_id = manifests.c.repository_id, manifests.c.digest
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
            .where(
                repositories.c.name == repository.value,
                manifests.c.subject == str(subject),
                is_visible(*row_id, now)
                if of_build is None
                else is_retained_by(of_build, *row_id, now),
            )
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


def _find_staged(
    connection: Connection,
    repository: RepositoryName,
    reference: Reference,
    now: datetime,
    build_id: str | None,
) -> Row[Any] | None:
    """What the running build named so, which it sees itself."""
    if build_id is None or not isinstance(reference, Tag):
        return None
    query, asked = staged_query(repository, reference, now, build_id)
    return connection.execute(query, asked).first()


def _is_to_be_pushed(
    connection: Connection, repository_id: int, tag: Tag, build_id: str | None
) -> bool:
    """Whether a push has to come although what it brings is there: the tag is another build's, or
    nobody's yet, and would end with that."""
    owner = connection.execute(
        select(tags.c.build_id).where(
            tags.c.repository_id == repository_id, tags.c.name == tag.value
        )
    ).scalar()
    return owner != build_id and (owner is None or named_build(tag.value) != owner)


def _lease_manifest(
    connection: Connection, repository_id: int, digest: str, until: datetime
) -> None:
    connection.execute(
        update(manifests)
        .where(manifests.c.repository_id == repository_id, manifests.c.digest == digest)
        .values(leased_until=until)
    )


def _is_leased(leased_until: datetime | None, now: datetime, lease: timedelta) -> bool:
    """Whether a lease is fresh: of a client that asks on and on not every question is a write."""
    return leased_until is not None and leased_until - now >= lease * 0.99
