"""Blobs that a repository shows: looking, reading, mounting, deleting."""

from collections.abc import AsyncGenerator, Callable
from datetime import datetime, timedelta

from layover.oci.digest import Digest
from layover.oci.names import RepositoryName
from layover.registry.models import BlobUnknown, StoredBlob
from layover.registry.ports import BlobStore, RegistryStore


class BlobService:
    """Answers for the blobs of a repository; a blob that is not shown there does not exist."""

    def __init__(
        self,
        store: RegistryStore,
        blobs: BlobStore,
        now: Callable[[], datetime],
        lease: timedelta,
    ) -> None:
        """`lease` is how long what a client that may push was told to be there stays."""
        self._store, self._blobs, self._now, self._lease = store, blobs, now, lease

    async def find(
        self,
        repository: RepositoryName,
        digest: Digest,
        *,
        may_push: bool,
        of_build: str | None = None,
    ) -> StoredBlob:
        """The blob, if the repository shows it. Raises BlobUnknown.

        A client that may push relies on the answer: it leaves out what is there. To one that
        sees the build `of_build` alone, only what that build retains needs is shown.
        """
        now = self._now()
        if may_push:
            blob = await self._store.lease_blob(repository, digest, now, self._lease)
        else:
            blob = await self._store.find_blob(repository, digest, now, of_build)
        # Asked of the bytes' store too: once a response has begun no error can be sent.
        if blob is None or await self._blobs.size(blob.key) != blob.size_bytes:
            raise BlobUnknown(repository, digest)
        return blob

    def read(self, blob: StoredBlob, start: int, stop: int) -> AsyncGenerator[bytes]:
        """The bytes from `start` up to and without `stop`.

        The caller closes it, wherever it stops reading.
        """
        return self._blobs.read(blob.key, start, stop)

    async def mount(
        self, source: RepositoryName | None, target: RepositoryName, digest: Digest
    ) -> bool:
        """Show in `target` what `source` shows; False when `source` has no such blob.

        Without `source` it is whatever repository of the same project. The caller has checked
        that the client may pull from there (distribution-spec v1.1.1, "Mounting a blob from
        another repository").
        """
        return await self._store.mount_blob(source, target, digest, self._now(), self._lease)

    async def delete(self, repository: RepositoryName, digest: Digest) -> None:
        """Hide the blob from the repository. Raises BlobUnknown, BlobInUse."""
        await self._store.unlink_blob(repository, digest, self._now())
