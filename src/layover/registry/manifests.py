"""Manifests, tags and referrers of a repository."""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from enum import Enum, auto

import structlog

from layover.oci.digest import Digest
from layover.oci.manifests import parse_manifest
from layover.oci.names import Reference, RepositoryName, Tag
from layover.registry.models import (
    DigestMismatch,
    ManifestTooLarge,
    ManifestUnknown,
    ReferrerPage,
    RepositoryPage,
    StoredManifest,
    TagPage,
)
from layover.registry.ports import RegistryStore

# distribution-spec v1.1.1, "Pushing Manifests": clients rely on at least 4 MiB.
MAX_MANIFEST_BYTES = 4 << 20

_log = structlog.get_logger(__name__)


class Audience(Enum):
    """Who asks for a manifest, and what for."""

    READER = auto()
    """It pulls, or it may not push."""
    WRITER = auto()
    """It may push, and may rely on what it is told."""
    PUSHER = auto()
    """It asks because it pushes, and leaves it at that when the manifest is there."""


class ManifestService:
    """Keeps manifests as the bytes that were pushed.

    `of_build` is of a reader that sees one build alone: what the build retains and the tags that
    live as it does. All else reads as what never was.
    """

    def __init__(
        self,
        store: RegistryStore,
        now: Callable[[], datetime],
        lease: timedelta,
        *,
        may_miss_blobs: bool = False,
    ) -> None:
        """`lease` is how long what a client that may push was told to be there stays;
        `may_miss_blobs` takes images without blobs that their repository does not know."""
        self._store, self._now, self._lease = store, now, lease
        self._may_miss_blobs = may_miss_blobs

    async def put(
        self,
        repository: RepositoryName,
        reference: Reference,
        body: bytes,
        content_type: str | None,
        build_id: str | None,
        tags: Sequence[Tag] = (),
    ) -> tuple[StoredManifest, Digest | None]:
        """Store a manifest under a tag or its digest; return it and its subject's digest.

        `build_id` is the build whose token pushes, None for anybody else; `tags` name the
        manifest too.

        Raises ManifestTooLarge, InvalidManifest, DigestMismatch, ManifestBlobUnknown,
        TagProtected, BuildOver, with nothing stored (distribution-spec v1.1.1, "Pushing
        Manifests").
        """
        if len(body) > MAX_MANIFEST_BYTES:
            raise ManifestTooLarge(MAX_MANIFEST_BYTES)
        names = [*tags, reference] if isinstance(reference, Tag) else list(tags)
        algorithm = "sha256" if isinstance(reference, Tag) else reference.algorithm
        digest = Digest.of(body, algorithm)
        if isinstance(reference, Digest) and digest != reference:
            raise DigestMismatch(reference, digest)
        manifest = parse_manifest(body, content_type)
        stored = StoredManifest(digest, manifest.media_type, body)
        await self._store.put_manifest(
            repository,
            stored,
            manifest,
            names,
            build_id,
            self._now(),
            lease=self._lease,
            may_miss_blobs=self._may_miss_blobs,
        )
        _log.info(
            "manifest_committed",
            repository=str(repository),
            reference=str(reference),
            digest=str(digest),
            size_bytes=len(body),
        )
        return stored, manifest.subject.digest if manifest.subject else None

    async def find(
        self,
        repository: RepositoryName,
        reference: Reference,
        audience: Audience,
        build_id: str | None = None,
        of_build: str | None = None,
    ) -> StoredManifest:
        """Raise ManifestUnknown unless the repository shows the manifest.

        `build_id` is the build whose token asks: what it pushes is saved under it, and it finds
        what it named before others do. To a pusher a manifest whose bytes were damaged is unknown
        too: so it brings them again.
        """
        now = self._now()
        if audience is Audience.READER:
            stored = await self._store.find_manifest(
                repository, reference, now, build_id=build_id, of_build=of_build
            )
        else:
            stored = await self._store.lease_manifest(
                repository,
                reference,
                now,
                self._lease,
                pushes=audience is Audience.PUSHER,
                build_id=build_id,
            )
        if stored is not None and audience is Audience.PUSHER and _is_damaged(stored):
            _log.error("manifest_damaged", repository=str(repository), digest=str(stored.digest))
            stored = None
        if stored is None and of_build is not None:
            # Whether there was anything is told of builds that it does not see.
            raise ManifestUnknown(repository, reference)
        if stored is None:
            gone = await self._store.find_gone(repository, reference, now)
            raise ManifestUnknown(repository, reference, gone)
        return stored

    async def extend_pulled(
        self, repository: RepositoryName, digest: Digest, of_build: str | None = None
    ) -> None:
        """The manifest was pulled from a project where a pull extends what it pulls."""
        await self._store.extend_pulled(repository, digest, self._now(), of_build)

    async def delete(self, repository: RepositoryName, reference: Reference) -> None:
        """Remove a tag, or a manifest with every tag that names it.

        Raises ManifestUnknown, ManifestInUse, TagProtected.
        """
        if isinstance(reference, Tag):
            await self._store.delete_tag(repository, reference, self._now())
        else:
            await self._store.delete_manifest(repository, reference, self._now())
        _log.info("manifest_deleted", repository=str(repository), reference=str(reference))

    async def list_tags(
        self,
        repository: RepositoryName,
        limit: int | None,
        after: str | None,
        of_build: str | None = None,
    ) -> TagPage:
        """At most `limit` tags behind `after`, in lexical order."""
        return await self._store.list_tags(repository, limit, after, self._now(), of_build)

    async def list_repositories(
        self,
        project_ids: Collection[str],
        limit: int | None,
        after: str | None,
        of_build: str | None = None,
    ) -> RepositoryPage:
        """At most `limit` repositories of the projects behind `after`, in lexical order."""
        return await self._store.list_repositories(project_ids, limit, after, self._now(), of_build)

    async def list_referrers(
        self,
        repository: RepositoryName,
        subject: Digest,
        artifact_type: str | None,
        after: Digest | None,
        of_build: str | None = None,
    ) -> ReferrerPage:
        """What refers to `subject`, behind `after`; nothing when there is no such manifest."""
        return await self._store.list_referrers(
            repository, subject, artifact_type, after, self._now(), of_build
        )


def _is_damaged(stored: StoredManifest) -> bool:
    return Digest.of(stored.body, stored.digest.algorithm) != stored.digest
