"""What of a build goes to other registries: its manifests, in the order to put them, and its blobs.

A manifest goes as the bytes that were pushed, so that its digest stays. Only an index from which
some platforms are left out is written anew: it is another index then.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from layover.oci.digest import Digest
from layover.oci.manifests import INDEX_TYPES, Descriptor, parse_manifest
from layover.oci.names import RepositoryName
from layover.oci.platforms import is_for
from layover.promotion.models import InvalidPush, SourceGone
from layover.promotion.ports import PushSource
from layover.registry.models import StoredManifest

# An index in an index in an index ... is nobody's image.
_MAX_DEPTH = 8

# What a push has in memory of manifests, which may have 4 MiB each; an image's have a few KiB.
_MOST_MANIFESTS = 2_000
_MOST_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class PlannedManifest:
    """A manifest that goes along."""

    digest: Digest
    media_type: str
    body: bytes = field(repr=False)
    subject: Descriptor | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """All that one image is, and what refers to it."""

    manifests: tuple[PlannedManifest, ...]
    """Children before those that name them; the last one is what the tags name."""
    referrers: tuple[PlannedManifest, ...]
    """What else goes, in an order in which it can be put, before the tags."""
    blobs: tuple[Descriptor, ...]
    """Each once."""
    kept: frozenset[Digest]
    """The manifests of the registry that have to stay there until all is read."""

    @property
    def root(self) -> PlannedManifest:
        return self.manifests[-1]


async def make_plan(
    source: PushSource,
    repository: RepositoryName,
    digest: Digest,
    platforms: Sequence[str],
    *,
    referrers_at: datetime | None,
) -> Plan:
    """Plan the push of a manifest, of an index those `platforms` alone, where some are named.

    With `referrers_at` what refers to it and lives at that time goes along.

    Raises SourceGone, and InvalidPush for platforms that it is not for, and for more manifests than
    a push may have.
    """
    planning = _Planning(source, repository)
    root = await planning.stored(digest)
    if platforms and root.media_type in INDEX_TYPES:
        await planning.add_platforms(root, platforms)
    else:
        await planning.add(root)
    manifests = planning.take()
    if referrers_at is not None:
        # Of those of what they refer to as well: an SBOM may be signed.
        for one in manifests:
            await planning.add_referrers(one.digest, referrers_at)
    referrers = planning.take()
    return Plan(manifests, referrers, tuple(planning.blobs.values()), frozenset(planning.kept))


class _Planning:
    def __init__(self, source: PushSource, repository: RepositoryName) -> None:
        self._source, self._repository = source, repository
        self._planned: list[PlannedManifest] = []
        self._seen: set[Digest] = set()
        self._size_bytes = 0
        self.kept: set[Digest] = set()
        self.blobs: dict[Digest, Descriptor] = {}

    def take(self) -> tuple[PlannedManifest, ...]:
        """What was planned since the last time."""
        planned, self._planned = tuple(self._planned), []
        return planned

    async def stored(self, digest: Digest) -> StoredManifest:
        stored = await self._source.manifest(self._repository, digest)
        if stored is None:
            raise SourceGone(f"manifest {digest}")
        self.kept.add(digest)
        self._size_bytes += len(stored.body)
        if len(self.kept) > _MOST_MANIFESTS or self._size_bytes > _MOST_BYTES:
            raise InvalidPush(
                f"the image, with what goes along, has more manifests than {_MOST_MANIFESTS}, or"
                f" more than {_MOST_BYTES >> 20} MiB of them: push a part of it with --platform,"
                " or without --referrers"
            )
        return stored

    async def add(self, stored: StoredManifest, depth: int = 0) -> None:
        if stored.digest in self._seen or depth > _MAX_DEPTH:
            return
        self._seen.add(stored.digest)
        manifest = parse_manifest(stored.body, stored.media_type)
        for child in manifest.manifests:
            await self.add(await self.stored(child.digest), depth + 1)
        for blob in manifest.needed_blobs:
            self.blobs.setdefault(blob.digest, blob)
        self._planned.append(
            PlannedManifest(stored.digest, stored.media_type, stored.body, manifest.subject)
        )

    async def add_platforms(self, stored: StoredManifest, platforms: Sequence[str]) -> None:
        """Of an index what is for one of the platforms, and what attests it.

        One image goes without an index around it, as it is built for one platform alone.
        """
        index = parse_manifest(stored.body, stored.media_type)
        images = [
            child
            for child in index.manifests
            if child.platform is not None and not child.is_attestation
        ]
        chosen = [
            child for child in images if any(is_for(child.platform, one) for one in platforms)
        ]
        for platform in platforms:
            if not any(is_for(child.platform, platform) for child in images):
                known = ", ".join(child.platform or "" for child in images) or "none"
                raise InvalidPush(f"the image is not built for {platform}; it is for {known}")
        if len(chosen) == 1:
            await self.add(await self.stored(chosen[0].digest))
            return
        wanted = {str(child.digest) for child in chosen}
        for child in index.manifests:
            if _attested(child) in wanted:
                wanted.add(str(child.digest))
        for child in index.manifests:
            if str(child.digest) in wanted:
                await self.add(await self.stored(child.digest))
        document = json.loads(stored.body)
        document["manifests"] = [
            child for child in document["manifests"] if child["digest"] in wanted
        ]
        body = json.dumps(document, separators=(",", ":")).encode()
        self._planned.append(
            PlannedManifest(Digest.of(body), stored.media_type, body, index.subject)
        )

    async def add_referrers(self, digest: Digest, now: datetime, depth: int = 0) -> None:
        if depth > _MAX_DEPTH:
            return
        for referrer in await self._source.referrers(self._repository, digest, now):
            if referrer not in self._seen:
                await self.add(await self.stored(referrer))
                await self.add_referrers(referrer, now, depth + 1)


def _attested(child: Descriptor) -> str:
    """What BuildKit's attestation in an index is of, empty for anything else."""
    return dict(child.annotations).get("vnd.docker.reference.digest", "")
