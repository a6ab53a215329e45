"""What the registry holds of builds: the builds' SavedImages port.

A build's images are the tags that its token wrote, and all that those reach: an index's
manifests, a manifest's config and layers.
"""

import json
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

from sqlalchemy import (
    CTE,
    ColumnElement,
    Connection,
    Select,
    and_,
    func,
    literal,
    select,
)

from layover.adapters.sql.database import Database
from layover.adapters.sql.quotas import used_bytes
from layover.adapters.sql.schema import blobs, manifest_references, manifests, repositories, tags
from layover.builds.models import SavedImage
from layover.oci.manifests import INDEX_TYPES, parse_manifest
from layover.registry.ports import BlobStore

# A config names a platform in its first lines; a larger one is some other artifact's.
_MAX_CONFIG_BYTES = 1 << 20


class SqlSavedImages:
    """Reads builds' images from the registry's tables."""

    def __init__(self, database: Database, blob_store: BlobStore) -> None:
        self._database, self._blob_store = database, blob_store

    async def of_build(self, project_id: str, build_id: str) -> list[SavedImage]:
        def work(connection: Connection) -> list[_TaggedManifest]:
            condition = and_(tags.c.build_id == build_id, repositories.c.project_id == project_id)
            reach = _reach(condition, tags.c.name)
            sizes = {row.owner: row.size_bytes for row in connection.execute(_sizes(reach))}
            named = connection.execute(
                select(tags.c.repository_id, tags.c.name, tags.c.digest)
                .join(repositories, repositories.c.id == tags.c.repository_id)
                .where(condition)
                .order_by(tags.c.name)
            ).all()
            # Each manifest once, however many tags name it, and one at a time: as large as they
            # may be, thousands at once would take all memory.
            origins = {
                key: _origin(connection, *key)
                for key in dict.fromkeys((row.repository_id, row.digest) for row in named)
            }
            return [
                _TaggedManifest(
                    row.name,
                    row.digest,
                    origins[row.repository_id, row.digest],
                    sizes.get(row.name, 0),
                )
                for row in named
            ]

        found = await self._database.read(work)
        origins = dict.fromkeys(tagged.origin for tagged in found)
        platforms = {origin: await self._platforms(origin) for origin in origins}
        return [
            SavedImage(
                tag=tagged.tag,
                digest=tagged.digest,
                platforms=platforms[tagged.origin],
                size_bytes=tagged.size_bytes,
            )
            for tagged in found
        ]

    async def used_bytes(self, project_id: str) -> int:
        return await self._database.read(lambda connection: used_bytes(connection, project_id))

    async def sizes(self, build_ids: Sequence[str]) -> dict[str, int]:
        if not build_ids:
            return {}
        query = _sizes(_reach(tags.c.build_id.in_(build_ids), tags.c.build_id))
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return {row.owner: row.size_bytes for row in rows}

    async def _platforms(self, origin: "_Origin") -> tuple[str, ...]:
        if origin.config is None:
            return origin.platforms
        # Its descriptor says how long it is, but nobody checked.
        size_bytes = await self._blob_store.size(origin.config)
        if size_bytes is None or size_bytes > _MAX_CONFIG_BYTES:
            return ()
        async with aclosing(self._blob_store.read(origin.config, 0, size_bytes)) as blocks:
            body = b"".join([block async for block in blocks])
        return _config_platform(body)


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where an image's platforms are told: in its index, or in the config of its manifest."""

    platforms: tuple[str, ...]
    config: str | None
    """Where the blob store has it."""


@dataclass(frozen=True, slots=True)
class _TaggedManifest:
    tag: str
    digest: str
    origin: _Origin
    size_bytes: int


def _origin(connection: Connection, repository_id: int, digest: str) -> _Origin:
    row = connection.execute(
        select(manifests.c.media_type, manifests.c.body).where(
            manifests.c.repository_id == repository_id, manifests.c.digest == digest
        )
    ).first()
    if row is None:
        # Deleted since its tag was read, where a transaction sees what others commit.
        return _Origin((), None)
    manifest = parse_manifest(row.body, row.media_type)
    if manifest.media_type in INDEX_TYPES:
        named = (
            child.platform
            for child in manifest.manifests
            if child.platform and not child.is_attestation
        )
        return _Origin(tuple(named), None)
    if manifest.config is None:
        return _Origin((), None)
    key = select(blobs.c.key).where(blobs.c.digest == str(manifest.config.digest))
    return _Origin((), connection.execute(key).scalar())


def _reach(condition: ColumnElement[bool], owner: ColumnElement[str]) -> CTE:
    """Everything that tags with `condition` need, each digest once an `owner`."""
    reach = (
        select(owner.label("owner"), tags.c.repository_id, tags.c.digest)
        .join(repositories, repositories.c.id == tags.c.repository_id)
        .where(condition)
        .cte("reach", recursive=True)
    )
    return reach.union(
        select(reach.c.owner, reach.c.repository_id, manifest_references.c.digest).join(
            manifest_references,
            and_(
                manifest_references.c.repository_id == reach.c.repository_id,
                manifest_references.c.manifest_digest == reach.c.digest,
            ),
        )
    )


def _sizes(reach: CTE) -> Select[tuple[str, int]]:
    size = func.coalesce(func.length(manifests.c.body), blobs.c.size_bytes, literal(0))
    return (
        select(reach.c.owner, func.sum(size).label("size_bytes"))
        .outerjoin(
            manifests,
            and_(
                manifests.c.repository_id == reach.c.repository_id,
                manifests.c.digest == reach.c.digest,
            ),
        )
        .outerjoin(blobs, blobs.c.digest == reach.c.digest)
        .group_by(reach.c.owner)
    )


def _config_platform(body: bytes) -> tuple[str, ...]:
    """image-spec v1.1.1, "Image Configuration": the platform of an image without an index."""
    try:
        config = json.loads(body)
        parts = [config.get(key) for key in ("os", "architecture", "variant")]
        named = [part for part in parts if isinstance(part, str) and part]
    except (ValueError, AttributeError):
        return ()
    return ("/".join(named),) if len(named) > 1 else ()
