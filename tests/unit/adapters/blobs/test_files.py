"""What the folder's blob store does beside its contract: durability, space and descriptors."""

import asyncio
import errno
import os
import stat
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from layover.adapters.blobs.files import FileBlobStore
from layover.errors import StorageFull, StorageUnavailable
from layover.oci.digest import Digest, new_hash
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


async def publish(store: FileBlobStore, content: bytes, upload_id: str = "upload") -> Digest:
    await store.append(upload_id, 0, pieces(content), [])
    digest = Digest.of(content)
    await store.publish(upload_id, len(content), digest)
    return digest


class Recorder:
    """Records what is done to the disk, in order, with the names of what it is done to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[tuple[str, str]] = []
        fsync, rename = os.fsync, Path.rename

        def recorded_fsync(file: int) -> None:
            fsync(file)
            self.done.append(("fsync", Path(f"/proc/self/fd/{file}").readlink().name))

        def recorded_rename(path: Path, target: Path) -> Path:
            self.done.append(("rename", target.name))
            return rename(path, target)

        monkeypatch.setattr(os, "fsync", recorded_fsync)
        monkeypatch.setattr(Path, "rename", recorded_rename)


async def test_bytes_are_durable_before_their_name_and_the_name_before_the_answer(
    store: FileBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Invariant 1: in this order alone a power cut leaves nothing, or all of a blob.
    recorder = Recorder(monkeypatch)
    digest = await publish(store, b"content")
    renamed = recorder.done.index(("rename", digest.hex))
    assert recorder.done[:renamed] == [("fsync", "upload")]
    assert set(recorder.done[renamed + 1 :]) == {
        ("fsync", digest.hex[:2]),
        ("fsync", "sha256"),
        ("fsync", "blobs"),
    }


async def test_a_blob_that_somebody_else_just_named_is_made_durable_too(
    store: FileBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The other one may not have come to it, and what we answer is relied on.
    digest = await publish(store, b"content", "first")
    recorder = Recorder(monkeypatch)
    await publish(store, b"content", "second")
    assert ("fsync", digest.hex[:2]) in recorder.done
    assert ("rename", digest.hex) not in recorder.done


async def test_a_blob_of_the_wrong_length_is_replaced_by_a_whole_one(
    store: FileBlobStore, tmp_path: Path
) -> None:
    digest = await publish(store, b"content")
    path = tmp_path / "blobs" / "sha256" / digest.hex[:2] / digest.hex
    path.write_bytes(b"con")
    await publish(store, b"content")
    assert path.read_bytes() == b"content"


async def test_what_is_stored_is_its_owners_alone(store: FileBlobStore, tmp_path: Path) -> None:
    await publish(store, b"content")
    await store.append("upload", 0, pieces(b"more"), [])
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
        await store.append("upload", 0, pieces(LARGE), [new_hash("sha256")])
    monkeypatch.undo()
    monkeypatch.setattr(os, "fsync", fails)
    await store.append("upload", 0, pieces(b"content"), [])
    with pytest.raises(error):
        await store.publish("upload", 7, Digest.of(b"content"))
    assert await store.size(Digest.of(b"content")) is None


async def test_a_short_write_goes_on_where_it_stopped(
    store: FileBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(
        os, "pwrite", lambda file, data, at: pwrite(file, bytes(data[:100_000]), at)
    )
    digest = await publish(store, LARGE)
    assert b"".join([block async for block in store.read(digest, 0, len(LARGE))]) == LARGE


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
        await store.append("large", 0, pieces(*[LARGE] * 8), [new_hash("sha256")])
    assert os.statvfs(small_disk).f_bavail < free
    await store.discard("large")
    assert b"".join([block async for block in store.read(fits, 0, len(LARGE))]) == LARGE
    store.close()
    assert os.statvfs(small_disk).f_bavail == free
    assert open_files(small_disk) == []


async def test_no_file_stays_open_whatever_way_a_transfer_ends(tmp_path: Path) -> None:
    store = FileBlobStore(tmp_path / "blobs")
    digest = await publish(store, LARGE)

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
        await store.append("one", 0, breaks_off(), [])
    task = asyncio.create_task(store.append("two", 0, hangs(), []))
    await writing.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(StorageUnavailable):
        await store.append("one", len(LARGE) + 1, pieces(b""), [])
    blocks = store.read(digest, 0, len(LARGE))
    await anext(blocks)
    assert open_files(tmp_path)
    await blocks.aclose()
    with pytest.raises(StorageUnavailable):
        async for _ in store.read(digest, 0, len(LARGE) + 1):
            pass
    store.close()
    assert open_files(tmp_path) == []


async def test_a_file_whose_opener_was_canceled_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileBlobStore(tmp_path / "blobs")
    digest = await publish(store, LARGE)
    opens, may_open = threading.Event(), threading.Event()
    os_open = os.open

    def slow_open(*arguments: Any) -> int:
        opens.set()
        may_open.wait()
        return os_open(*arguments)

    monkeypatch.setattr(os, "open", slow_open)
    for opening in (store.append("upload", 0, pieces(LARGE), []), anext(store.read(digest, 0, 1))):
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
    (tmp_path / "blobs" / "uploads").rmdir()
    with pytest.raises(StorageUnavailable):
        await store.ping()
    store.close()
