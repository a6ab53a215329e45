"""What the folder's blob store does beside its contract: durability, space and descriptors."""

import asyncio
import errno
import os
import stat
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from layover.adapters.blobs.files import FileBlobStore
from layover.errors import StorageFull, StorageUnavailable
from layover.oci.digest import Digest, Hash, new_hash
from layover.registry.models import Part
from tests.stores import pieces

pytestmark = pytest.mark.anyio

LARGE = bytes(range(256)) * 8192  # 2 MiB


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FileBlobStore]:
    store = FileBlobStore(tmp_path / "blobs")
    yield store
    store.close()


def open_files(folder: Path) -> list[str]:
    """The files in the folder that this process has open."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = link.readlink()
        except FileNotFoundError:
            continue
        if target.is_relative_to(folder):
            found.append(str(target))
    return found


async def append(
    store: FileBlobStore,
    upload_id: str,
    offset: int,
    content: AsyncIterator[bytes],
    hashes: Sequence[Hash] = (),
) -> tuple[Part, ...]:
    key = store.place(upload_id)
    return await store.append([Part(key, offset)], key, content, hashes)


async def publish(store: FileBlobStore, content: bytes, upload_id: str = "upload") -> str:
    parts = await append(store, upload_id, 0, pieces(content))
    return await store.publish(parts, store.place(upload_id), [])


async def test_bytes_and_their_name_are_durable_before_the_answer(
    store: FileBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Invariant 1: the row that makes them a blob is written after the answer.
    synced: list[str] = []
    fsync = os.fsync

    def recorded(file: int) -> None:
        fsync(file)
        synced.append(Path(f"/proc/self/fd/{file}").readlink().name)

    monkeypatch.setattr(os, "fsync", recorded)
    await publish(store, b"content")
    assert synced == ["upload", "up", "data", "blobs"]


async def test_a_blob_of_the_first_release_is_read_and_deleted(
    store: FileBlobStore, tmp_path: Path
) -> None:
    digest = Digest.of(b"content")
    path = tmp_path / "blobs" / "sha256" / digest.hex[:2] / digest.hex
    path.parent.mkdir(parents=True)
    path.write_bytes(b"content")
    key = f"sha256/{digest.hex[:2]}/{digest.hex}"
    assert await store.size(key) == 7
    assert [block async for block in store.read(key, 0, 7)] == [b"content"]
    assert [found.key async for found in store.list_blobs()] == [key]
    await store.delete([key])
    assert not path.exists()


async def test_uploads_of_the_first_release_take_no_space(tmp_path: Path) -> None:
    (tmp_path / "blobs" / "uploads").mkdir(parents=True)
    (tmp_path / "blobs" / "uploads" / "session").write_bytes(LARGE)
    FileBlobStore(tmp_path / "blobs").close()
    assert not (tmp_path / "blobs" / "uploads").exists()


async def test_an_upload_that_is_shorter_than_it_should_be_is_an_error(
    store: FileBlobStore,
) -> None:
    key = store.place("upload")
    await append(store, "upload", 0, pieces(b"short"))
    with pytest.raises(StorageUnavailable):
        await append(store, "upload", 6, pieces(b"!"))
    with pytest.raises(StorageUnavailable):
        await store.publish([Part(key, 6)], key, [])


async def test_what_is_stored_is_its_owners_alone(store: FileBlobStore, tmp_path: Path) -> None:
    await publish(store, b"content")
    await append(store, "upload", 0, pieces(b"more"))
    for path in (tmp_path / "blobs").rglob("*"):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EIO, StorageUnavailable),
        (errno.EROFS, StorageUnavailable),
    ],
)
async def test_an_error_of_the_disk_is_told_as_ours(
    store: FileBlobStore, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception]
) -> None:
    def fails(*_: Any) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pwrite", fails)
    with pytest.raises(error):
        await append(store, "upload", 0, pieces(LARGE), [new_hash("sha256")])
    monkeypatch.undo()
    monkeypatch.setattr(os, "fsync", fails)
    parts = await append(store, "upload", 0, pieces(b"content"))
    with pytest.raises(error):
        await store.publish(parts, parts[0].key, [])


async def test_a_short_write_goes_on_where_it_stopped(
    store: FileBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(
        os, "pwrite", lambda file, data, at: pwrite(file, bytes(data[:100_000]), at)
    )
    key = await publish(store, LARGE)
    assert b"".join([block async for block in store.read(key, 0, len(LARGE))]) == LARGE


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 8 MiB. Mounting takes root, as the engines' tests do."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


async def test_a_full_file_system_fails_one_upload_and_gives_its_space_back(
    small_disk: Path,
) -> None:
    store = FileBlobStore(small_disk / "blobs")
    fits = await publish(store, LARGE, "fits")
    free = os.statvfs(small_disk).f_bavail
    with pytest.raises(StorageFull):
        await append(store, "large", 0, pieces(*[LARGE] * 8), [new_hash("sha256")])
    assert os.statvfs(small_disk).f_bavail < free
    await store.delete([store.place("large")])
    assert b"".join([block async for block in store.read(fits, 0, len(LARGE))]) == LARGE
    store.close()
    assert os.statvfs(small_disk).f_bavail == free
    assert open_files(small_disk) == []


async def test_no_file_stays_open_whatever_way_a_transfer_ends(tmp_path: Path) -> None:
    store = FileBlobStore(tmp_path / "blobs")
    key = await publish(store, LARGE)

    class GoneError(Exception):
        pass

    async def breaks_off() -> AsyncIterator[bytes]:
        yield LARGE
        raise GoneError

    writing = asyncio.Event()

    async def hangs() -> AsyncIterator[bytes]:
        yield LARGE
        writing.set()
        await asyncio.Event().wait()

    with pytest.raises(GoneError):
        await append(store, "one", 0, breaks_off())
    task = asyncio.create_task(append(store, "two", 0, hangs()))
    await writing.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(StorageUnavailable):
        await append(store, "one", len(LARGE) + 1, pieces(b""))
    blocks = store.read(key, 0, len(LARGE))
    await anext(blocks)
    assert open_files(tmp_path)
    await blocks.aclose()
    with pytest.raises(StorageUnavailable):
        async for _ in store.read(key, 0, len(LARGE) + 1):
            pass
    store.close()
    assert open_files(tmp_path) == []


async def test_a_file_whose_opener_was_canceled_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileBlobStore(tmp_path / "blobs")
    key = await publish(store, LARGE)
    opens, may_open = threading.Event(), threading.Event()
    os_open = os.open

    def slow_open(*arguments: Any) -> int:
        opens.set()
        may_open.wait()
        return os_open(*arguments)

    monkeypatch.setattr(os, "open", slow_open)
    for opening in (append(store, "upload", 0, pieces(LARGE)), anext(store.read(key, 0, 1))):
        opens.clear()
        may_open.clear()
        task = asyncio.ensure_future(opening)
        await asyncio.to_thread(opens.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        may_open.set()
    store.close()
    assert open_files(tmp_path) == []


async def test_a_folder_that_cannot_be_used_is_unavailable_storage(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageUnavailable):
        FileBlobStore(tmp_path / "file")
    store = FileBlobStore(tmp_path / "blobs")
    await store.ping()
    (tmp_path / "blobs" / "data").rmdir()
    with pytest.raises(StorageUnavailable):
        await store.ping()
    store.close()
