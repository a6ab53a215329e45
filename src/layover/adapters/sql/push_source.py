"""What the registry holds of a build, for a push to another registry.

A push outlives its build. What it reads is kept for it in a column that the collector alone looks
at: no route shows anything for it, and no manifest may name anything because of it.
"""

from collections.abc import AsyncGenerator, Collection
from datetime import datetime, timedelta

from sqlalchemy import Connection, Select, Table, func, or_, select, update

from layover.adapters.sql import schema
from layover.adapters.sql.database import Database
from layover.adapters.sql.registry_rows import parts
from layover.adapters.sql.retention_rows import is_visible
from layover.adapters.sql.schema import projects, repositories, repository_blobs
from layover.oci.digest import Digest
from layover.oci.names import RepositoryName
from layover.registry.models import StoredBlob, StoredManifest
from layover.registry.ports import BlobStore


class SqlPushSource:
    """The PushSource of a metadata database and the bytes that it names."""

    def __init__(self, database: Database, blob_store: BlobStore) -> None:
        self._database, self._blob_store = database, blob_store

    async def manifest(self, repository: RepositoryName, digest: Digest) -> StoredManifest | None:
        table = schema.manifests
        query = (
            select(table.c.media_type, table.c.body)
            .join(repositories, repositories.c.id == table.c.repository_id)
            .where(repositories.c.name == repository.value, table.c.digest == str(digest))
        )
        row = await self._database.look_up(lambda connection: connection.execute(query).first())
        return row and StoredManifest(digest, row.media_type, row.body)

    async def blob(self, repository: RepositoryName, digest: Digest) -> StoredBlob | None:
        table = schema.blobs
        query = (
            select(table.c.size_bytes, table.c.key)
            .join(repository_blobs, repository_blobs.c.digest == table.c.digest)
            .join(repositories, repositories.c.id == repository_blobs.c.repository_id)
            .where(
                repositories.c.name == repository.value,
                table.c.digest == str(digest),
                table.c.quarantined_at.is_(None),
            )
        )
        row = await self._database.look_up(lambda connection: connection.execute(query).first())
        return row and StoredBlob(digest, row.size_bytes, row.key)

    async def referrers(
        self, repository: RepositoryName, digest: Digest, now: datetime
    ) -> list[Digest]:
        table = schema.manifests
        query = (
            select(table.c.digest)
            .join(repositories, repositories.c.id == table.c.repository_id)
            .where(
                repositories.c.name == repository.value,
                table.c.subject == str(digest),
                is_visible(table.c.repository_id, table.c.digest, now),
            )
            .order_by(table.c.digest)
        )
        found = await self._database.read(
            lambda connection: connection.execute(query).scalars().all()
        )
        return [Digest.parse(text) for text in found]

    async def keep(
        self,
        repository: RepositoryName,
        manifests: Collection[Digest],
        blobs: Collection[Digest],
        now: datetime,
        lease: timedelta,
    ) -> bool:
        wanted = (
            (schema.manifests, _manifests_there, {str(digest) for digest in manifests}),
            (repository_blobs, _blobs_there, {str(digest) for digest in blobs}),
        )
        # A deleted project's is let go of (projects.py), and no push holds that up.
        of_project = (
            select(repositories.c.id)
            .join(projects, projects.c.id == repositories.c.project_id)
            .where(repositories.c.name == repository.value, projects.c.deleted_at.is_(None))
        )

        def work(connection: Connection) -> bool:
            repository_id = connection.execute(of_project).scalar()
            if repository_id is None:
                return False
            for _, there, digests in wanted:
                for part in parts(digests):
                    if connection.execute(there(repository_id, part)).scalar() != len(part):
                        return False
            for table, _, digests in wanted:
                for part in parts(digests):
                    _keep(connection, table, repository_id, part, now + lease)
            return True

        return await self._database.write(work)

    def read(self, blob: StoredBlob, start: int, stop: int) -> AsyncGenerator[bytes]:
        return self._blob_store.read(blob.key, start, stop)


def _manifests_there(repository_id: int, digests: Collection[str]) -> Select[int]:
    table = schema.manifests
    return select(func.count()).where(
        table.c.repository_id == repository_id, table.c.digest.in_(digests)
    )


def _blobs_there(repository_id: int, digests: Collection[str]) -> Select[int]:
    """How many of them the repository has, with bytes that are whole as far as is known."""
    table = schema.blobs
    return (
        select(func.count())
        .select_from(repository_blobs)
        .join(table, table.c.digest == repository_blobs.c.digest)
        .where(
            repository_blobs.c.repository_id == repository_id,
            repository_blobs.c.digest.in_(digests),
            table.c.quarantined_at.is_(None),
        )
    )


def _keep(
    connection: Connection,
    table: Table,
    repository_id: int,
    digests: Collection[str],
    until: datetime,
) -> None:
    # Another push may keep it for longer. When the collector looks is left as it is: at whatever
    # is over it looks by itself, and comes again when nobody keeps it any more.
    connection.execute(
        update(table)
        .where(
            table.c.repository_id == repository_id,
            table.c.digest.in_(digests),
            or_(table.c.kept_until.is_(None), table.c.kept_until < until),
        )
        .values(kept_until=until)
    )
