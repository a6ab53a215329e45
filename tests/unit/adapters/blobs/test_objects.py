"""What the bucket's blob store does when the bucket does not: faults, leftovers and secrets."""

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import structlog

from layover.adapters.blobs.objects import Bucket, ObjectBlobStore
from layover.errors import StorageFull, StorageUnavailable
from layover.oci.digest import Digest, new_hash
from layover.registry.models import Part
from tests.faulty_s3 import Fault, FaultyS3
from tests.objects import ACCESS_KEY, SECRET_KEY, S3Server
from tests.stores import pieces

pytestmark = pytest.mark.anyio

MIB = 1 << 20
LARGE = os.urandom(17 * MIB)  # more than the parts that are on their way at once


@pytest.fixture
def faulty(s3: S3Server) -> Iterator[FaultyS3]:
    proxy = FaultyS3(s3)
    yield proxy
    proxy.close()


@pytest.fixture
def bucket(s3: S3Server) -> Bucket:
    return s3.bucket()


def store_of(bucket: Bucket, **more: Any) -> ObjectBlobStore:
    return ObjectBlobStore(bucket, **more)


@pytest.fixture
def sound(bucket: Bucket) -> Iterator[ObjectBlobStore]:
    """The bucket as it is."""
    store = ObjectBlobStore(bucket)
    yield store
    store.close()


@pytest.fixture
def store(bucket: Bucket, faulty: FaultyS3) -> Iterator[ObjectBlobStore]:
    """The same bucket, reached through the faulty network."""
    store = ObjectBlobStore(
        replace(bucket, endpoint=faulty.url),
        retry_timeout=timedelta(seconds=20),
        stall=timedelta(seconds=0.5),
    )
    yield store
    store.close()


async def read(store: ObjectBlobStore, key: str, size_bytes: int) -> bytes:
    async with aclosing(store.read(key, 0, size_bytes)) as blocks:
        return b"".join([block async for block in blocks])


async def put(store: ObjectBlobStore, content: bytes, upload_id: str = "upload") -> str:
    (part,) = await store.append((), store.place(upload_id), cut(content), [])
    return await store.publish((part,), store.place(upload_id), [])


async def cut(content: bytes) -> AsyncIterator[bytes]:
    """As a request brings it."""
    for start in range(0, len(content), 65_536):
        yield content[start : start + 65_536]


FAULTS: list[Fault] = [
    *("500", "503", "hang", "cut answer", "cut request", "no answer", "refused"),
]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("size_bytes", [1000, len(LARGE)])
async def test_a_bucket_that_fails_now_and_then_is_not_noticed(
    store: ObjectBlobStore,
    faulty: FaultyS3,
    s3: S3Server,
    bucket: Bucket,
    fault: Fault,
    size_bytes: int,
) -> None:
    content = LARGE[:size_bytes]
    faulty.fail(lambda number, *_: fault if number % 2 == 0 else None)
    hashes = [new_hash("sha256")]
    (part,) = await store.append((), store.place("upload"), cut(content), hashes)
    key = await store.publish((part,), store.place("upload"), [])
    assert hashes[0].hexdigest() == Digest.of(content).hex
    assert await read(store, key, size_bytes) == content
    assert fault in faulty.faults
    faulty.fail(lambda *_: None)
    assert s3.keys(bucket) == {key: size_bytes}
    await store.delete([key])
    assert s3.keys(bucket) == {}
    assert s3.unfinished(bucket) == []


@pytest.mark.parametrize("fault", ["503", "refused", "hang"])
async def test_a_bucket_that_is_away_is_told_as_that_and_comes_back_by_itself(
    bucket: Bucket, faulty: FaultyS3, s3: S3Server, fault: Fault
) -> None:
    # Long enough for a machine with more to do, once the bucket is back.
    store = ObjectBlobStore(
        replace(bucket, endpoint=faulty.url),
        retry_timeout=timedelta(seconds=4),
        stall=timedelta(seconds=2),
    )
    before = await put(store, LARGE, "before")
    faulty.fail(lambda *_: fault)
    deleting = asyncio.create_task(store.delete([before]))
    failures = await asyncio.gather(
        put(store, b"small", "during"),
        put(store, LARGE, "during"),
        store.size(before),
        read(store, before, len(LARGE)),
        store.ping(),
        return_exceptions=True,
    )
    assert [type(failure) for failure in failures] == [StorageUnavailable] * 5
    assert await deleting == set()
    faulty.fail(lambda *_: None)
    await store.ping()
    assert await read(store, before, len(LARGE)) == LARGE
    after = await put(store, LARGE, "after")
    assert await read(store, after, len(LARGE)) == LARGE
    # Nothing that is not whole is there.
    assert set(s3.keys(bucket)) == {before, after}
    store.close()


async def test_an_upload_that_fails_half_way_is_no_object_and_leaves_nothing_once_deleted(
    bucket: Bucket, faulty: FaultyS3, s3: S3Server
) -> None:
    store = ObjectBlobStore(
        replace(bucket, endpoint=faulty.url),
        retry_timeout=timedelta(seconds=1),
        stall=timedelta(seconds=0.5),
    )
    key = store.place("upload")
    faulty.fail(lambda _, method, path: "503" if "partNumber=3" in path else None)
    with pytest.raises(StorageUnavailable):
        await store.append((), key, cut(LARGE), [])
    faulty.fail(lambda *_: None)
    assert s3.keys(bucket) == {}
    await store.delete([key])
    assert s3.unfinished(bucket) == []
    store.close()


async def test_what_a_killed_process_began_to_write_goes_with_its_key(
    bucket: Bucket, s3: S3Server, sound: ObjectBlobStore
) -> None:
    keys = [sound.place("upload") for _ in range(2)]
    prefix = bucket.url.removeprefix("s3://layover/")
    for key in keys:
        name = f"{prefix}/{key}"
        begun = s3.client().create_multipart_upload(Bucket="layover", Key=name)
        s3.client().upload_part(
            Bucket="layover", Key=name, UploadId=begun["UploadId"], PartNumber=1, Body=LARGE[:MIB]
        )
    assert sorted(s3.unfinished(bucket)) == sorted(keys)
    await sound.delete(keys[:1])
    assert s3.unfinished(bucket) == [keys[1]]
    await sound.delete(keys[1:])
    assert s3.unfinished(bucket) == []


@pytest.mark.parametrize("size_bytes", [1000, len(LARGE)])
async def test_an_upload_whose_task_is_canceled_or_whose_client_fails_leaves_nothing(
    bucket: Bucket, s3: S3Server, sound: ObjectBlobStore, size_bytes: int
) -> None:
    class GoneError(Exception):
        pass

    tasks = asyncio.all_tasks()
    keys = [sound.place("upload") for _ in range(2)]

    async def breaks_off() -> AsyncIterator[bytes]:
        async for piece in cut(LARGE[:size_bytes]):
            yield piece
        raise GoneError

    with pytest.raises(GoneError):
        await sound.append((), keys[0], breaks_off(), [new_hash("sha256")])
    hangs = asyncio.Event()

    async def hanging() -> AsyncIterator[bytes]:
        async for piece in cut(LARGE[:size_bytes]):
            yield piece
        hangs.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(sound.append((), keys[1], hanging(), []))
    await hangs.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert s3.keys(bucket) == {}
    # It is aborted where it ends; a part that was on its way then may have brought it back.
    await sound.delete(keys)
    assert s3.unfinished(bucket) == []
    gc.collect()
    assert asyncio.all_tasks() == tasks


async def test_small_chunks_become_few_parts(
    bucket: Bucket, s3: S3Server, sound: ObjectBlobStore
) -> None:
    parts: tuple[Part, ...] = ()
    for start in range(0, 17 * MIB, MIB):
        before = parts
        parts = await sound.append(
            parts, sound.place("upload"), pieces(LARGE[start : start + MIB]), []
        )
        await sound.delete({part.key for part in before} - {part.key for part in parts})
    assert [part.size_bytes for part in parts] == [8 * MIB, 8 * MIB, MIB]
    hash_ = new_hash("sha512")
    key = await sound.publish(parts, sound.place("upload"), [hash_])
    assert hash_.hexdigest() == Digest.of(LARGE[: 17 * MIB], "sha512").hex
    assert await read(sound, key, 17 * MIB) == LARGE[: 17 * MIB]


async def test_an_upload_of_one_part_is_published_where_it_lies(
    bucket: Bucket, s3: S3Server, sound: ObjectBlobStore
) -> None:
    parts = await sound.append((), sound.place("upload"), cut(LARGE), [])
    assert await sound.publish(parts, sound.place("upload"), []) == parts[0].key
    assert s3.keys(bucket) == {parts[0].key: len(LARGE)}


async def test_a_part_of_another_length_is_not_published(sound: ObjectBlobStore) -> None:
    (part,) = await sound.append((), sound.place("upload"), cut(LARGE), [])
    with pytest.raises(StorageUnavailable):
        await sound.publish((replace(part, size_bytes=part.size_bytes + 1),), part.key, [])


async def test_a_bucket_without_room_is_full_storage(
    monkeypatch: pytest.MonkeyPatch, sound: ObjectBlobStore
) -> None:
    async def fails(*_: Any, **__: Any) -> None:
        raise OSError("507 Insufficient Storage: XMinioStorageFull")

    monkeypatch.setattr("obstore.put_async", fails)
    for content in (b"small", LARGE):
        with pytest.raises(StorageFull):
            await put(sound, content)


async def test_a_request_that_took_507_milliseconds_is_not_a_bucket_without_room(
    monkeypatch: pytest.MonkeyPatch, sound: ObjectBlobStore
) -> None:
    async def fails(*_: Any, **__: Any) -> None:
        raise OSError("Error performing PUT http://bucket in 507.1ms: status code: 503")

    monkeypatch.setattr("obstore.put_async", fails)
    with pytest.raises(StorageUnavailable):
        await put(sound, b"small")


async def test_an_object_that_is_not_there_is_asked_for_once(
    store: ObjectBlobStore, faulty: FaultyS3
) -> None:
    asked: list[str] = []
    faulty.fail(lambda _, method, path: asked.append(f"{method} {path}"))
    with pytest.raises(StorageUnavailable):
        await read(store, "data/no/nothing", 10)
    assert len(asked) == 1


async def test_a_bucket_that_is_not_there_or_not_ours_is_unavailable(s3: S3Server) -> None:
    known = s3.bucket()
    for bucket in (
        replace(known, url="s3://nobody-made-it"),
        replace(known, secret_access_key="another one"),
        replace(known, endpoint="http://127.0.0.1:1"),
    ):
        store = ObjectBlobStore(bucket, retry_timeout=timedelta(seconds=1))
        with pytest.raises(StorageUnavailable):
            await store.ping()
        with pytest.raises(StorageUnavailable):
            await store.append((), store.place("upload"), pieces(b"content"), [])
        store.close()


async def test_no_secret_is_shown_or_logged(s3: S3Server) -> None:
    bucket = replace(s3.bucket(), url="s3://nobody-made-it")
    store = ObjectBlobStore(bucket, retry_timeout=timedelta(seconds=1))
    with structlog.testing.capture_logs() as logs:
        with pytest.raises(StorageUnavailable):
            await store.ping()
        assert await store.delete(["data/ab/abc"]) == set()
    assert logs
    for text in (repr(bucket), repr(store), str(logs)):
        assert SECRET_KEY not in text
        assert f"'{ACCESS_KEY}'" not in text
        assert "Signature" not in text
    store.close()
