"""Blobs as files of one folder.

    ROOT/sha256/ab/abcdef...    a blob, whole and verified, under its digest
    ROOT/sha512/ab/abcdef...
    ROOT/uploads/UPLOAD_ID      an upload session's bytes so far

A blob's file appears by a rename after its bytes are on the disk, so a crash leaves either no
blob or all of it.
"""

import asyncio
import errno
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog

from layover.errors import StorageFull, StorageUnavailable
from layover.oci.digest import Digest, Hash

Result = TypeVar("Result")

# One transfer holds two blocks at most: what arrives, and what is being hashed and written.
_BLOCK_BYTES = 512 * 1024

# Hashing and writing one upload take two threads; more threads than cores help as most wait
# for the disk.
_THREADS = 16

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

_log = structlog.get_logger(__name__)


class FileBlobStore:
    """The BlobStore of a folder, which has to be on one file system."""

    def __init__(self, root: Path) -> None:
        """Use `root`, making it when it is not there.

        Raises StorageFull, StorageUnavailable.
        """
        self._root = root
        self._uploads = root / "uploads"
        try:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._uploads.mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise _storage_error(error) from error
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="blobs")

    def close(self) -> None:
        """Wait for what is being read or written."""
        self._executor.shutdown()

    async def ping(self) -> None:
        """Raise StorageUnavailable unless the folder can be written to."""
        await self._run(lambda: os.utime(self._uploads))

    async def size(self, digest: Digest) -> int | None:
        return await self._run(lambda: _size(self._path(digest)))

    async def read(self, digest: Digest, start: int, stop: int) -> AsyncGenerator[bytes]:
        file = await self._open(lambda: os.open(self._path(digest), os.O_RDONLY))
        try:
            while start < stop:
                length = min(_BLOCK_BYTES, stop - start)
                block = await self._run(partial(os.pread, file, length, start))
                if not block:
                    _log.error("blob_truncated", digest=str(digest), at_byte=start)
                    raise StorageUnavailable
                start += len(block)
                yield block
        finally:
            self._close(file)

    async def delete(self, digest: Digest) -> None:
        await self._run(lambda: self._path(digest).unlink(missing_ok=True))

    async def append(
        self, upload_id: str, offset: int, chunks: AsyncIterator[bytes], hashes: Sequence[Hash]
    ) -> int:
        file = await self._open(lambda: _open_at(self._uploads / upload_id, offset))
        under_way: set[asyncio.Future[None]] = set()
        try:
            async for block in _blocks(chunks):
                # One block is hashed and written while the next one arrives.
                await _settle(under_way)
                at, offset = offset, offset + len(block)
                under_way = {
                    self._start(partial(_write, file, block, at)),
                    *(self._start(partial(hash_.update, block)) for hash_ in hashes),
                }
            await _settle(under_way)
        finally:
            # The file may only be closed when no thread uses it any more; canceled twice, as at
            # the process's end, it stays open.
            if under_way:
                await asyncio.wait(under_way)
            self._close(file)
        return offset

    async def read_back(self, upload_id: str, size_bytes: int, hash_: Hash) -> None:
        await self._run(lambda: _hash_file(self._uploads / upload_id, size_bytes, hash_))

    async def publish(self, upload_id: str, size_bytes: int, digest: Digest) -> None:
        await self._run(lambda: _publish(self._uploads / upload_id, size_bytes, self._path(digest)))

    async def discard(self, upload_id: str) -> None:
        await self._run(lambda: (self._uploads / upload_id).unlink(missing_ok=True))

    async def list_uploads(self) -> frozenset[str]:
        return await self._run(lambda: frozenset(path.name for path in self._uploads.iterdir()))

    def _path(self, digest: Digest) -> Path:
        return self._root / digest.algorithm / digest.hex[:2] / digest.hex

    async def _open(self, call: Callable[[], int]) -> int:
        """Open a file in a thread; when nobody waits for it any more it is closed again."""
        opening = self._executor.submit(call)
        try:
            return await asyncio.wrap_future(opening)
        except OSError as error:
            raise _storage_error(error) from error
        except asyncio.CancelledError:
            opening.add_done_callback(_close_opened)
            raise

    def _close(self, file: int) -> None:
        """Close a file in a thread: the last one to close a deleted file waits for the disk."""
        self._executor.submit(os.close, file)

    def _start(self, call: Callable[[], Result]) -> asyncio.Future[Result]:
        return asyncio.get_running_loop().run_in_executor(self._executor, call)

    async def _run(self, call: Callable[[], Result]) -> Result:
        try:
            return await self._start(call)
        except OSError as error:
            raise _storage_error(error) from error


async def _blocks(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Gather what arrives in small pieces into blocks that are worth a thread's while."""
    pieces: list[bytes] = []
    gathered = 0
    async for chunk in chunks:
        pieces.append(chunk)
        gathered += len(chunk)
        if gathered >= _BLOCK_BYTES:
            yield b"".join(pieces)
            pieces, gathered = [], 0
    if gathered:
        yield b"".join(pieces)


async def _settle(under_way: set[asyncio.Future[None]]) -> None:
    """Wait for all of a block's threads, then raise what one of them raised."""
    if not under_way:
        return
    done, _ = await asyncio.wait(under_way)
    for future in done:
        error = future.exception()
        if isinstance(error, OSError):
            raise _storage_error(error) from error
        if error is not None:
            raise error


def _storage_error(error: OSError) -> StorageFull | StorageUnavailable:
    if error.errno in _FULL:
        return StorageFull()
    _log.error("blob_store_failed", error=str(error))
    return StorageUnavailable()


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _close_opened(opening: Future[int]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        os.close(opening.result())


def _open_at(path: Path, offset: int) -> int:
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        if os.fstat(file).st_size < offset:
            raise OSError(errno.EIO, "the upload's file is shorter than what was acknowledged")
    except OSError:
        os.close(file)
        raise
    return file


def _write(file: int, block: bytes, at: int) -> None:
    view = memoryview(block)
    while view:
        written = os.pwrite(file, view, at)
        view, at = view[written:], at + written


def _hash_file(path: Path, size_bytes: int, hash_: Hash) -> None:
    with path.open("rb") as file:
        while size_bytes > 0:
            block = file.read(min(_BLOCK_BYTES, size_bytes))
            if not block:
                raise OSError(errno.EIO, "the upload's file is shorter than what was acknowledged")
            hash_.update(block)
            size_bytes -= len(block)


def _publish(upload: Path, size_bytes: int, blob: Path) -> None:
    folders = (blob.parent, blob.parent.parent, blob.parent.parent.parent)
    if _size(blob) == size_bytes:
        # Somebody else brought the same bytes; readers may have the file open already. Whoever
        # did may not have come to make its name durable, which our caller is about to rely on.
        _sync_folders(folders)
        upload.unlink(missing_ok=True)
        return
    file = os.open(upload, os.O_RDWR)
    try:
        os.ftruncate(file, size_bytes)
        os.fsync(file)
    finally:
        os.close(file)
    for folder in (blob.parent.parent, blob.parent):
        folder.mkdir(exist_ok=True, mode=0o700)
    upload.rename(blob)
    # The rename itself is durable only with its folder, and a new folder with the one above.
    _sync_folders(folders)


def _sync_folders(folders: Iterable[Path]) -> None:
    for folder in folders:
        file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(file)
        finally:
            os.close(file)
