"""Manifests, tags and referrers of a repository."""

from collections.abc import Callable
from datetime import datetime

import structlog

from layover.oci.digest import Digest
from layover.oci.manifests import parse_manifest
from layover.oci.names import Reference, RepositoryName, Tag
from layover.registry.models import (
    DigestMismatch,
    ManifestTooLarge,
    ManifestUnknown,
    ReferrerPage,
    StoredManifest,
    TagPage,
)
from layover.registry.ports import RegistryStore

# distribution-spec v1.1.1, "Pushing Manifests": clients rely on at least 4 MiB.
MAX_MANIFEST_BYTES = 4 << 20

_log = structlog.get_logger(__name__)


class ManifestService:
    """Keeps manifests as the bytes that were pushed."""

    def __init__(self, store: RegistryStore, now: Callable[[], datetime]) -> None:
        self._store, self._now = store, now

    async def put(
        self,
        repository: RepositoryName,
        reference: Reference,
        body: bytes,
        content_type: str | None,
        build_id: str | None,
    ) -> tuple[StoredManifest, Digest | None]:
        """Store a manifest under a tag or its digest; return it and its subject's digest.

        `build_id` is the build whose token pushes, None for anybody else.

        Raises ManifestTooLarge, InvalidManifest, DigestMismatch, ManifestBlobUnknown,
        TagProtected, BuildOver, with nothing stored (distribution-spec v1.1.1, "Pushing
        Manifests").
        """
        if len(body) > MAX_MANIFEST_BYTES:
            raise ManifestTooLarge(MAX_MANIFEST_BYTES)
        tag, algorithm = (
            (reference, "sha256") if isinstance(reference, Tag) else (None, reference.algorithm)
        )
        digest = Digest.of(body, algorithm)
        if isinstance(reference, Digest) and digest != reference:
            raise DigestMismatch(reference, digest)
        manifest = parse_manifest(body, content_type)
        stored = StoredManifest(digest, manifest.media_type, body)
        await self._store.put_manifest(repository, stored, manifest, tag, build_id, self._now())
        _log.info(
            "manifest_committed",
            repository=str(repository),
            reference=str(reference),
            digest=str(digest),
            size_bytes=len(body),
        )
        return stored, manifest.subject.digest if manifest.subject else None

    async def find(self, repository: RepositoryName, reference: Reference) -> StoredManifest:
        """Raise ManifestUnknown unless the repository holds the manifest."""
        stored = await self._store.find_manifest(repository, reference)
        if stored is None:
            raise ManifestUnknown(repository, reference)
        return stored

    async def delete(self, repository: RepositoryName, reference: Reference) -> None:
        """Remove a tag, or a manifest with every tag that names it.

        Raises ManifestUnknown, ManifestInUse, TagProtected.
        """
        if isinstance(reference, Tag):
            await self._store.delete_tag(repository, reference)
        else:
            await self._store.delete_manifest(repository, reference)
        _log.info("manifest_deleted", repository=str(repository), reference=str(reference))

    async def list_tags(
        self, repository: RepositoryName, limit: int | None, after: str | None
    ) -> TagPage:
        """At most `limit` tags behind `after`, in lexical order."""
        return await self._store.list_tags(repository, limit, after)

    async def list_referrers(
        self,
        repository: RepositoryName,
        subject: Digest,
        artifact_type: str | None,
        after: Digest | None,
    ) -> ReferrerPage:
        """What refers to `subject`, behind `after`; nothing when there is no such manifest."""
        return await self._store.list_referrers(repository, subject, artifact_type, after)
