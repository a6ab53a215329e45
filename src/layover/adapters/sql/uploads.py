"""Upload sessions in SQL.

A session's row holds its parts as a JSON list of [key, bytes], in order, and in the same list
the places that its requests may be writing to by now, as [key, null].
"""

import json
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Update,
    bindparam,
    case,
    delete,
    insert,
    literal,
    select,
    update,
)

from layover.adapters.sql.database import Database, insert_or_ignore, insert_or_ignore_all
from layover.adapters.sql.quotas import check_quota
from layover.adapters.sql.registry_rows import ensure_repository, link, parts
from layover.adapters.sql.schema import (
    blobs,
    doomed_objects,
    projects,
    repositories,
    repository_blobs,
    uploads,
)
from layover.oci.digest import Digest
from layover.oci.names import RepositoryName
from layover.registry.models import (
    Part,
    StoredBlob,
    Upload,
    UploadBusy,
    UploadOutOfOrder,
    UploadUnknown,
)


def _renew_links(now: datetime, until: datetime) -> Update:
    shown_until = repository_blobs.c.shown_until
    return (
        update(repository_blobs)
        .where(
            repository_blobs.c.repository_id == bindparam("of_repository"),
            repository_blobs.c.digest == bindparam("of_digest"),
        )
        .values(
            leased_until=until,
            check_at=until,
            # What was over before a client heard that its bytes are there stays so.
            shown_until=case(
                (shown_until > now, literal(until, shown_until.type)), else_=shown_until
            ),
        )
    )


class SqlUploadStore:
    """The UploadStore of a metadata database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create_upload(self, upload: Upload, now: datetime) -> None:
        def work(connection: Connection) -> None:
            check_quota(connection, upload.repository.project_id, 1)
            connection.execute(
                insert(uploads).values(
                    id=upload.id,
                    repository_id=ensure_repository(connection, upload.repository, now),
                    reserved_bytes=0,
                    created_at=now,
                    **_columns(upload, upload.places),
                )
            )

        await self._database.write(work)

    async def find_upload(
        self, repository: RepositoryName, upload_id: str, now: datetime
    ) -> Upload | None:
        query = (
            select(uploads, projects.c.quota_bytes)
            .join(repositories, repositories.c.id == uploads.c.repository_id)
            .join(projects, projects.c.id == repositories.c.project_id)
            .where(
                uploads.c.id == upload_id,
                repositories.c.name == repository.value,
                uploads.c.expires_at > now,
            )
        )
        row = await self._database.look_up(lambda connection: connection.execute(query).first())
        return None if row is None else _upload(row, repository)

    async def reserve(
        self, upload_id: str, more_bytes: int, *, is_anew: bool = False
    ) -> int | None:
        def work(connection: Connection) -> int | None:
            if is_anew:
                connection.execute(
                    update(uploads).where(uploads.c.id == upload_id).values(reserved_bytes=0)
                )
            left = check_quota(connection, _project_of(connection, upload_id), more_bytes)
            connection.execute(
                update(uploads)
                .where(uploads.c.id == upload_id)
                .values(reserved_bytes=uploads.c.reserved_bytes + more_bytes)
            )
            return left

        return await self._database.write(work)

    async def release_reservations(self, expires_before: datetime) -> None:
        stale = (uploads.c.reserved_bytes > 0) & (uploads.c.expires_at < expires_before)
        if await self._ids(stale):
            statement = update(uploads).where(stale).values(reserved_bytes=0)
            await self._database.write(lambda connection: connection.execute(statement))

    async def add_place(self, upload_id: str, key: str) -> None:
        def work(connection: Connection) -> None:
            text = _row(connection, upload_id)
            connection.execute(
                update(uploads)
                .where(uploads.c.id == upload_id)
                .values(parts=_text(_parts(text), _places(text) | {key}))
            )

        await self._database.write(work)

    async def resize_upload(self, before: Upload, after: Upload, now: datetime) -> frozenset[str]:
        def work(connection: Connection) -> frozenset[str]:
            places = _check_unchanged(connection, before, after.size_bytes)
            superseded = frozenset(part.key for part in before.parts) - frozenset(
                part.key for part in after.parts
            )
            doom(connection, superseded, None, now)
            connection.execute(
                update(uploads)
                .where(uploads.c.id == before.id)
                .values(reserved_bytes=0, **_columns(after, places - superseded))
            )
            return superseded

        return await self._database.write(work)

    async def renew_uploads(
        self, upload_ids: Collection[str], now: datetime, expires_at: datetime, lease: timedelta
    ) -> None:
        # By the index of check_at, which holds what no manifest names: that is little.
        unnamed = select(repository_blobs.c.repository_id, repository_blobs.c.digest).where(
            repository_blobs.c.check_at > now,
            repository_blobs.c.check_at < now + lease / 2,
            repository_blobs.c.leased_until > now,
        )

        def work(connection: Connection) -> None:
            busy: set[int] = set()
            for part in parts(upload_ids):
                renewed = update(uploads).where(uploads.c.id.in_(part))
                renewed = renewed.values(expires_at=expires_at).returning(uploads.c.repository_id)
                busy.update(connection.execute(renewed).scalars())
            brought = [
                {"of_repository": row.repository_id, "of_digest": row.digest}
                for row in connection.execute(unnamed)
                if row.repository_id in busy
            ]
            if brought:
                connection.execute(_renew_links(now, now + lease), brought)

        # Most of the time nobody uploads, and then the disk need not be woken.
        if upload_ids:
            await self._database.write(work)

    async def find_bytes(self, digest: Digest) -> StoredBlob | None:
        query = select(blobs.c.size_bytes, blobs.c.key).where(blobs.c.digest == str(digest))
        row = await self._database.look_up(lambda connection: connection.execute(query).first())
        return row and StoredBlob(digest, row.size_bytes, row.key)

    async def link_upload(
        self,
        upload: Upload,
        blob: StoredBlob,
        now: datetime,
        lease: timedelta,
        *,
        lost_key: str | None = None,
    ) -> None:
        def work(connection: Connection) -> None:
            places = _check_unchanged(connection, upload, blob.size_bytes)
            connection.execute(delete(uploads).where(uploads.c.id == upload.id))
            doom(connection, places - {blob.key}, None, now)
            _keep(connection, blob, lost_key, now)
            repository_id = ensure_repository(connection, upload.repository, now)
            link(connection, repository_id, blob.digest, now, lease)

        await self._database.write(work)

    async def find_places(self, upload_id: str) -> frozenset[str]:
        query = select(uploads.c.parts).where(uploads.c.id == upload_id)
        text = await self._database.read(lambda connection: connection.execute(query).scalar())
        return frozenset() if text is None else _places(text)

    async def delete_upload(
        self, upload_id: str, now: datetime, *, expired_by: datetime | None = None
    ) -> frozenset[str]:
        def work(connection: Connection) -> frozenset[str]:
            query = select(uploads.c.parts, uploads.c.expires_at).where(uploads.c.id == upload_id)
            row = connection.execute(query).first()
            if row is None or (expired_by is not None and row.expires_at > expired_by):
                return frozenset()
            places = _places(row.parts)
            doom(connection, places, None, now)
            connection.execute(delete(uploads).where(uploads.c.id == upload_id))
            return places

        return await self._database.write(work)

    async def live_uploads(self, now: datetime) -> frozenset[str]:
        return await self._ids(uploads.c.expires_at > now)

    async def expired_uploads(self, by: datetime, project_id: str | None = None) -> frozenset[str]:
        condition = uploads.c.expires_at <= by
        if project_id is not None:
            mine = select(repositories.c.id).where(repositories.c.project_id == project_id)
            condition &= uploads.c.repository_id.in_(mine)
        return await self._ids(condition)

    async def _ids(self, condition: ColumnElement[bool]) -> frozenset[str]:
        query = select(uploads.c.id).where(condition)
        return await self._database.read(
            lambda connection: frozenset(connection.execute(query).scalars())
        )


def doom(connection: Connection, keys: Iterable[str], digest: Digest | None, now: datetime) -> None:
    """Leave bytes that no row names any more to the collector."""
    insert_or_ignore_all(
        connection,
        doomed_objects,
        [{"key": key, "digest": str(digest or ""), "doomed_at": now} for key in sorted(keys)],
    )


def _keep(connection: Connection, blob: StoredBlob, lost_key: str | None, now: datetime) -> None:
    """Let the blob's row name these bytes, unless it names others that are whole."""
    insert_or_ignore(
        connection,
        blobs,
        digest=str(blob.digest),
        size_bytes=blob.size_bytes,
        key=blob.key,
        created_at=now,
    )
    row = connection.execute(select(blobs).where(blobs.c.digest == str(blob.digest))).one()
    if row.key == blob.key:
        return
    if row.quarantined_at is None and row.key != lost_key:
        doom(connection, [blob.key], blob.digest, now)
        return
    doom(connection, [row.key], blob.digest, now)
    connection.execute(
        update(blobs)
        .where(blobs.c.digest == str(blob.digest))
        .values(key=blob.key, size_bytes=blob.size_bytes, quarantined_at=None)
    )


def _check_unchanged(connection: Connection, upload: Upload, size_bytes: int) -> frozenset[str]:
    """Check that a session holds what `upload` was read with and may hold `size_bytes` now.

    Returns its places. The bytes of a request that lost against another one are worth nothing:
    they follow what has been followed by others. More than was reserved comes where the quota
    is younger than the request, or another request of the session let go of what was reserved.
    """
    row = connection.execute(
        select(uploads.c.parts, uploads.c.reserved_bytes, projects.c.quota_bytes)
        .join(repositories, repositories.c.id == uploads.c.repository_id)
        .join(projects, projects.c.id == repositories.c.project_id)
        .where(uploads.c.id == upload.id)
    ).first()
    if row is None:
        raise UploadUnknown(upload.id)
    found = _parts(row.parts)
    if found != upload.parts:
        held_bytes = sum(part.size_bytes for part in found)
        if held_bytes != upload.size_bytes:
            raise UploadOutOfOrder(upload.id, held_bytes)
        raise UploadBusy(upload.id)
    if row.quota_bytes is not None:
        more_bytes = size_bytes - upload.size_bytes - row.reserved_bytes
        check_quota(connection, upload.repository.project_id, more_bytes)
    return _places(row.parts)


def _project_of(connection: Connection, upload_id: str) -> str:
    project_id: str | None = connection.execute(
        select(repositories.c.project_id)
        .join(uploads, uploads.c.repository_id == repositories.c.id)
        .where(uploads.c.id == upload_id)
    ).scalar()
    if project_id is None:
        raise UploadUnknown(upload_id)
    return project_id


def _row(connection: Connection, upload_id: str) -> str:
    query = select(uploads.c.parts).where(uploads.c.id == upload_id)
    text: str | None = connection.execute(query).scalar()
    if text is None:
        raise UploadUnknown(upload_id)
    return text


def _columns(upload: Upload, places: Iterable[str]) -> dict[str, object]:
    return {
        "size_bytes": upload.size_bytes,
        "parts": _text(upload.parts, places),
        "digest": str(upload.digest) if upload.digest else None,
        "expires_at": upload.expires_at,
    }


def _text(parts: Iterable[Part], places: Iterable[str]) -> str:
    written = {part.key: part.size_bytes for part in parts}
    return json.dumps(list((written | dict.fromkeys(set(places) - written.keys())).items()))


def _parts(text: str) -> tuple[Part, ...]:
    return tuple(Part(key, size) for key, size in json.loads(text) if size is not None)


def _places(text: str) -> frozenset[str]:
    return frozenset(key for key, _ in json.loads(text))


def _upload(row: Row[Any], repository: RepositoryName) -> Upload:
    return Upload(
        row.id,
        repository,
        row.expires_at,
        _parts(row.parts),
        Digest.parse(row.digest) if row.digest else None,
        _places(row.parts),
        row.quota_bytes is not None,
    )
