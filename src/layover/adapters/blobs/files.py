"""Blobs as files of one folder.

A key (keys.py) is a path in the folder. Nothing is ever renamed: a file is a blob when a row of
the database says so, and the row is written when the file's bytes and its name are on the disk.
So a crash leaves no blob or all of it, and the row of a session names its file from the
beginning.
"""

import asyncio
import errno
import os
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog

from layover.adapters.blobs.blocks import blocks
from layover.adapters.blobs.keys import FOLDERS, check_key, key_of
from layover.errors import StorageError, StorageFull, StorageUnavailable
from layover.oci.digest import Hash
from layover.registry.models import Part, StoredObject

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
        self._data = root / "data"
        try:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._data.mkdir(exist_ok=True, mode=0o700)
            if (root / "uploads").is_dir():
                # The first release's sessions; the migration of the database ended them.
                shutil.rmtree(root / "uploads")
        except OSError as error:
            raise _storage_error(error) from error
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="blobs")

    def close(self) -> None:
        """Wait for what is being read or written."""
        self._executor.shutdown()

    async def ping(self) -> None:
        """Raise StorageUnavailable unless the folder can be written to."""
        await self._run(lambda: os.utime(self._data))

    @property
    def grows_in_place(self) -> bool:
        return True

    def place(self, upload_id: str) -> str:
        return key_of(upload_id)

    async def size(self, key: str) -> int | None:
        path = self._path(key)
        return await self._run(lambda: _size(path))

    async def read(self, key: str, start: int, stop: int) -> AsyncGenerator[bytes]:
        path = self._path(key)
        file = await self._open(lambda: os.open(path, os.O_RDONLY))
        try:
            while start < stop:
                length = min(_BLOCK_BYTES, stop - start)
                block = await self._run(partial(os.pread, file, length, start))
                if not block:
                    _log.error("blob_truncated", key=key, at_byte=start)
                    raise StorageUnavailable
                start += len(block)
                yield block
        finally:
            self._close(file)

    async def delete(self, keys: Collection[str]) -> frozenset[str]:
        # All in one thread: a way there and back for each of many small files takes twenty times
        # as long while the event loop is busy.
        return await self._run(lambda: frozenset(key for key in keys if self._unlink(key)))

    async def list_blobs(self) -> AsyncGenerator[StoredObject]:
        for folder in await self._run(lambda: _folders(self._root)):
            for found in await self._run(partial(_objects, self._root, folder)):
                yield found

    async def append(
        self,
        parts: Sequence[Part],
        key: str,
        chunks: AsyncIterator[bytes],
        hashes: Sequence[Hash],
        *,
        length: int | None = None,
    ) -> tuple[Part, ...]:
        path, offset = self._path(key), sum(part.size_bytes for part in parts)
        file = await self._open(lambda: _open_at(path, offset))
        under_way: set[asyncio.Future[None]] = set()
        try:
            async for block in blocks(chunks, _BLOCK_BYTES):
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
        return (Part(key, offset),)

    async def publish(self, parts: Sequence[Part], key: str, hashes: Sequence[Hash]) -> str:
        (part,) = parts
        path = self._path(part.key)
        await self._run(lambda: _make_durable(path, part.size_bytes, self._root))
        if hashes:
            await self._run(lambda: _hash_file(path, part.size_bytes, hashes))
        return part.key

    def _unlink(self, key: str) -> bool:
        """Whether the key has no file any more."""
        try:
            self._path(key).unlink(missing_ok=True)
        except (OSError, StorageError) as error:
            _log.warning("bytes_not_removed", key=key, reason=str(error))
            return False
        return True

    def _path(self, key: str) -> Path:
        """Where the key's bytes are. Whatever a row says, it is inside the folder."""
        check_key(key)
        return self._root / key

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
    path.parent.mkdir(exist_ok=True, mode=0o700)
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


def _hash_file(path: Path, size_bytes: int, hashes: Sequence[Hash]) -> None:
    with path.open("rb") as file:
        while size_bytes > 0:
            block = file.read(min(_BLOCK_BYTES, size_bytes))
            if not block:
                raise OSError(errno.EIO, "the upload's file is shorter than what was acknowledged")
            for hash_ in hashes:
                hash_.update(block)
            size_bytes -= len(block)


def _make_durable(path: Path, size_bytes: int, root: Path) -> None:
    file = os.open(path, os.O_RDWR)
    try:
        if os.fstat(file).st_size < size_bytes:
            raise OSError(errno.EIO, "the upload's file is shorter than what was acknowledged")
        os.ftruncate(file, size_bytes)
        os.fsync(file)
    finally:
        os.close(file)
    # A file's name is durable only with its folder, and a new folder's with the one above.
    _sync_folders((path.parent, path.parent.parent, root))


def _folders(root: Path) -> list[Path]:
    kinds = [root / name for name in FOLDERS if (root / name).is_dir()]
    return [folder for kind in kinds for folder in sorted(kind.iterdir())]


def _objects(root: Path, folder: Path) -> list[StoredObject]:
    found = []
    for entry in os.scandir(folder):
        try:
            stat = entry.stat()
        except FileNotFoundError:
            continue  # Deleted since the folder was listed.
        modified_at = datetime.fromtimestamp(stat.st_mtime, UTC)
        key = str(Path(entry.path).relative_to(root))
        found.append(StoredObject(key, stat.st_size, modified_at))
    return found


def _sync_folders(folders: Iterable[Path]) -> None:
    for folder in folders:
        file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(file)
        finally:
            os.close(file)
