"""Upload sessions: how bytes become a blob (distribution-spec v1.1.1, "Pushing blobs").

Bytes are hashed while they are written. A session that goes on in the process that began it
goes on with its hash; one that moved, or that names an algorithm nobody expected, is read back,
unless its row says the digest of what became durable with it.

Any replica may get any request of a session. Within a process its requests wait for each other;
between processes the row decides, and the bytes of a request that comes too late are dropped.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar
from weakref import WeakValueDictionary

import structlog

from layover.errors import StorageError, StorageFull, StorageUnavailable
from layover.oci.digest import Digest, Hash, new_hash
from layover.oci.names import RepositoryName
from layover.registry.models import (
    DigestMismatch,
    Part,
    QuotaExceeded,
    StoredBlob,
    Upload,
    UploadBusy,
    UploadOutOfOrder,
    UploadTruncated,
    UploadUnknown,
)
from layover.registry.ports import BlobStore, UploadStore

Result = TypeVar("Result")

# What a client that does not name its digest beforehand almost always ends with.
_USUAL_ALGORITHM = "sha256"

# A client that lost its connection and tries again at once meets its own first request, which
# ends as soon as the server notices.
_BUSY_PATIENCE = timedelta(seconds=10)

# How much is reserved at once of what a client brings without saying how much it is, at the
# most; and before it is known how much is left.
_STEP_BYTES, _FIRST_STEP_BYTES = 16 << 20, 1 << 20

# Sessions that a request writes to are renewed by every clean-up. What a request reserved whose
# process was killed, or whose replica is gone, counts no longer than this.
_STALE = timedelta(minutes=10)

_log = structlog.get_logger(__name__)


class Truncatable:
    """A request's content, which may end before it is whole."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self.is_truncated = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """What came, up to where it broke off."""
        try:
            async for chunk in self._chunks:
                yield chunk
        except UploadTruncated:
            self.is_truncated = True


class UploadService:
    """Receives blobs. Only verified bytes ever become visible."""

    def __init__(
        self,
        store: UploadStore,
        blobs: BlobStore,
        now: Callable[[], datetime],
        lifetime: timedelta,
        lease: timedelta,
        busy_patience: timedelta = _BUSY_PATIENCE,
        clean_up_interval: timedelta = timedelta(minutes=1),
    ) -> None:
        """`lifetime` is how long a session lives after its last request, `lease` how long a blob
        is kept for the client that brought it to name it in a manifest. `clean_up` is done every
        `clean_up_interval`.
        """
        self._store, self._blobs, self._now = store, blobs, now
        self._lifetime, self._lease, self._busy_patience = lifetime, lease, busy_patience
        # What is being written to is renewed by `clean_up`, on whichever server.
        self._idle = max(_STALE, 2 * clean_up_interval)
        # How far each session of this process has been hashed, and with what result so far.
        self._hashes: dict[str, tuple[tuple[Part, ...], Hash]] = {}
        # By repository too: a session that is another project's is unknown there, never busy.
        self._locks: WeakValueDictionary[tuple[RepositoryName, str], asyncio.Lock] = (
            WeakValueDictionary()
        )

    async def push(
        self,
        repository: RepositoryName,
        digest: Digest,
        chunks: AsyncIterator[bytes],
        length: int | None = None,
    ) -> None:
        """Receive a blob in one request. Raises DigestMismatch, UploadTruncated, QuotaExceeded.

        Whatever it raises, its session is over.
        """
        upload = await self.start(repository)
        try:
            await self.finish(repository, upload.id, digest, chunks, start=0, length=length)
        except (UploadTruncated, StorageError):
            # Nobody knows this session's ID, so nobody can go on with it.
            await self._end(upload.id)
            raise

    async def start(self, repository: RepositoryName) -> Upload:
        """Open a session. Raises QuotaExceeded."""
        now, upload_id = self._now(), secrets.token_hex(16)
        places = {self._blobs.place(upload_id)} if self._blobs.grows_in_place else set()
        upload = Upload(upload_id, repository, now + self._lifetime, places=frozenset(places))
        await self._with_room(upload, lambda: self._store.create_upload(upload, now))
        return upload

    async def find(self, repository: RepositoryName, upload_id: str) -> Upload:
        """The session as it stands. Raises UploadUnknown."""
        upload = await self._store.find_upload(repository, upload_id, self._now())
        if upload is None:
            raise UploadUnknown(upload_id)
        return upload

    async def append(
        self,
        repository: RepositoryName,
        upload_id: str,
        chunks: AsyncIterator[bytes],
        start: int | None,
        length: int | None = None,
    ) -> Upload:
        """Append to a session and return it as it stands then.

        `start` is the first byte named by Content-Range, None when the client named none. It
        has to equal the current length (distribution-spec v1.1.1, "Pushing a blob in chunks").
        `length` is how many bytes the client announced, None when it did not.

        Raises UploadUnknown, UploadBusy, UploadOutOfOrder; UploadTruncated when the client went
        away, with what came kept for it to go on from; QuotaExceeded, which ends the session.
        """
        async with self._locked(repository, upload_id):
            before = await self._opened(repository, upload_id, start)
            upload, is_truncated = await self._receive(before, chunks, length, _USUAL_ALGORITHM)
            await self._record(before, upload)
            if is_truncated:
                raise UploadTruncated
            return upload

    async def finish(
        self,
        repository: RepositoryName,
        upload_id: str,
        digest: Digest,
        chunks: AsyncIterator[bytes],
        start: int | None,
        length: int | None = None,
    ) -> None:
        """Append what is left, verify the whole, and show it in the repository as `digest`.

        Raises as `append` does, and DigestMismatch, which ends the session.
        """
        async with self._locked(repository, upload_id):
            before = await self._opened(repository, upload_id, start)
            upload, is_truncated = await self._receive(before, chunks, length, digest.algorithm)
            if is_truncated:
                await self._record(before, upload)
                raise UploadTruncated
            written = {part.key for part in upload.parts}
            try:
                # Bytes first, row second: a crash in between leaves bytes that nobody sees. The
                # other order promises a digest that we cannot serve.
                key, actual = await self._or_end(upload.id, self._publish(upload, digest.algorithm))
                written.add(key)
                if actual != digest:
                    await self._end(upload_id)
                    raise DigestMismatch(digest, actual)
                blob = StoredBlob(digest, upload.size_bytes, key)
                await self._or_end(upload_id, self._link(before, blob))
            except (UploadUnknown, UploadBusy, UploadOutOfOrder, DigestMismatch):
                await self._discard(before, written)
                raise
            finally:
                self._hashes.pop(upload_id, None)
        _log.info(
            "blob_committed",
            repository=str(repository),
            digest=str(digest),
            size_bytes=upload.size_bytes,
        )

    async def cancel(self, repository: RepositoryName, upload_id: str) -> None:
        """End a session and give its space back. Raises UploadUnknown, UploadBusy."""
        async with self._locked(repository, upload_id):
            await self.find(repository, upload_id)
            await self._end(upload_id)

    async def clean_up(self) -> int:
        """End the sessions that expired; return how many keys the collector removes for it."""
        now = self._now()
        # However short a session's life is, it goes on while a request is writing to it.
        await self._store.renew_uploads(self._busy(), now, now + self._lifetime, self._lease)
        await self._store.release_reservations(now + self._lifetime - self._idle)
        keys = 0
        for upload_id in await self._store.expired_uploads(now):
            # Its owner may have gone on with it since it was listed.
            keys += await self._end(upload_id, expired_by=now, removes=False)
        # Before the question: what begins meanwhile is not in its answer.
        hashed = set(self._hashes)
        for upload_id in hashed - await self._store.live_uploads(now):
            self._hashes.pop(upload_id, None)
        return keys

    async def _opened(
        self, repository: RepositoryName, upload_id: str, start: int | None
    ) -> Upload:
        upload = await self.find(repository, upload_id)
        if start is not None and start != upload.size_bytes:
            raise UploadOutOfOrder(upload_id, upload.size_bytes)
        return upload

    async def _receive(
        self, upload: Upload, chunks: AsyncIterator[bytes], length: int | None, algorithm: str
    ) -> tuple[Upload, bool]:
        """Write `chunks` behind the session's bytes; return it, and whether they broke off."""
        if upload.is_limited:
            if length:
                # Before anything is stored. What was announced and does not come is let go of
                # where the session is resized.
                reserve = partial(self._store.reserve, upload.id, length, is_anew=True)
                await self._or_end(upload.id, self._with_room(upload, reserve))
            chunks = self._reserved(upload, chunks, length or 0)
        hash_ = self._hash(upload, algorithm)
        content = Truncatable(chunks)
        key = await self._place(upload)
        parts = await self._or_end(
            upload.id,
            self._blobs.append(
                *(upload.parts, key, aiter(content), [hash_] if hash_ else []), length=length
            ),
        )
        received = replace(
            upload,
            parts=parts,
            digest=Digest(hash_.name, hash_.hexdigest()) if hash_ else None,
            places=upload.places | {key},
            expires_at=self._now() + self._lifetime,
        )
        if hash_ is not None:
            self._hashes[upload.id] = (received.parts, hash_)
        elif received.size_bytes == upload.size_bytes:
            received = replace(received, digest=upload.digest)
        return received, content.is_truncated

    async def _reserved(
        self, upload: Upload, chunks: AsyncIterator[bytes], room: int
    ) -> AsyncIterator[bytes]:
        """`chunks`, with what comes beyond `room` reserved step by step."""
        step, is_anew = _FIRST_STEP_BYTES, not room
        async for chunk in chunks:
            if len(chunk) > room:
                needed = len(chunk) - room
                more = max(needed, step)
                try:
                    left = await self._store.reserve(upload.id, more, is_anew=is_anew)
                except QuotaExceeded:
                    more = needed
                    reserve = partial(self._store.reserve, upload.id, more, is_anew=is_anew)
                    left = await self._with_room(upload, reserve)
                room, is_anew = room + more, False
                # The more is left, the less often it is asked; the less is left, the less
                # one upload keeps from others that it may not need.
                step = _STEP_BYTES if left is None else min(_STEP_BYTES, left // 64)
            room -= len(chunk)
            yield chunk

    async def _with_room(self, upload: Upload, work: Callable[[], Awaitable[Result]]) -> Result:
        """Do `work`; where a quota leaves no room for it, once more without the sessions of the
        project that broke off and that nobody went on with.

        A client whose connection broke begins a new one, and what it sent before would take its
        room for as long as a session lives.
        """
        try:
            return await work()
        except QuotaExceeded:
            idle_by = self._now() + self._lifetime - self._idle
            idle = await self._store.expired_uploads(idle_by, upload.repository.project_id)
            idle -= {upload.id, *self._busy()}
            if not idle:
                raise
            for upload_id in idle:
                await self._end(upload_id, expired_by=idle_by)
            return await work()

    def _busy(self) -> list[str]:
        """The sessions that a request of this process writes to."""
        return [upload_id for (_, upload_id), lock in self._locks.items() if lock.locked()]

    async def _place(self, upload: Upload) -> str:
        """Where the next bytes go; the row names it before anything is written."""
        key = self._blobs.place(upload.id)
        if key not in upload.places:
            await self._store.add_place(upload.id, key)
        return key

    async def _record(self, before: Upload, after: Upload) -> None:
        try:
            superseded = await self._store.resize_upload(before, after, self._now())
        except QuotaExceeded:
            await self._end(before.id)
            raise
        except (UploadUnknown, UploadBusy, UploadOutOfOrder):
            self._hashes.pop(before.id, None)
            await self._discard(before, {part.key for part in after.parts})
            raise
        await self._delete(superseded)

    def _hash(self, upload: Upload, algorithm: str) -> Hash | None:
        """The hash to go on with; None when the bytes so far were not hashed here."""
        # Taken out: a request that fails half-way leaves no hash that disagrees with the bytes.
        parts, hash_ = self._hashes.pop(upload.id, ((), None))
        if upload.size_bytes == 0:
            return new_hash(algorithm)
        # Of these very parts: another server's, of the same length, are other bytes.
        return hash_ if parts == upload.parts else None

    async def _publish(self, upload: Upload, algorithm: str) -> tuple[str, Digest]:
        """Make the session's bytes durable under one key; return it and their digest."""
        known = self._known_digest(upload)
        hashes = [] if known and known.algorithm == algorithm else [new_hash(algorithm)]
        key = upload.parts[0].key if len(upload.parts) == 1 else await self._place(upload)
        key = await self._blobs.publish(upload.parts, key, hashes)
        if hashes:
            return key, Digest(algorithm, hashes[0].hexdigest())
        assert known is not None
        return key, known

    async def _link(self, upload: Upload, blob: StoredBlob) -> None:
        kept = await self._store.find_bytes(blob.digest)
        # Where bytes were lost that somebody brought before, these are worth more.
        is_lost = kept is not None and await self._blobs.size(kept.key) != kept.size_bytes
        lost_key = kept.key if kept and is_lost else None
        await self._store.link_upload(upload, blob, self._now(), self._lease, lost_key=lost_key)

    def _known_digest(self, upload: Upload) -> Digest | None:
        """The digest of the session's bytes, unless they have to be read for it."""
        if upload.id in self._hashes or not self._blobs.grows_in_place:
            return upload.digest
        # Of what another process wrote in place, a power cut may have taken some.
        return None

    async def _or_end(self, upload_id: str, work: Awaitable[Result]) -> Result:
        """Do `work`; when there is no room for it, or the store fails, end the session.

        So its space comes back.
        """
        try:
            return await work
        except (StorageError, QuotaExceeded) as error:
            # A store that is away is not asked for more: the client waits, and the collector
            # removes what there is.
            await self._end(upload_id, removes=not isinstance(error, StorageUnavailable))
            raise

    async def _end(
        self, upload_id: str, *, expired_by: datetime | None = None, removes: bool = True
    ) -> int:
        """Forget a session and give its space back; return of how many keys."""
        self._hashes.pop(upload_id, None)
        now = self._now()
        try:
            keys = await self._store.delete_upload(upload_id, now, expired_by=expired_by)
        except StorageFull:
            # Where one disk has all, there is room for the row's end once the bytes are gone. The
            # row is there: it became no blob.
            await self._delete(await self._store.find_places(upload_id))
            keys = await self._store.delete_upload(upload_id, now, expired_by=expired_by)
        if removes:
            await self._delete(keys)
        return len(keys)

    async def _discard(self, before: Upload, written: Collection[str]) -> None:
        """Remove what a request wrote when another one was first, which may have ended the session:
        nothing names it then. Where there is one place alone it is the other's, too."""
        if not self._blobs.grows_in_place:
            await self._delete(set(written) - {part.key for part in before.parts})

    async def _delete(self, keys: Collection[str]) -> None:
        """Give space back at once, which the collector does in the end."""
        if keys:
            await self._blobs.delete(keys)

    @asynccontextmanager
    async def _locked(self, repository: RepositoryName, upload_id: str) -> AsyncIterator[None]:
        """One request at a time writes to a session."""
        lock = self._locks.setdefault((repository, upload_id), asyncio.Lock())
        try:
            async with asyncio.timeout(self._busy_patience.total_seconds()):
                await lock.acquire()
        except TimeoutError:
            raise UploadBusy(upload_id) from None
        try:
            yield
        finally:
            lock.release()
