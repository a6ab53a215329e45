"""What every BlobStore does: the embedded one, of files."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layover.errors import StorageUnavailable
from layover.oci.digest import Digest, new_hash
from layover.registry.ports import BlobStore
from tests.stores import Stores, pieces

pytestmark = pytest.mark.anyio

LARGE = bytes(range(256)) * 8192  # 2 MiB: more than a block


@pytest.fixture
def store(stores: Stores) -> BlobStore:
    return stores.blobs


async def publish(store: BlobStore, content: bytes, upload_id: str = "upload") -> Digest:
    digest = Digest.of(content)
    await store.append(upload_id, 0, pieces(content), [])
    await store.publish(upload_id, len(content), digest)
    return digest


async def read(store: BlobStore, digest: Digest, start: int = 0, stop: int | None = None) -> bytes:
    if stop is None:
        stop = await store.size(digest)
        assert stop is not None
    async with aclosing(store.read(digest, start, stop)) as blocks:
        return b"".join([block async for block in blocks])


@pytest.mark.parametrize("content", [b"", b"x", LARGE], ids=len)
async def test_what_was_published_is_read_back(store: BlobStore, content: bytes) -> None:
    digest = await publish(store, content)
    assert await store.size(digest) == len(content)
    assert await read(store, digest) == content


async def test_a_sha512_digest_names_a_blob_of_its_own(store: BlobStore) -> None:
    digest = Digest.of(b"content", "sha512")
    await store.append("upload", 0, pieces(b"content"), [])
    await store.publish("upload", 7, digest)
    assert await read(store, digest) == b"content"
    assert await store.size(Digest.of(b"content")) is None


async def test_an_upload_is_no_blob_before_it_is_published(store: BlobStore) -> None:
    await store.append("upload", 0, pieces(b"content"), [])
    assert await store.size(Digest.of(b"content")) is None
    assert await store.list_uploads() == {"upload"}


async def test_publishing_ends_the_upload(store: BlobStore) -> None:
    await publish(store, b"content")
    assert await store.list_uploads() == frozenset()


async def test_publishing_what_is_there_keeps_what_is_there(store: BlobStore) -> None:
    digest = await publish(store, LARGE, "first")
    async with aclosing(store.read(digest, 0, len(LARGE))) as blocks:
        start = await anext(blocks)
        assert await publish(store, LARGE, "second") == digest
        assert start + b"".join([block async for block in blocks]) == LARGE
    assert await store.list_uploads() == frozenset()


async def test_uploads_of_the_same_blob_at_once_all_end_in_one_blob(store: BlobStore) -> None:
    await asyncio.gather(*(publish(store, LARGE, f"upload-{number}") for number in range(8)))
    assert await read(store, Digest.of(LARGE)) == LARGE
    assert await store.list_uploads() == frozenset()


@pytest.mark.parametrize(
    ("start", "stop"),
    [(0, 1), (5, 5), (524_287, 524_289), (1_000_000, 2_000_000), (2_097_151, 2_097_152)],
)
async def test_a_part_is_read_alone(store: BlobStore, start: int, stop: int) -> None:
    digest = await publish(store, LARGE)
    assert await read(store, digest, start, stop) == LARGE[start:stop]


async def test_blobs_come_in_pieces_whose_size_is_bounded(store: BlobStore) -> None:
    digest = await publish(store, LARGE)
    async with aclosing(store.read(digest, 0, len(LARGE))) as blocks:
        assert max([len(block) async for block in blocks]) <= 512 * 1024


async def test_a_blob_that_ends_early_breaks_off(store: BlobStore) -> None:
    digest = await publish(store, b"content")
    came = []
    with pytest.raises(StorageUnavailable):
        async for block in store.read(digest, 0, 8):
            came.append(block)
    assert b"".join(came) == b"content"


async def test_a_blob_that_is_not_there_cannot_be_read(store: BlobStore) -> None:
    with pytest.raises(StorageUnavailable):
        await anext(store.read(Digest.of(b"nothing"), 0, 1))


async def test_a_deleted_blob_is_gone_and_a_reader_of_it_is_not_disturbed(store: BlobStore) -> None:
    digest = await publish(store, LARGE)
    async with aclosing(store.read(digest, 0, len(LARGE))) as blocks:
        start = await anext(blocks)
        await store.delete(digest)
        await store.delete(digest)
        assert await store.size(digest) is None
        assert start + b"".join([block async for block in blocks]) == LARGE


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(st.binary(max_size=64), max_size=6), rest=st.binary(max_size=64))
async def test_an_upload_grows_by_what_is_appended_and_hashes_see_all_of_it(
    store: BlobStore, parts: list[bytes], rest: bytes
) -> None:
    hashes = [new_hash("sha256"), new_hash("sha512")]
    await store.discard("upload")
    first = await store.append("upload", 0, pieces(*parts), hashes)
    assert first == sum(map(len, parts))
    whole = b"".join(parts) + rest
    assert await store.append("upload", first, pieces(rest), hashes) == len(whole)
    assert [hash_.hexdigest() for hash_ in hashes] == [
        hashlib.sha256(whole).hexdigest(),
        hashlib.sha512(whole).hexdigest(),
    ]


async def test_what_lies_behind_the_offset_is_overwritten(store: BlobStore) -> None:
    await store.append("upload", 0, pieces(b"acknowledged", b"lost on the way"), [])
    await store.append("upload", 12, pieces(b"!"), [])
    await store.publish("upload", 13, Digest.of(b"acknowledged!"))
    assert await read(store, Digest.of(b"acknowledged!")) == b"acknowledged!"


async def test_what_lies_behind_the_size_is_not_published(store: BlobStore) -> None:
    await store.append("upload", 0, pieces(b"acknowledged", b"lost on the way"), [])
    await store.publish("upload", 12, Digest.of(b"acknowledged"))
    assert await read(store, Digest.of(b"acknowledged")) == b"acknowledged"


async def test_an_upload_that_is_shorter_than_it_should_be_is_an_error(store: BlobStore) -> None:
    await store.append("upload", 0, pieces(b"short"), [])
    with pytest.raises(StorageUnavailable):
        await store.append("upload", 6, pieces(b"!"), [])
    with pytest.raises(StorageUnavailable):
        await store.read_back("upload", 6, new_hash("sha256"))
    with pytest.raises(StorageUnavailable):
        await store.read_back("nothing", 1, new_hash("sha256"))


async def test_reading_back_feeds_the_first_bytes_and_no_more(store: BlobStore) -> None:
    await store.append("upload", 0, pieces(LARGE), [])
    hash_ = new_hash("sha256")
    await store.read_back("upload", 1_000_000, hash_)
    assert hash_.hexdigest() == hashlib.sha256(LARGE[:1_000_000]).hexdigest()


async def test_a_discarded_upload_is_gone(store: BlobStore) -> None:
    await store.append("upload", 0, pieces(b"content"), [])
    await store.discard("upload")
    await store.discard("upload")
    assert await store.list_uploads() == frozenset()


async def test_an_error_of_the_client_leaves_what_came_and_passes_through(store: BlobStore) -> None:
    class GoneError(Exception):
        pass

    async def breaks_off() -> AsyncIterator[bytes]:
        yield LARGE
        raise GoneError

    with pytest.raises(GoneError):
        await store.append("upload", 0, breaks_off(), [])
    await store.append("upload", 0, pieces(b"again"), [])
    await store.publish("upload", 5, Digest.of(b"again"))


async def test_a_canceled_upload_can_be_made_again(store: BlobStore, tmp_path: Path) -> None:
    started = asyncio.Event()

    async def hangs() -> AsyncIterator[bytes]:
        yield LARGE
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(store.append("upload", 0, hangs(), [new_hash("sha256")]))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    digest = await publish(store, LARGE)
    assert await read(store, digest) == LARGE
