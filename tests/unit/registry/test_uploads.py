import asyncio
import hashlib
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, select, update

from layover.adapters.sql.quotas import used_bytes
from layover.adapters.sql.schema import blobs, doomed_objects, projects
from layover.errors import StorageError, StorageFull, StorageUnavailable
from layover.oci.digest import Digest
from layover.registry.blobs import BlobService
from layover.registry.models import (
    BlobUnknown,
    DigestMismatch,
    QuotaExceeded,
    UploadBusy,
    UploadOutOfOrder,
    UploadTruncated,
    UploadUnknown,
)
from layover.registry.uploads import UploadService
from tests.objects import S3Server
from tests.stores import FOREIGN, LEASE, REPOSITORY, SIBLING, Stores, opened, pieces
from tests.unit.identity.clock import Clock
from tests.unit.registry.faults import Crash, Crashing, Faulty, Steps

pytestmark = pytest.mark.anyio

LIFETIME = timedelta(hours=24)
NO_PATIENCE = timedelta(0)
LARGE = bytes(range(256)) * 8192  # 2 MiB: more than a block


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def replicas(s3: S3Server, postgres_url: str, tmp_path: Path) -> Iterator[Stores]:
    """What several servers share."""
    with opened(tmp_path, postgres_url, s3.bucket()) as stores:
        yield stores


@pytest.fixture
def folder_stores(tmp_path: Path) -> Iterator[Stores]:
    with opened(tmp_path) as stores:
        yield stores


def service(
    stores: Stores,
    clock: Clock,
    *,
    sessions: Any = None,
    blobs: Any = None,
    patience: timedelta = NO_PATIENCE,
) -> UploadService:
    """A process's upload service; two of them share nothing but the stores."""
    return UploadService(
        sessions or stores.uploads, blobs or stores.blobs, clock, LIFETIME, LEASE, patience
    )


async def content_of(stores: Stores, clock: Clock, digest: Digest) -> bytes:
    """What a client gets of the blob."""
    blobs = BlobService(stores.registry, stores.blobs, clock, LEASE)
    blob = await blobs.find(REPOSITORY, digest, may_push=False)
    return b"".join([block async for block in blobs.read(blob, 0, blob.size_bytes)])


async def is_visible(stores: Stores, digest: Digest) -> bool:
    try:
        blobs = BlobService(stores.registry, stores.blobs, Clock(), LEASE)
        await blobs.find(REPOSITORY, digest, may_push=False)
    except BlobUnknown:
        return False
    return True


async def truncated(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
    raise UploadTruncated


async def stored_uploads(stores: Stores) -> set[str]:
    """The sessions that have a row, and the keys that take space for no blob.

    What was brought twice is left to the collector.
    """

    def accounted_for(connection: Connection) -> set[str]:
        twice = select(doomed_objects.c.key).where(doomed_objects.c.digest != "")
        return {*connection.execute(select(blobs.c.key)).scalars()} | {
            *connection.execute(twice).scalars()
        }

    keys = {found.key async for found in stores.blobs.list_blobs()}
    keys -= await stores.database.read(accounted_for)
    return keys | await stores.uploads.live_uploads(Clock().now)


async def collect(stores: Stores) -> None:
    """What the collector does in the end."""
    doomed = await stores.database.write(
        lambda connection: connection.execute(select(doomed_objects.c.key)).scalars().all()
    )
    await stores.blobs.delete(doomed)


class NoReadBack:
    """A blob store from which an upload cannot be read back."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    async def publish(self, parts: Any, key: str, hashes: Any) -> str:
        assert not hashes, "the upload was read back"
        return str(await self._inner.publish(parts, key, hashes))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


# --- digests ----------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    chunks=st.lists(st.lists(st.binary(max_size=64), max_size=4), max_size=5),
    final=st.lists(st.binary(max_size=64), max_size=3),
    algorithm=st.sampled_from(["sha256", "sha512"]),
)
async def test_chunk_boundaries_never_change_the_digest(
    stores: Stores, chunks: list[list[bytes]], final: list[bytes], algorithm: str
) -> None:
    # Invariant 1, for every way to cut a blob into requests and a request into packets.
    clock = Clock()
    uploads = service(stores, clock)
    content = b"".join(b"".join(chunk) for chunk in [*chunks, final])
    digest = Digest.of(content, algorithm)
    upload = await uploads.start(REPOSITORY)
    for chunk in chunks:
        upload = await uploads.append(REPOSITORY, upload.id, pieces(*chunk), upload.size_bytes)
    await uploads.finish(REPOSITORY, upload.id, digest, pieces(*final), upload.size_bytes)
    assert await content_of(stores, clock, digest) == content


async def test_one_request_that_brings_a_blob_whole_never_reads_it_back(
    stores: Stores, clock: Clock
) -> None:
    uploads = service(stores, clock, blobs=NoReadBack(stores.blobs))
    for algorithm in ("sha256", "sha512"):
        digest = Digest.of(LARGE, algorithm)
        await uploads.push(REPOSITORY, digest, pieces(LARGE[:5], LARGE[5:]))
        upload = await uploads.start(REPOSITORY)
        await uploads.finish(REPOSITORY, upload.id, digest, pieces(LARGE), None)


async def test_chunks_that_come_to_one_process_are_never_read_back(
    stores: Stores, clock: Clock
) -> None:
    uploads = service(stores, clock, blobs=NoReadBack(stores.blobs))
    upload = await uploads.start(REPOSITORY)
    await uploads.append(REPOSITORY, upload.id, pieces(LARGE[:1_000_000]), None)
    with pytest.raises(UploadTruncated):
        await uploads.append(REPOSITORY, upload.id, truncated(LARGE[1_000_000:1_500_000]), None)
    await uploads.append(REPOSITORY, upload.id, pieces(LARGE[1_500_000:]), 1_500_000)
    await uploads.finish(REPOSITORY, upload.id, Digest.of(LARGE), pieces(), None)
    assert await content_of(stores, clock, Digest.of(LARGE)) == LARGE


async def test_a_session_goes_on_in_another_process(stores: Stores, clock: Clock) -> None:
    upload = await service(stores, clock).start(REPOSITORY)
    cuts = [LARGE[start : start + 700_000] for start in range(0, len(LARGE), 700_000)]
    for cut in cuts:
        upload = await service(stores, clock).append(
            REPOSITORY, upload.id, pieces(cut), upload.size_bytes
        )
    await service(stores, clock).finish(
        REPOSITORY, upload.id, Digest.of(LARGE), pieces(), upload.size_bytes
    )
    assert await content_of(stores, clock, Digest.of(LARGE)) == LARGE


async def test_a_session_that_comes_back_from_another_process_has_the_right_digest(
    stores: Stores, clock: Clock
) -> None:
    one, two = service(stores, clock), service(stores, clock)
    upload = await one.start(REPOSITORY)
    for uploads, part in ((one, b"first "), (two, b"second "), (one, b"third")):
        await uploads.append(REPOSITORY, upload.id, pieces(part), None)
    digest = Digest.of(b"first second third")
    await one.finish(REPOSITORY, upload.id, digest, pieces(), None)
    assert await content_of(stores, clock, digest) == b"first second third"


async def test_a_session_ends_under_an_algorithm_nobody_expected(
    stores: Stores, clock: Clock
) -> None:
    uploads = service(stores, clock)
    upload = await uploads.start(REPOSITORY)
    await uploads.append(REPOSITORY, upload.id, pieces(b"first "), None)
    digest = Digest.of(b"first second", "sha512")
    await uploads.finish(REPOSITORY, upload.id, digest, pieces(b"second"), None)
    assert await content_of(stores, clock, digest) == b"first second"


async def test_an_empty_blob_is_a_blob(stores: Stores, clock: Clock) -> None:
    uploads = service(stores, clock)
    await uploads.push(REPOSITORY, Digest.of(b""), pieces())
    assert await content_of(stores, clock, Digest.of(b"")) == b""


# --- what a client does wrong -----------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_a_mismatch_shows_nothing_and_gives_the_space_back(
    stores: Stores, clock: Clock, algorithm: str
) -> None:
    uploads = service(stores, clock)
    digest = Digest.of(b"something else", algorithm)
    with pytest.raises(DigestMismatch) as refused:
        await uploads.push(REPOSITORY, digest, pieces(LARGE))
    assert refused.value.actual == Digest.of(LARGE, algorithm)
    upload = await uploads.start(REPOSITORY)
    with pytest.raises(DigestMismatch):
        await uploads.finish(REPOSITORY, upload.id, digest, pieces(LARGE), None)
    with pytest.raises(UploadUnknown):
        await uploads.find(REPOSITORY, upload.id)
    assert not await is_visible(stores, digest)
    assert await stored_uploads(stores) == set()


async def test_a_truncated_chunk_keeps_what_came_and_goes_on_from_there(
    stores: Stores, clock: Clock
) -> None:
    uploads = service(stores, clock)
    upload = await uploads.start(REPOSITORY)
    await uploads.append(REPOSITORY, upload.id, pieces(b"whole "), None)
    with pytest.raises(UploadTruncated):
        await uploads.append(REPOSITORY, upload.id, truncated(b"par", b"t"), 6)
    # As another process sees it, and as the client asks for it.
    found = await service(stores, clock).find(REPOSITORY, upload.id)
    assert found.size_bytes == 10
    digest = Digest.of(b"whole part rest")
    await uploads.finish(REPOSITORY, upload.id, digest, pieces(b" rest"), 10)
    assert await content_of(stores, clock, digest) == b"whole part rest"


async def test_a_truncated_last_request_is_not_taken_for_the_whole(
    stores: Stores, clock: Clock
) -> None:
    uploads = service(stores, clock)
    upload = await uploads.start(REPOSITORY)
    # What came has the very digest: the client announced more, and may have been wrong.
    with pytest.raises(UploadTruncated):
        await uploads.finish(REPOSITORY, upload.id, Digest.of(b"part"), truncated(b"part"), None)
    assert not await is_visible(stores, Digest.of(b"part"))
    await uploads.finish(REPOSITORY, upload.id, Digest.of(b"part"), pieces(), 4)
    assert await is_visible(stores, Digest.of(b"part"))


async def test_a_truncated_single_request_leaves_nothing(stores: Stores, clock: Clock) -> None:
    uploads = service(stores, clock)
    with pytest.raises(UploadTruncated):
        await uploads.push(REPOSITORY, Digest.of(LARGE), truncated(LARGE[:700_000]))
    assert await stored_uploads(stores) == set()
    assert not await is_visible(stores, Digest.of(LARGE))


@pytest.mark.parametrize("start", [0, 4, 6, 2**62])
async def test_a_chunk_out_of_order_is_refused_and_changes_nothing(
    stores: Stores, clock: Clock, start: int
) -> None:
    uploads = service(stores, clock)
    upload = await uploads.start(REPOSITORY)
    await uploads.append(REPOSITORY, upload.id, pieces(b"first"), 0)
    with pytest.raises(UploadOutOfOrder) as refused:
        await uploads.append(REPOSITORY, upload.id, pieces(b"other"), start)
    assert refused.value.size_bytes == 5
    with pytest.raises(UploadOutOfOrder):
        await uploads.finish(REPOSITORY, upload.id, Digest.of(b"other"), pieces(), start)
    await uploads.finish(REPOSITORY, upload.id, Digest.of(b"first"), pieces(), 5)


async def test_a_session_is_unknown_in_every_other_repository(stores: Stores, clock: Clock) -> None:
    uploads = service(stores, clock)
    upload = await uploads.start(REPOSITORY)
    await uploads.append(REPOSITORY, upload.id, pieces(b"content"), None)
    for repository in (SIBLING, FOREIGN):
        with pytest.raises(UploadUnknown):
            await uploads.find(repository, upload.id)
        with pytest.raises(UploadUnknown):
            await uploads.append(repository, upload.id, pieces(b"more"), None)
        with pytest.raises(UploadUnknown):
            await uploads.finish(repository, upload.id, Digest.of(b"content"), pieces(), None)
        with pytest.raises(UploadUnknown):
            await uploads.cancel(repository, upload.id)
    assert (await uploads.find(REPOSITORY, upload.id)).size_bytes == 7


async def test_sessions_that_never_were_are_unknown(stores: Stores, clock: Clock) -> None:
    uploads = service(stores, clock)
    for upload_id in ("unknown", "", "../layover.db", "x" * 10_000):
        with pytest.raises(UploadUnknown) as refused:
            await uploads.append(REPOSITORY, upload_id, pieces(b"content"), None)
        assert len(str(refused.value)) < 200
    assert await stored_uploads(stores) == set()


async def test_a_canceled_session_gives_its_space_back(stores: Stores, clock: Clock) -> None:
    uploads = service(stores, clock)
    upload = await uploads.start(REPOSITORY)
    await uploads.append(REPOSITORY, upload.id, pieces(LARGE), None)
    await uploads.cancel(REPOSITORY, upload.id)
    assert await stored_uploads(stores) == set()
    with pytest.raises(UploadUnknown):
        await uploads.cancel(REPOSITORY, upload.id)


# --- at the same time -------------------------------------------------------------------------


@asynccontextmanager
async def being_written(
    uploads: UploadService,
    upload_id: str,
    length: int | None = None,
    digest: Digest | None = None,
) -> AsyncIterator[tuple["asyncio.Task[Any]", asyncio.Event]]:
    """A request that has begun to write to the session, and waits for its event to end; with a
    digest the last one."""
    begun, ends = asyncio.Event(), asyncio.Event()

    async def waits() -> AsyncIterator[bytes]:
        begun.set()
        yield b"first"
        await ends.wait()

    if digest is None:
        work: Coroutine[Any, Any, Any] = uploads.append(
            REPOSITORY, upload_id, waits(), None, length
        )
    else:
        work = uploads.finish(REPOSITORY, upload_id, digest, waits(), None, length)
    task = asyncio.create_task(work)
    await begun.wait()
    try:
        yield task, ends
    finally:
        task.cancel()


async def test_a_second_request_to_a_session_is_told_that_it_is_busy(
    stores: Stores, clock: Clock
) -> None:
    uploads = service(stores, clock)
    upload = await uploads.start(REPOSITORY)
    async with being_written(uploads, upload.id) as (task, ends):
        with pytest.raises(UploadBusy):
            await uploads.append(REPOSITORY, upload.id, pieces(b"other"), None)
        with pytest.raises(UploadBusy):
            await uploads.finish(REPOSITORY, upload.id, Digest.of(b"other"), pieces(), None)
        with pytest.raises(UploadBusy):
            await uploads.cancel(REPOSITORY, upload.id)
        ends.set()
        assert (await task).size_bytes == 5
    await uploads.finish(REPOSITORY, upload.id, Digest.of(b"first"), pieces(), None)


async def test_another_projects_busy_session_is_unknown_all_the_same(
    stores: Stores, clock: Clock
) -> None:
    uploads = service(stores, clock)
    upload = await uploads.start(REPOSITORY)
    async with being_written(uploads, upload.id):
        with pytest.raises(UploadUnknown):
            await uploads.append(FOREIGN, upload.id, pieces(b"other"), None)
        with pytest.raises(UploadUnknown):
            await uploads.cancel(FOREIGN, upload.id)


async def test_a_second_request_waits_for_the_first_one_to_end(
    stores: Stores, clock: Clock
) -> None:
    uploads = service(stores, clock, patience=timedelta(minutes=1))
    upload = await uploads.start(REPOSITORY)
    async with being_written(uploads, upload.id) as (task, ends):
        second = asyncio.create_task(
            uploads.append(REPOSITORY, upload.id, pieces(b" second"), None)
        )
        await asyncio.sleep(0)
        ends.set()
        assert (await task).size_bytes == 5
        assert (await second).size_bytes == 12


async def test_a_canceled_request_frees_the_session_where_it_was_acknowledged(
    stores: Stores, clock: Clock
) -> None:
    uploads = service(stores, clock)
    upload = await uploads.start(REPOSITORY)
    await uploads.append(REPOSITORY, upload.id, pieces(b"acknowledged"), None)
    async with being_written(uploads, upload.id) as (task, _):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    digest = Digest.of(b"acknowledged and more")
    await uploads.finish(REPOSITORY, upload.id, digest, pieces(b" and more"), 12)
    assert await content_of(stores, clock, digest) == b"acknowledged and more"


async def test_pushes_of_the_same_blob_at_once_all_succeed(stores: Stores, clock: Clock) -> None:
    uploads = service(stores, clock)
    digest = Digest.of(LARGE)
    await asyncio.gather(
        *(
            uploads.push(repository, digest, pieces(LARGE[:9], LARGE[9:]))
            for repository in (REPOSITORY, SIBLING, REPOSITORY, FOREIGN)
        )
    )
    assert await content_of(stores, clock, digest) == LARGE
    assert await stored_uploads(stores) == set()


# --- expiry -----------------------------------------------------------------------------------


async def test_a_session_ends_its_lifetime_after_its_last_request(
    stores: Stores, clock: Clock
) -> None:
    uploads = service(stores, clock)
    upload = await uploads.start(REPOSITORY)
    clock.advance(LIFETIME - timedelta(seconds=1))
    await uploads.append(REPOSITORY, upload.id, pieces(b"content"), None)
    clock.advance(LIFETIME - timedelta(seconds=1))
    assert await uploads.find(REPOSITORY, upload.id)
    clock.advance(timedelta(seconds=1))
    with pytest.raises(UploadUnknown):
        await uploads.finish(REPOSITORY, upload.id, Digest.of(b"content"), pieces(), None)


async def test_cleaning_up_removes_exactly_what_no_live_session_needs(
    stores: Stores, clock: Clock
) -> None:
    uploads = service(stores, clock)
    old = await uploads.start(REPOSITORY)
    await uploads.append(REPOSITORY, old.id, pieces(LARGE), None)
    clock.advance(LIFETIME)
    live = await uploads.start(REPOSITORY)
    await uploads.append(REPOSITORY, live.id, pieces(b"live"), None)
    fresh = await uploads.start(REPOSITORY)
    await uploads.push(REPOSITORY, Digest.of(b"blob"), pieces(b"blob"))
    assert await uploads.clean_up() == 1
    await collect(stores)
    (part,) = (await uploads.find(REPOSITORY, live.id)).parts
    assert await stored_uploads(stores) == {part.key, live.id, fresh.id}
    assert uploads._hashes.keys() == {live.id}
    assert await content_of(stores, clock, Digest.of(b"blob")) == b"blob"
    await uploads.finish(REPOSITORY, live.id, Digest.of(b"live"), pieces(), None)
    assert await uploads.clean_up() == 0


async def test_a_session_that_begins_during_a_clean_up_keeps_its_hash(
    stores: Stores, clock: Clock
) -> None:
    begun: list[str] = []

    class Meanwhile:
        def __getattr__(self, name: str) -> Any:
            return getattr(stores.uploads, name)

        async def live_uploads(self, now: datetime) -> frozenset[str]:
            live = await stores.uploads.live_uploads(now)
            upload = await uploads.start(REPOSITORY)
            await uploads.append(REPOSITORY, upload.id, pieces(b"begun"), None)
            begun.append(upload.id)
            return live

    uploads = service(stores, clock, sessions=Meanwhile())
    await uploads.clean_up()
    assert [*uploads._hashes] == begun


async def test_a_session_is_kept_while_a_request_writes_to_it(stores: Stores, clock: Clock) -> None:
    uploads = service(stores, clock)
    upload = await uploads.start(REPOSITORY)
    async with being_written(uploads, upload.id) as (task, ends):
        # A layer that takes longer than a session may be idle.
        clock.advance(2 * LIFETIME)
        assert await uploads.clean_up() == 0
        assert await service(stores, clock).clean_up() == 0
        ends.set()
        await task
    await uploads.finish(REPOSITORY, upload.id, Digest.of(b"first"), pieces(), 5)


async def test_nothing_of_a_session_stays_in_memory_once_it_is_over(
    stores: Stores, clock: Clock
) -> None:
    uploads = service(stores, clock)
    await uploads.push(REPOSITORY, Digest.of(b"one"), pieces(b"one"))
    for error in (DigestMismatch, UploadTruncated):
        with pytest.raises(error):
            await uploads.push(
                REPOSITORY,
                Digest.of(b"other"),
                truncated(b"two") if error is UploadTruncated else pieces(b"two"),
            )
    upload = await uploads.start(REPOSITORY)
    await uploads.append(REPOSITORY, upload.id, pieces(b"three"), None)
    await uploads.cancel(REPOSITORY, upload.id)
    assert not uploads._hashes
    assert not list(uploads._locks.items())


# --- failing media ----------------------------------------------------------------------------


@pytest.mark.parametrize("error", [StorageFull, StorageUnavailable])
@pytest.mark.parametrize("method", ["append", "publish", "link_upload"])
async def test_a_push_that_the_medium_fails_leaves_nothing_of_its_session(
    stores: Stores, clock: Clock, method: str, error: type[StorageError]
) -> None:
    await service(stores, clock).push(REPOSITORY, Digest.of(b"before"), pieces(b"before"))
    faulty = service(
        stores,
        clock,
        sessions=Faulty(stores.uploads, method, error),
        blobs=Faulty(stores.blobs, method, error),
    )
    digest = Digest.of(LARGE)
    with pytest.raises(error):
        await faulty.push(REPOSITORY, digest, pieces(LARGE))
    upload = await faulty.start(REPOSITORY)
    with pytest.raises(error):
        await faulty.finish(REPOSITORY, upload.id, digest, pieces(LARGE), None)
    if error is StorageUnavailable:
        await collect(stores)
    assert await stored_uploads(stores) == set()
    assert not await is_visible(stores, digest)
    # What was there is readable, and the same push works when the medium does.
    assert await content_of(stores, clock, Digest.of(b"before")) == b"before"
    await service(stores, clock).push(REPOSITORY, digest, pieces(LARGE))
    assert await content_of(stores, clock, digest) == LARGE


async def test_a_chunk_that_the_medium_fails_ends_its_session(stores: Stores, clock: Clock) -> None:
    uploads = service(stores, clock)
    upload = await uploads.start(REPOSITORY)
    await uploads.append(REPOSITORY, upload.id, pieces(LARGE), None)
    faulty = service(stores, clock, blobs=Faulty(stores.blobs, "append", StorageFull))
    with pytest.raises(StorageFull):
        await faulty.append(REPOSITORY, upload.id, pieces(b"more"), None)
    assert await stored_uploads(stores) == set()


async def test_a_blob_whose_bytes_are_lost_is_whole_again_once_it_is_brought_again(
    stores: Stores, clock: Clock
) -> None:
    uploads, digest = service(stores, clock), Digest.of(LARGE)
    await uploads.push(REPOSITORY, digest, pieces(LARGE))
    blob = await stores.uploads.find_bytes(digest)
    assert blob is not None
    await stores.blobs.delete([blob.key])
    await uploads.push(SIBLING, digest, pieces(LARGE))
    assert await content_of(stores, clock, digest) == LARGE
    await collect(stores)
    assert await content_of(stores, clock, digest) == LARGE


# --- quota ------------------------------------------------------------------------------------

MIB = 1 << 20


@pytest.fixture
async def limited(stores: Stores) -> Stores:
    """Stores whose project may take 4 MiB."""
    statement = update(projects).where(projects.c.id == "mine").values(quota_bytes=4 * MIB)
    await stores.database.write(lambda connection: connection.execute(statement))
    return stores


async def used(stores: Stores) -> int:
    return await stores.database.read(lambda connection: used_bytes(connection, "mine"))


async def unread() -> AsyncIterator[bytes]:
    pytest.fail("a byte was read")
    yield b""


async def test_what_is_announced_and_does_not_fit_is_refused_unread(
    limited: Stores, clock: Clock
) -> None:
    uploads, digest = service(limited, clock), Digest.of(b"")
    with pytest.raises(QuotaExceeded):
        await uploads.push(REPOSITORY, digest, unread(), 4 * MIB + 1)
    upload = await uploads.start(REPOSITORY)
    await uploads.append(REPOSITORY, upload.id, pieces(LARGE), None, len(LARGE))
    assert await used(limited) == len(LARGE)
    with pytest.raises(QuotaExceeded):
        await uploads.append(REPOSITORY, upload.id, unread(), None, 2 * MIB + 1)
    # The session could only fail: what it held is given back.
    assert await stored_uploads(limited) == set()
    assert await used(limited) == 0
    upload = await uploads.start(REPOSITORY)
    with pytest.raises(QuotaExceeded):
        await uploads.finish(REPOSITORY, upload.id, digest, unread(), None, 2**60)
    assert await stored_uploads(limited) == set()


@pytest.mark.parametrize("announced", [True, False])
async def test_all_that_a_quota_leaves_can_be_used_to_the_byte(
    limited: Stores, clock: Clock, announced: bool
) -> None:
    uploads = service(limited, clock)
    content = LARGE + LARGE[1:] + b"."
    upload = await uploads.start(REPOSITORY)
    for start in range(0, 4 * MIB, MIB):
        chunk = content[start : start + MIB]
        cuts = (chunk[at : at + 60_000] for at in range(0, MIB, 60_000))
        length = MIB if announced else None
        await uploads.append(REPOSITORY, upload.id, pieces(*cuts), None, length)
        assert await used(limited) == start + MIB
    await uploads.finish(REPOSITORY, upload.id, Digest.of(content), pieces(), None, 0)
    assert await content_of(limited, clock, Digest.of(content)) == content
    assert await used(limited) == 4 * MIB
    with pytest.raises(QuotaExceeded):
        await uploads.start(REPOSITORY)
    # Another project has its own.
    await uploads.push(FOREIGN, Digest.of(content), pieces(content))


async def test_what_is_not_announced_is_refused_where_it_crosses_the_limit(
    limited: Stores, clock: Clock
) -> None:
    uploads, came = service(limited, clock), 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal came
        while True:
            came += 60_000
            yield bytes(60_000)

    upload = await uploads.start(REPOSITORY)
    with pytest.raises(QuotaExceeded):
        await uploads.append(REPOSITORY, upload.id, endless(), None)
    assert 4 * MIB < came < 4 * MIB + 120_000
    assert await stored_uploads(limited) == set()
    assert await used(limited) == 0


async def test_uploads_at_once_do_not_exceed_a_quota_together(
    limited: Stores, clock: Clock
) -> None:
    with limited.replica() as other:
        services = [service(limited, clock), service(other, clock)] * 3

        async def push(number: int, announced: bool) -> bool:
            content = bytes([number]) * MIB
            cuts = (content[at : at + 60_000] for at in range(0, MIB, 60_000))
            length = MIB if announced else None
            try:
                await services[number].push(REPOSITORY, Digest.of(content), pieces(*cuts), length)
            except QuotaExceeded:
                return False
            return True

        done = await asyncio.gather(*(push(number, number % 3 == 0) for number in range(6)))
    assert 1 <= done.count(True) <= 4
    assert await used(limited) == done.count(True) * MIB
    assert await stored_uploads(limited) == set()


async def test_what_was_announced_and_never_came_is_let_go_of(
    limited: Stores, clock: Clock
) -> None:
    uploads = service(limited, clock)
    upload = await uploads.start(REPOSITORY)
    with pytest.raises(UploadTruncated):
        await uploads.append(REPOSITORY, upload.id, truncated(b"part"), None, 3 * MIB)
    assert await used(limited) == 4
    # A process was killed that had let in 3 MiB: its session is not renewed.
    await limited.uploads.reserve(upload.id, 3 * MIB)
    other = await uploads.start(REPOSITORY)
    async with being_written(uploads, other.id, length=MIB // 2):
        clock.advance(timedelta(minutes=11))
        await uploads.clean_up()
        assert await used(limited) == 4 + MIB // 2


@pytest.mark.parametrize("announced", [True, False])
async def test_what_broke_off_keeps_nobody_from_beginning_anew(
    limited: Stores, clock: Clock, announced: bool
) -> None:
    uploads = service(limited, clock)
    upload = await uploads.start(REPOSITORY)
    with pytest.raises(UploadTruncated):
        await uploads.append(REPOSITORY, upload.id, truncated(LARGE, b"."), None, 3 * MIB)
    content = bytes(3 * MIB)
    length = len(content) if announced else None
    # It may go on for a while.
    with pytest.raises(QuotaExceeded):
        await uploads.push(REPOSITORY, Digest.of(content), pieces(content), length)
    assert await used(limited) == len(LARGE) + 1
    clock.advance(timedelta(minutes=11))
    await uploads.push(REPOSITORY, Digest.of(content), pieces(content), length)
    assert await used(limited) == len(content)
    assert await stored_uploads(limited) == set()
    # One that is being written to stays, however long ago it began.
    other = await uploads.start(REPOSITORY)
    async with being_written(uploads, other.id):
        clock.advance(timedelta(minutes=11))
        with pytest.raises(QuotaExceeded):
            await uploads.push(REPOSITORY, Digest.of(LARGE), pieces(LARGE), len(LARGE))
        assert await uploads.find(REPOSITORY, other.id)


async def test_what_a_dead_server_let_in_keeps_nobody_from_going_on(
    limited: Stores, clock: Clock
) -> None:
    uploads = service(limited, clock)
    upload = await uploads.start(REPOSITORY)
    await uploads.append(REPOSITORY, upload.id, pieces(LARGE[:MIB]), None, MIB)
    # A server that was let in 2 MiB was killed; another one is asked for them again.
    await limited.uploads.reserve(upload.id, 2 * MIB)
    rest = bytes(2 * MIB)
    await uploads.append(REPOSITORY, upload.id, pieces(rest), MIB, len(rest))
    assert await used(limited) == 3 * MIB
    await limited.uploads.reserve(upload.id, MIB)
    await uploads.append(REPOSITORY, upload.id, pieces(bytes(MIB)), 3 * MIB)
    assert await used(limited) == 4 * MIB


# --- crashes ----------------------------------------------------------------------------------


async def push_in_chunks(uploads: UploadService, content: bytes) -> None:
    upload = await uploads.start(REPOSITORY)
    await uploads.append(REPOSITORY, upload.id, pieces(content[:1_000_000]), None)
    with suppress(UploadTruncated):
        await uploads.append(REPOSITORY, upload.id, truncated(content[1_000_000:1_200_000]), None)
    await uploads.finish(
        REPOSITORY, upload.id, Digest.of(content), pieces(content[1_200_000:]), 1_200_000
    )


async def push_whole(uploads: UploadService, content: bytes) -> None:
    await uploads.push(REPOSITORY, Digest.of(content), pieces(content))


async def push_wrong(uploads: UploadService, content: bytes) -> None:
    with suppress(DigestMismatch):
        await uploads.push(REPOSITORY, Digest.of(content), pieces(content[1:]))


@pytest.mark.parametrize("push", [push_in_chunks, push_whole, push_wrong])
async def test_a_crash_between_any_two_steps_shows_nothing_or_all_of_a_blob(
    stores: Stores, clock: Clock, push: Any
) -> None:
    # Invariant 1. Each half-step is a process of its own, on what the one before left.
    for crash_at in range(100):
        content = LARGE + bytes([crash_at])
        digest = Digest.of(content)
        steps = Steps(crash_at)
        with stores.replica() as dying:
            uploads = service(
                dying,
                clock,
                sessions=Crashing(dying.uploads, steps),
                blobs=Crashing(dying.blobs, steps),
            )
            with suppress(Crash):
                await push(uploads, content)
        with stores.replica() as after:
            if await is_visible(after, digest):
                assert await content_of(after, clock, digest) == content
            # Whatever was left ends by itself, and the same push succeeds.
            later = Clock(clock.now + LIFETIME)
            uploads = service(after, later)
            await uploads.clean_up()
            await collect(after)
            assert await stored_uploads(after) == set()
            await uploads.push(REPOSITORY, digest, pieces(content))
            assert await content_of(after, later, digest) == content
        if not steps.has_crashed:
            break
    assert crash_at >= 6
    assert not steps.has_crashed


async def test_bytes_that_are_not_those_of_the_digest_are_never_visible(
    folder_stores: Stores, clock: Clock
) -> None:
    # Invariant 1, against bytes that were lost on the disk between two requests.
    uploads = service(folder_stores, clock)
    upload = await uploads.start(REPOSITORY)
    await uploads.append(REPOSITORY, upload.id, pieces(b"content"), None)
    (folder_stores.folder / "blobs" / folder_stores.blobs.place(upload.id)).write_bytes(b"c0ntent")
    digest = Digest("sha256", hashlib.sha256(b"content").hexdigest())
    with pytest.raises(DigestMismatch):
        await service(folder_stores, clock).finish(REPOSITORY, upload.id, digest, pieces(), None)
    assert not await is_visible(folder_stores, digest)


# --- replicas ---------------------------------------------------------------------------------


async def test_every_request_of_a_session_may_reach_another_replica(
    replicas: Stores, clock: Clock
) -> None:
    with replicas.replica() as second, replicas.replica() as third:
        services = [service(stores, clock) for stores in (replicas, second, third)]
        upload = await services[0].start(REPOSITORY)
        for number, start in enumerate(range(0, len(LARGE), 300_000)):
            upload = await services[number % 3].append(
                REPOSITORY, upload.id, pieces(LARGE[start : start + 300_000]), upload.size_bytes
            )
        await services[1].finish(REPOSITORY, upload.id, Digest.of(LARGE), pieces(), None)
        assert await content_of(third, clock, Digest.of(LARGE)) == LARGE
        assert not await service(third, Clock(clock.now + LIFETIME)).clean_up()
    await collect(replicas)
    assert await stored_uploads(replicas) == set()


async def test_a_blob_that_one_replica_received_another_one_shows_unread(
    replicas: Stores, clock: Clock
) -> None:
    # As docker, buildx and skopeo push: all of it in one PATCH, then a PUT without a body.
    one, two = service(replicas, clock), service(replicas, clock, blobs=NoReadBack(replicas.blobs))
    upload = await one.start(REPOSITORY)
    await one.append(REPOSITORY, upload.id, pieces(LARGE), None)
    await two.finish(REPOSITORY, upload.id, Digest.of(LARGE), pieces(), None)
    assert await content_of(replicas, clock, Digest.of(LARGE)) == LARGE
    other = await one.start(REPOSITORY)
    await one.append(REPOSITORY, other.id, pieces(LARGE[1:]), None)
    with pytest.raises(DigestMismatch):
        await two.finish(REPOSITORY, other.id, Digest.of(LARGE), pieces(), None)
    assert await stored_uploads(replicas) == set()


async def test_of_two_replicas_that_write_to_a_session_one_is_too_late(
    replicas: Stores, clock: Clock
) -> None:
    one, two = service(replicas, clock), service(replicas, clock)
    upload = await one.start(REPOSITORY)
    async with being_written(one, upload.id) as (task, ends):
        await two.append(REPOSITORY, upload.id, pieces(b"second"), None)
        ends.set()
        with pytest.raises(UploadOutOfOrder):
            await task
    await two.append(REPOSITORY, upload.id, pieces(b" and more"), 6)
    digest = Digest.of(b"second and more")
    await one.finish(REPOSITORY, upload.id, digest, pieces(), None)
    assert await content_of(replicas, clock, digest) == b"second and more"
    assert await stored_uploads(replicas) == set()


async def test_what_a_request_hashed_that_was_too_late_is_no_digest_of_anothers_bytes(
    replicas: Stores, clock: Clock
) -> None:
    one, two = service(replicas, clock), service(replicas, clock)
    upload = await one.start(REPOSITORY)
    digest = Digest.of(b"first")
    async with being_written(one, upload.id, digest=digest) as (task, ends):
        # Of the same length.
        await two.append(REPOSITORY, upload.id, pieces(b"other"), None)
        ends.set()
        with pytest.raises(UploadOutOfOrder):
            await task
    with pytest.raises(DigestMismatch):
        await one.finish(REPOSITORY, upload.id, digest, pieces(), None)
    assert await replicas.uploads.find_bytes(digest) is None
    assert await stored_uploads(replicas) == set()


@pytest.mark.parametrize("ended", ["cancel", "finish"])
async def test_a_last_request_whose_session_was_ended_meanwhile_leaves_nothing(
    replicas: Stores, clock: Clock, ended: str
) -> None:
    one, two = service(replicas, clock), service(replicas, clock)
    upload, digest = await one.start(REPOSITORY), Digest.of(b"first")
    async with being_written(one, upload.id, digest=digest) as (task, ends):
        if ended == "cancel":
            await two.cancel(REPOSITORY, upload.id)
        else:
            await two.finish(REPOSITORY, upload.id, Digest.of(b"two"), pieces(b"two"), None)
        # What was noted of the session is gone before anything was written there.
        await collect(replicas)
        ends.set()
        with pytest.raises(UploadUnknown):
            await task
    assert await stored_uploads(replicas) == set()


async def test_a_session_that_another_replica_ended_leaves_nothing(
    replicas: Stores, clock: Clock
) -> None:
    one, two = service(replicas, clock), service(replicas, clock)
    for ended in ("cancel", "finish"):
        upload = await one.start(REPOSITORY)
        async with being_written(one, upload.id) as (task, ends):
            if ended == "cancel":
                await two.cancel(REPOSITORY, upload.id)
            else:
                await two.finish(REPOSITORY, upload.id, Digest.of(b"two"), pieces(b"two"), None)
            ends.set()
            with pytest.raises(UploadUnknown):
                await task
        await collect(replicas)
        assert await stored_uploads(replicas) == set()
    assert await content_of(replicas, clock, Digest.of(b"two")) == b"two"


async def test_a_last_request_that_is_made_twice_ends_in_one_blob(
    replicas: Stores, clock: Clock
) -> None:
    # A client whose connection broke asks again, and another replica is asked.
    services = [service(replicas, clock), service(replicas, clock)]
    upload = await services[0].start(REPOSITORY)
    await services[0].append(REPOSITORY, upload.id, pieces(LARGE), None)

    async def finish(uploads: UploadService) -> bool:
        try:
            await uploads.finish(REPOSITORY, upload.id, Digest.of(LARGE), pieces(), None)
        except UploadUnknown:
            return False
        return True

    done = await asyncio.gather(*(finish(uploads) for uploads in services))
    assert sorted(done) == [False, True]
    await collect(replicas)
    assert await content_of(replicas, clock, Digest.of(LARGE)) == LARGE
    assert await stored_uploads(replicas) == set()
