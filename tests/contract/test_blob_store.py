"""What every BlobStore does: the embedded one, of files."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layover.errors import StorageUnavailable
from layover.oci.digest import Hash, new_hash
from layover.registry.models import Part
from layover.registry.ports import BlobStore
from tests.stores import Stores, pieces

pytestmark = pytest.mark.anyio

LARGE = bytes(range(256)) * 8192  # 2 MiB: more than a block


@pytest.fixture
def store(stores: Stores) -> BlobStore:
    return stores.blobs


async def append(
    store: BlobStore,
    content: AsyncIterator[bytes],
    parts: tuple[Part, ...] = (),
    upload_id: str = "upload",
    hashes: Sequence[Hash] = (),
) -> tuple[Part, ...]:
    return await store.append(parts, store.place(upload_id), content, hashes)


async def publish(store: BlobStore, content: bytes, upload_id: str = "upload") -> str:
    parts = await append(store, pieces(content), (), upload_id)
    return await store.publish(parts, store.place(upload_id), [])


async def read(store: BlobStore, key: str, start: int = 0, stop: int | None = None) -> bytes:
    if stop is None:
        stop = await store.size(key)
        assert stop is not None
    async with aclosing(store.read(key, start, stop)) as blocks:
        return b"".join([block async for block in blocks])


async def stored(store: BlobStore) -> dict[str, int]:
    """What takes space."""
    return {found.key: found.size_bytes async for found in store.list_blobs()}


@pytest.mark.parametrize("content", [b"", b"x", LARGE], ids=len)
async def test_what_was_published_is_read_back(store: BlobStore, content: bytes) -> None:
    key = await publish(store, content)
    assert await store.size(key) == len(content)
    assert await read(store, key) == content


async def test_every_upload_has_bytes_of_its_own(store: BlobStore) -> None:
    first, second = [await publish(store, LARGE, upload_id) for upload_id in ("first", "second")]
    assert first != second
    await store.delete([first])
    assert await read(store, second) == LARGE


async def test_uploads_at_once_do_not_disturb_each_other(store: BlobStore) -> None:
    contents = {f"upload-{number}": LARGE[number:] for number in range(8)}
    keys = await asyncio.gather(*(publish(store, LARGE[n:], f"upload-{n}") for n in range(8)))
    assert [await read(store, key) for key in keys] == list(contents.values())


async def test_everything_that_takes_space_is_listed(store: BlobStore) -> None:
    before = datetime.now(UTC) - timedelta(minutes=1)
    assert await stored(store) == {}
    key = await publish(store, LARGE)
    (part,) = await append(store, pieces(b"content"), (), "another")
    assert await stored(store) == {key: len(LARGE), part.key: 7}
    assert [before < found.modified_at async for found in store.list_blobs()] == [True, True]
    await store.delete([part.key])
    assert await stored(store) == {key: len(LARGE)}


@pytest.mark.parametrize(
    "key",
    [
        *("", "data", "data/ab/cd/ef", "data//ab", "data/ab/c\0d", "data/ab/cd\n", "data\\ab\\cd"),
        *("../layover.db", "data/../../layover.db", "data/ab/.", "data/ab/..", "./data/ab"),
        "/etc/passwd",
    ],
)
async def test_a_key_that_is_none_touches_nothing(store: BlobStore, key: str) -> None:
    # No row holds one, and where one does all the same it must not lead outside.
    with pytest.raises(StorageUnavailable):
        await store.size(key)
    assert await store.delete([key]) == set()
    with pytest.raises(StorageUnavailable):
        await anext(store.read(key, 0, 1))
    with pytest.raises(StorageUnavailable):
        await store.append((), key, pieces(b"content"), [])
    with pytest.raises(StorageUnavailable):
        await store.publish((Part(key, 1),), key, [new_hash("sha256")])


@pytest.mark.parametrize(
    ("start", "stop"),
    [(0, 1), (5, 5), (524_287, 524_289), (1_000_000, 2_000_000), (2_097_151, 2_097_152)],
)
async def test_a_part_is_read_alone(store: BlobStore, start: int, stop: int) -> None:
    key = await publish(store, LARGE)
    assert await read(store, key, start, stop) == LARGE[start:stop]


async def test_blobs_come_in_pieces_whose_size_is_bounded(store: BlobStore) -> None:
    key = await publish(store, LARGE * 4)
    async with aclosing(store.read(key, 0, 4 * len(LARGE))) as blocks:
        assert max([len(block) async for block in blocks]) <= 1024 * 1024


async def test_a_blob_that_ends_early_breaks_off(store: BlobStore) -> None:
    key = await publish(store, b"content")
    came = []
    with pytest.raises(StorageUnavailable):
        async for block in store.read(key, 0, 8):
            came.append(block)
    assert b"".join(came) == b"content"


async def test_a_blob_that_is_not_there_cannot_be_read(store: BlobStore) -> None:
    with pytest.raises(StorageUnavailable):
        await anext(store.read("data/no/nothing", 0, 1))


async def test_a_deleted_blob_is_gone_and_a_reader_of_it_is_not_disturbed(store: BlobStore) -> None:
    key = await publish(store, LARGE)
    async with aclosing(store.read(key, 0, len(LARGE))) as blocks:
        start = await anext(blocks)
        assert await store.delete([key]) == {key}
        assert await store.delete([key]) == {key}
        assert await store.size(key) is None
        assert start + b"".join([block async for block in blocks]) == LARGE


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(chunks=st.lists(st.lists(st.binary(max_size=64), max_size=6), min_size=1, max_size=4))
async def test_an_upload_grows_by_what_is_appended_and_hashes_see_all_of_it(
    store: BlobStore, chunks: list[list[bytes]]
) -> None:
    hashes = [new_hash("sha256"), new_hash("sha512")]
    parts: tuple[Part, ...] = ()
    whole = b""
    for chunk in chunks:
        parts = await append(store, pieces(*chunk), parts, hashes=hashes)
        whole += b"".join(chunk)
        assert sum(part.size_bytes for part in parts) == len(whole)
    assert [hash_.hexdigest() for hash_ in hashes] == [
        hashlib.sha256(whole).hexdigest(),
        hashlib.sha512(whole).hexdigest(),
    ]
    again = [new_hash("sha256"), new_hash("sha512")]
    key = await store.publish(parts, store.place("upload"), again)
    assert await read(store, key) == whole
    assert [hash_.hexdigest() for hash_ in again] == [hash_.hexdigest() for hash_ in hashes]


async def test_what_lies_behind_the_parts_is_overwritten(store: BlobStore) -> None:
    async def breaks_off() -> AsyncIterator[bytes]:
        yield b" and more"
        raise ConnectionError

    parts = await append(store, pieces(b"acknowledged"))
    with pytest.raises(ConnectionError):
        await append(store, breaks_off(), parts)
    parts = await append(store, pieces(b"!"), parts)
    key = await store.publish(parts, store.place("upload"), [])
    assert await read(store, key) == b"acknowledged!"


async def test_what_lies_behind_the_parts_is_not_published(store: BlobStore) -> None:
    parts = await append(store, pieces(b"acknowledged"))
    await append(store, pieces(b"lost on the way"), parts)
    key = await store.publish(parts, store.place("upload"), [])
    assert await store.size(key) == 12
    assert await read(store, key) == b"acknowledged"


async def test_a_part_that_is_not_there_is_an_error(store: BlobStore) -> None:
    parts = await append(store, pieces(b"content"))
    await store.delete([part.key for part in parts])
    with pytest.raises(StorageUnavailable):
        await store.publish(parts, store.place("upload"), [new_hash("sha256")])


async def test_an_error_of_the_client_leaves_what_came_and_passes_through(store: BlobStore) -> None:
    class GoneError(Exception):
        pass

    async def breaks_off() -> AsyncIterator[bytes]:
        yield LARGE
        raise GoneError

    with pytest.raises(GoneError):
        await append(store, breaks_off())
    assert await read(store, await publish(store, b"again")) == b"again"


async def test_a_canceled_upload_can_be_made_again(store: BlobStore) -> None:
    started = asyncio.Event()

    async def hangs() -> AsyncIterator[bytes]:
        yield LARGE
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(append(store, hangs(), hashes=[new_hash("sha256")]))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await read(store, await publish(store, LARGE)) == LARGE
