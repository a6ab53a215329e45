"""What the registry needs: a store of bytes, and a store of what they mean."""

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from datetime import datetime
from typing import Protocol

from layover.oci.digest import Digest, Hash
from layover.oci.manifests import Manifest
from layover.oci.names import Reference, RepositoryName, Tag
from layover.registry.models import ReferrerPage, StoredManifest, TagPage, Upload


class BlobStore(Protocol):
    """Bytes by digest, and the files that grow into them.

    Every method raises StorageFull or StorageUnavailable when the medium fails.
    """

    async def size(self, digest: Digest) -> int | None:
        """The blob's length in bytes, None when it is not there."""
        ...

    def read(self, digest: Digest, start: int, stop: int) -> AsyncGenerator[bytes]:
        """The blob's bytes from `start` up to and without `stop`, in bounded pieces.

        Raises StorageUnavailable where the blob ends before `stop`. What it holds open is
        given back when it ends or is closed.
        """
        ...

    async def delete(self, digest: Digest) -> None:
        """Remove the blob's bytes; nothing happens when they are not there."""
        ...

    async def append(
        self, upload_id: str, offset: int, chunks: AsyncIterator[bytes], hashes: Sequence[Hash]
    ) -> int:
        """Write `chunks` behind the upload's first `offset` bytes, feeding `hashes` alongside.

        Creates the upload on the first call and returns its new length. What lies behind
        `offset` from an attempt that was cut off is overwritten.
        """
        ...

    async def read_back(self, upload_id: str, size_bytes: int, hash_: Hash) -> None:
        """Feed the upload's first `size_bytes` bytes to `hash_`."""
        ...

    async def publish(self, upload_id: str, size_bytes: int, digest: Digest) -> None:
        """Make the upload the blob `digest`, durably; the caller has verified the bytes.

        Nothing of the blob is visible before all of it is. Publishing a blob that is there
        already keeps what is there. The upload is gone afterwards.
        """
        ...

    async def discard(self, upload_id: str) -> None:
        """Remove an upload and give its space back; nothing happens when it is not there."""
        ...

    async def list_uploads(self) -> frozenset[str]:
        """The ID of every upload that takes space."""
        ...


class RegistryStore(Protocol):
    """Repositories, links, manifests, tags and upload sessions. Every method is one transaction."""

    async def blob_size(self, repository: RepositoryName, digest: Digest) -> int | None:
        """The blob's length in bytes if the repository shows it."""
        ...

    async def link_upload(self, upload: Upload, digest: Digest, now: datetime) -> None:
        """Show a published upload's blob in its repository and forget the session."""
        ...

    async def mount_blob(
        self, source: RepositoryName, target: RepositoryName, digest: Digest, now: datetime
    ) -> bool:
        """Link what `source` shows into `target`; False when `source` does not show it."""
        ...

    async def unlink_blob(self, repository: RepositoryName, digest: Digest) -> None:
        """Hide the blob from the repository. Raises BlobUnknown, BlobInUse."""
        ...

    async def create_upload(self, upload: Upload, now: datetime) -> None: ...

    async def find_upload(
        self, repository: RepositoryName, upload_id: str, now: datetime
    ) -> Upload | None:
        """The session, None when it is not this repository's or expired at `now`."""
        ...

    async def resize_upload(self, upload_id: str, size_bytes: int, expires_at: datetime) -> None:
        """Record how much of the session counts."""
        ...

    async def renew_uploads(self, upload_ids: Collection[str], expires_at: datetime) -> None:
        """Let those of the sessions that there are expire at `expires_at`."""
        ...

    async def delete_upload(self, upload_id: str) -> None:
        """Forget the session; nothing happens when there is none."""
        ...

    async def live_uploads(self, now: datetime) -> frozenset[str]:
        """The IDs of the sessions that have not expired."""
        ...

    async def delete_expired_uploads(self, now: datetime) -> None: ...

    async def put_manifest(
        self,
        repository: RepositoryName,
        stored: StoredManifest,
        manifest: Manifest,
        tag: Tag | None,
        build_id: str | None,
        now: datetime,
    ) -> None:
        """Store a manifest and, with `tag`, let the tag name it, all or nothing.

        `build_id` is the build that pushes, if one does: it has to live still. Raises
        ManifestBlobUnknown, TagProtected, BuildOver.
        """
        ...

    async def find_manifest(
        self, repository: RepositoryName, reference: Reference
    ) -> StoredManifest | None: ...

    async def delete_manifest(self, repository: RepositoryName, digest: Digest) -> None:
        """Remove a manifest and the tags that name it. Raises ManifestUnknown, ManifestInUse,
        TagProtected."""
        ...

    async def delete_tag(self, repository: RepositoryName, tag: Tag) -> None:
        """Remove a tag, not what it names. Raises ManifestUnknown, TagProtected."""
        ...

    async def list_tags(
        self, repository: RepositoryName, limit: int | None, after: str | None
    ) -> TagPage: ...

    async def list_referrers(
        self,
        repository: RepositoryName,
        subject: Digest,
        artifact_type: str | None,
        after: Digest | None,
    ) -> ReferrerPage:
        """The manifests whose subject is `subject`, by digest, behind `after`.

        A page holds about a MiB of annotations at most, and one referrer at least.
        """
        ...
