"""The stores on a folder and a database of a test's own, with projects for repositories."""

import json
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from layover.adapters.blobs.files import FileBlobStore
from layover.adapters.blobs.objects import Bucket, ObjectBlobStore
from layover.adapters.sql.audit import SqlAuditStore
from layover.adapters.sql.builds import SqlBuildStore
from layover.adapters.sql.database import Database, insert_or_ignore
from layover.adapters.sql.identity import SqlIdentityStore
from layover.adapters.sql.migrate import migrate
from layover.adapters.sql.registry import SqlRegistryStore
from layover.adapters.sql.schema import builds, organizations, projects, retentions
from layover.adapters.sql.uploads import SqlUploadStore
from layover.builds.models import BuildStatus
from layover.oci.digest import Digest
from layover.oci.manifests import OCI_INDEX, OCI_MANIFEST, parse_manifest
from layover.oci.names import RepositoryName, Tag
from layover.registry.models import StoredBlob, StoredManifest, Upload

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
LEASE = timedelta(hours=1)
RETENTION, MAX_RETENTION = timedelta(days=7), timedelta(days=365)
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"

REPOSITORY = RepositoryName("mine/app")
SIBLING = RepositoryName("mine/other")
FOREIGN = RepositoryName("foreign/app")
# Where the project's builds are saved.
SAVES = RepositoryName("mine")


@dataclass(frozen=True)
class Stores:
    """One data folder and its database, opened."""

    folder: Path
    database_url: str
    database: Database
    identity: SqlIdentityStore
    audit: SqlAuditStore
    registry: SqlRegistryStore
    uploads: SqlUploadStore
    bucket: Bucket | None
    blobs: FileBlobStore | ObjectBlobStore

    def replica(self) -> AbstractContextManager["Stores"]:
        """Open them once more, as another process does."""
        return opened(self.folder, self.database_url, self.bucket)


@contextmanager
def opened(
    folder: Path, database_url: str | None = None, bucket: Bucket | None = None
) -> Iterator[Stores]:
    """Open the stores of a data folder; again and again on the same one, as processes do.

    The database is the folder's own (SQLite) unless another one is given, and so are the blobs.
    """
    database_url = database_url or f"sqlite:///{folder / 'layover.db'}"
    database = Database(database_url)
    blobs = ObjectBlobStore(bucket) if bucket else FileBlobStore(folder / "blobs")
    try:
        migrate(database.engine)
        _add_projects(database)
        yield Stores(
            folder,
            database_url,
            database,
            SqlIdentityStore(database),
            SqlAuditStore(database),
            SqlRegistryStore(database),
            SqlUploadStore(database),
            bucket,
            blobs,
        )
    finally:
        database.close()
        blobs.close()


def _add_projects(database: Database) -> None:
    with database.engine.begin() as connection:
        for organization_id, project_id in (("org", "mine"), ("other-org", "foreign")):
            _add(connection, organization_id, project_id)


def _add(connection: Connection, organization_id: str, project_id: str) -> None:
    for table, row in (
        (organizations, {"id": organization_id, "name": organization_id}),
        (
            projects,
            {
                "id": project_id,
                "organization_id": organization_id,
                "name": project_id,
                "retention_seconds": RETENTION // timedelta(seconds=1),
                "max_retention_seconds": MAX_RETENTION // timedelta(seconds=1),
                "extends_on_pull": False,
            },
        ),
    ):
        insert_or_ignore(connection, table, **row, created_at=NOW)


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    """A request's content as it arrives."""
    for part in parts:
        yield part


async def push_blob(
    stores: Stores,
    repository: RepositoryName,
    content: bytes,
    now: datetime = NOW,
    lease: timedelta = LEASE,
) -> Digest:
    """Put a blob's bytes and its link where they belong, with no service in between."""
    digest = Digest.of(content)
    upload_id = secrets.token_hex(16)
    key = stores.blobs.place(upload_id)
    upload = Upload(upload_id, repository, now + timedelta(hours=1), places=frozenset({key}))
    await stores.uploads.create_upload(upload, now)
    parts = await stores.blobs.append((), key, pieces(content), [])
    blob = StoredBlob(digest, len(content), await stores.blobs.publish(parts, key, []))
    await stores.uploads.link_upload(upload, blob, now, lease)
    return digest


def descriptor(media_type: str, content: bytes, **more: Any) -> dict[str, Any]:
    digest = str(Digest.of(content))
    return {"mediaType": media_type, "digest": digest, "size": len(content), **more}


def image(*layers: bytes, config: bytes = b"{}", **more: Any) -> bytes:
    """An image manifest of a config and layers with these contents."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(CONFIG_TYPE, config),
        "layers": [descriptor(LAYER_TYPE, layer) for layer in layers],
    }
    return json.dumps({**document, **more}).encode()


def index(*children: bytes, **more: Any) -> bytes:
    """An index of these manifests."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [descriptor(OCI_MANIFEST, child) for child in children],
    }
    return json.dumps({**document, **more}).encode()


async def add_build(stores: Stores, repository: RepositoryName, build_id: str) -> None:
    """A build of the repository's project that runs, unless there is one with this ID."""
    row = {
        "id": build_id,
        "project_id": repository.project_id,
        "status": "running",
        "command": "build",
        "save": True,
        "retention_seconds": RETENTION // timedelta(seconds=1),
        "options": "[]",
        "created_at": NOW,
        "seen_at": NOW,
        "step_count": 0,
        "log_size_bytes": 0,
    }
    retention = {"project_id": repository.project_id, "build_id": build_id, "created_at": NOW}

    def work(connection: Connection) -> None:
        insert_or_ignore(connection, builds, **row)
        insert_or_ignore(connection, retentions, **retention)

    await stores.database.write(work)


async def finish(stores: Stores, *build_ids: str, now: datetime = NOW) -> None:
    """Let builds end well: from here on everybody sees what they named."""
    for build_id in build_ids:
        await SqlBuildStore(stores.database).end(build_id, BuildStatus.FINISHED, None, now)


async def put_manifest(
    stores: Stores,
    repository: RepositoryName,
    body: bytes,
    tag: str | None = None,
    build_id: str | None = None,
    now: datetime = NOW,
    *,
    may_miss_blobs: bool = False,
) -> Digest:
    """Store a manifest as the service does, at a standing time; `build_id` is a live build's."""
    if build_id is not None:
        await add_build(stores, repository, build_id)
    manifest = parse_manifest(body, None)
    stored = StoredManifest(Digest.of(body), manifest.media_type, body)
    names = [Tag(tag)] if tag else []
    await stores.registry.put_manifest(
        repository, stored, manifest, names, build_id, now, may_miss_blobs=may_miss_blobs
    )
    return stored.digest


async def push_image(
    stores: Stores,
    repository: RepositoryName,
    *layers: bytes,
    tag: str | None = None,
    build_id: str | None = None,
    now: datetime = NOW,
) -> bytes:
    """Push an image with all that it needs; return its manifest."""
    for content in (b"{}", *layers):
        await push_blob(stores, repository, content, now)
    body = image(*layers)
    await put_manifest(stores, repository, body, tag, build_id, now)
    return body
