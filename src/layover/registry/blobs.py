"""Blobs that a repository shows: looking, reading, mounting, deleting."""

from collections.abc import AsyncGenerator, Callable
from datetime import datetime

from layover.oci.digest import Digest
from layover.oci.names import RepositoryName
from layover.registry.models import BlobUnknown
from layover.registry.ports import BlobStore, RegistryStore


class BlobService:
    """Answers for the blobs of a repository; a blob that is not linked there does not exist."""

    def __init__(self, store: RegistryStore, blobs: BlobStore, now: Callable[[], datetime]) -> None:
        self._store, self._blobs, self._now = store, blobs, now

    async def size(self, repository: RepositoryName, digest: Digest) -> int:
        """The blob's length in bytes. Raises BlobUnknown."""
        size = await self._store.blob_size(repository, digest)
        # Asked of the bytes' store too: once a response has begun no error can be sent.
        if size is None or await self._blobs.size(digest) != size:
            raise BlobUnknown(repository, digest)
        return size

    def read(self, digest: Digest, start: int, stop: int) -> AsyncGenerator[bytes]:
        """The bytes from `start` up to and without `stop` of a blob that `size` answered for.

        The caller closes it, wherever it stops reading.
        """
        return self._blobs.read(digest, start, stop)

    async def mount(self, source: RepositoryName, target: RepositoryName, digest: Digest) -> bool:
        """Show in `target` what `source` shows; False when `source` has no such blob.

        The caller has checked that the client may pull from `source`
        (distribution-spec v1.1.1, "Mounting a blob from another repository").
        """
        return await self._store.mount_blob(source, target, digest, self._now())

    async def delete(self, repository: RepositoryName, digest: Digest) -> None:
        """Hide the blob from the repository. Raises BlobUnknown, BlobInUse."""
        await self._store.unlink_blob(repository, digest)
