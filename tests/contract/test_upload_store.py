"""What every UploadStore does, whatever keeps the bytes."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from layover.adapters.sql.quotas import used_bytes
from layover.adapters.sql.schema import blobs, doomed_objects, projects, repository_blobs
from layover.oci.digest import Digest
from layover.registry.models import (
    Part,
    QuotaExceeded,
    StoredBlob,
    Upload,
    UploadBusy,
    UploadOutOfOrder,
    UploadUnknown,
)
from layover.registry.ports import UploadStore
from tests.stores import FOREIGN, LEASE, NOW, REPOSITORY, SIBLING, Stores, push_blob

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)
DIGEST = Digest.of(b"content")
BLOB = StoredBlob(DIGEST, 7, "data/on/one")


@pytest.fixture
def store(stores: Stores) -> UploadStore:
    return stores.uploads


async def session(store: UploadStore, upload_id: str = "upload", *places: str) -> Upload:
    upload = Upload(upload_id, REPOSITORY, NOW + HOUR, places=frozenset(places))
    await store.create_upload(upload, NOW)
    return upload


async def found(store: UploadStore, upload_id: str = "upload") -> Upload:
    upload = await store.find_upload(REPOSITORY, upload_id, NOW)
    assert upload is not None
    return upload


async def doomed(stores: Stores) -> dict[str, str]:
    """The keys that nothing names any more, with their blobs' digests."""
    query = select(doomed_objects.c.key, doomed_objects.c.digest)
    rows = await stores.database.read(lambda connection: connection.execute(query).all())
    return {row.key: row.digest for row in rows}


async def key_of_blob(stores: Stores, digest: Digest) -> str | None:
    blob = await stores.registry.find_blob(REPOSITORY, digest, NOW)
    return None if blob is None else blob.key


# --- sessions ---------------------------------------------------------------------------------


async def test_a_session_is_its_repositorys_alone(store: UploadStore) -> None:
    upload = await session(store, "upload", "data/up/upload")
    assert await found(store) == upload
    assert await store.find_upload(SIBLING, "upload", NOW) is None
    assert await store.find_upload(FOREIGN, "upload", NOW) is None
    assert await store.find_upload(REPOSITORY, "another", NOW) is None


async def test_a_session_is_gone_the_moment_it_expires(store: UploadStore) -> None:
    await session(store)
    just_before = NOW + HOUR - timedelta(microseconds=1)
    assert await store.find_upload(REPOSITORY, "upload", just_before)
    assert await store.live_uploads(just_before) == {"upload"}
    assert await store.find_upload(REPOSITORY, "upload", NOW + HOUR) is None
    assert await store.live_uploads(NOW + HOUR) == frozenset()


async def test_what_a_session_holds_is_what_its_last_request_recorded(store: UploadStore) -> None:
    before = await session(store)
    for number in range(3):
        await store.add_place("upload", f"data/up/{number}")
        before = await found(store)
        after = replace(
            before,
            parts=(*before.parts, Part(f"data/up/{number}", 2**40)),
            digest=Digest.of(str(number).encode()),
            expires_at=before.expires_at + HOUR,
        )
        assert await store.resize_upload(before, after, NOW) == frozenset()
        assert await found(store) == after
    assert before.size_bytes == 2 * 2**40
    unhashed = replace(after, digest=None)
    await store.resize_upload(after, unhashed, NOW)
    assert await found(store) == unhashed


async def test_a_place_is_remembered_until_the_session_ends(
    stores: Stores, store: UploadStore
) -> None:
    await session(store, "upload", "data/up/first")
    await store.add_place("upload", "data/up/second")
    upload = await found(store)
    assert upload.places == {"data/up/first", "data/up/second"}
    assert upload.parts == ()
    await store.resize_upload(upload, replace(upload, parts=(Part("data/up/second", 5),)), NOW)
    assert (await found(store)).places == {"data/up/first", "data/up/second"}
    assert await store.delete_upload("upload", NOW) == {"data/up/first", "data/up/second"}
    assert await doomed(stores) == {"data/up/first": "", "data/up/second": ""}
    with pytest.raises(UploadUnknown):
        await store.add_place("upload", "data/up/third")


async def test_a_part_that_another_one_took_up_is_doomed(
    stores: Stores, store: UploadStore
) -> None:
    before = await session(store)
    after = replace(before, parts=(Part("data/up/a", 9), Part("data/up/b", 1)))
    await store.resize_upload(before, after, NOW)
    merged = replace(after, parts=(Part("data/up/a", 9), Part("data/up/c", 3)))
    assert await store.resize_upload(after, merged, NOW) == {"data/up/b"}
    assert (await found(store)).places == {"data/up/a", "data/up/c"}
    assert await doomed(stores) == {"data/up/b": ""}


async def test_of_two_requests_that_read_the_same_session_one_is_too_late(
    stores: Stores, store: UploadStore
) -> None:
    before = await session(store)

    async def records(store: UploadStore, key: str) -> bool:
        try:
            await store.resize_upload(before, replace(before, parts=(Part(key, 5),)), NOW)
        except UploadOutOfOrder as refused:
            assert refused.size_bytes == 5
            return False
        return True

    with stores.replica() as other:
        done = await asyncio.gather(
            *(records(one.uploads, f"data/up/{n}") for n, one in enumerate([stores, other] * 4))
        )
    assert done.count(True) == 1
    assert (await found(store)).parts == (Part(f"data/up/{done.index(True)}", 5),)


async def test_a_session_that_holds_as_much_but_something_else_is_busy(store: UploadStore) -> None:
    before = await session(store)
    await store.resize_upload(before, replace(before, parts=(Part("data/up/a", 5),)), NOW)
    stale = replace(before, parts=(Part("data/up/b", 5),))
    with pytest.raises(UploadBusy):
        await store.resize_upload(stale, replace(stale, parts=()), NOW)
    with pytest.raises(UploadBusy):
        await store.link_upload(stale, BLOB, NOW, LEASE)
    assert (await found(store)).parts == (Part("data/up/a", 5),)


async def test_a_session_that_is_gone_records_nothing(store: UploadStore) -> None:
    gone = Upload("gone", REPOSITORY, NOW + HOUR)
    with pytest.raises(UploadUnknown):
        await store.resize_upload(gone, replace(gone, parts=(Part("data/go/a", 5),)), NOW)
    with pytest.raises(UploadUnknown):
        await store.link_upload(gone, BLOB, NOW, LEASE)
    assert await store.live_uploads(NOW) == frozenset()


async def test_sessions_are_renewed_together(store: UploadStore) -> None:
    for upload_id in ("one", "two"):
        await session(store, upload_id)
    await store.renew_uploads(["one", "unknown"], NOW, NOW + 2 * HOUR, LEASE)
    await store.renew_uploads([], NOW, NOW + 2 * HOUR, LEASE)
    assert await store.live_uploads(NOW + HOUR) == {"one"}


async def test_a_session_that_expired_is_told_from_one_that_was_gone_on_with(
    stores: Stores, store: UploadStore
) -> None:
    await session(store, "old", "data/ol/one", "data/ol/two")
    await session(store, "live", "data/li/live")
    await store.renew_uploads(["live"], NOW, NOW + 2 * HOUR, LEASE)
    assert await store.expired_uploads(NOW + HOUR) == {"old"}
    assert await store.live_uploads(NOW + HOUR) == {"live"}
    assert await store.find_places("old") == {"data/ol/one", "data/ol/two"}
    keys = {"data/ol/one", "data/ol/two"}
    assert await store.delete_upload("old", NOW + HOUR, expired_by=NOW + HOUR) == keys
    assert await store.delete_upload("live", NOW + HOUR, expired_by=NOW + HOUR) == frozenset()
    assert await doomed(stores) == dict.fromkeys(keys, "")
    assert await store.find_places("old") == frozenset()
    assert await store.delete_upload("live", NOW) == {"data/li/live"}
    assert await store.delete_upload("live", NOW) == frozenset()
    assert await store.live_uploads(NOW) == frozenset()


# --- blobs ------------------------------------------------------------------------------------


async def test_linking_an_upload_shows_its_blob_and_ends_the_session(
    stores: Stores, store: UploadStore
) -> None:
    upload = await session(store, "upload", BLOB.key, "data/up/merged")
    await store.link_upload(upload, BLOB, NOW, LEASE)
    assert await stores.registry.find_blob(REPOSITORY, DIGEST, NOW) == BLOB
    assert await stores.registry.find_blob(SIBLING, DIGEST, NOW) is None
    assert await store.live_uploads(NOW) == frozenset()
    # What the blob was merged from, and what a request began to write and never ended.
    assert await doomed(stores) == {"data/up/merged": ""}


async def test_a_linked_upload_is_leased_and_shown_for_that_long(
    stores: Stores, store: UploadStore
) -> None:
    await store.link_upload(await session(store), BLOB, NOW, LEASE)
    query = select(repository_blobs)
    row = await stores.database.read(lambda connection: connection.execute(query).one())
    assert (row.leased_until, row.shown_until, row.check_at) == (NOW + LEASE,) * 3
    just_before = NOW + LEASE - timedelta(microseconds=1)
    assert await stores.registry.find_blob(REPOSITORY, DIGEST, just_before)
    assert await stores.registry.find_blob(REPOSITORY, DIGEST, NOW + LEASE) is None
    # Brought again later, it is leased anew; nothing makes a lease shorter.
    await store.link_upload(await session(store, "later"), BLOB, NOW + LEASE, LEASE)
    assert await stores.registry.find_blob(REPOSITORY, DIGEST, NOW + LEASE)
    await store.link_upload(await session(store, "short"), BLOB, NOW, timedelta(seconds=1))
    row = await stores.database.read(lambda connection: connection.execute(query).one())
    assert row.leased_until == NOW + 2 * LEASE


async def test_what_is_there_already_keeps_its_bytes(stores: Stores, store: UploadStore) -> None:
    digest = await push_blob(stores, REPOSITORY, b"content")
    key = await key_of_blob(stores, digest)
    upload = await session(store, "upload", BLOB.key)
    await store.link_upload(upload, BLOB, NOW, LEASE)
    assert await key_of_blob(stores, digest) == key
    assert await doomed(stores) == {BLOB.key: str(digest)}


async def test_what_is_damaged_is_replaced(stores: Stores, store: UploadStore) -> None:
    digest = await push_blob(stores, REPOSITORY, b"content")
    key = await key_of_blob(stores, digest)
    statement = update(blobs).values(quarantined_at=NOW)
    await stores.database.write(lambda connection: connection.execute(statement))
    assert await key_of_blob(stores, digest) is None
    await store.link_upload(await session(store, "upload", BLOB.key), BLOB, NOW, LEASE)
    assert await stores.registry.find_blob(REPOSITORY, digest, NOW) == BLOB
    assert await doomed(stores) == {key: str(digest)}


async def test_uploads_of_one_blob_at_once_all_end_in_one(
    stores: Stores, store: UploadStore
) -> None:
    uploads = [await session(store, f"upload-{number}", f"data/up/{number}") for number in range(8)]

    async def links(store: UploadStore, upload: Upload) -> None:
        (key,) = upload.places
        await store.link_upload(upload, replace(BLOB, key=key), NOW, LEASE)

    with stores.replica() as other:
        pairs = zip([stores, other] * 4, uploads, strict=True)
        await asyncio.gather(*(links(one.uploads, upload) for one, upload in pairs))
    key = await key_of_blob(stores, DIGEST)
    keys = {f"data/up/{number}" for number in range(8)}
    assert await doomed(stores) == dict.fromkeys(keys - {key}, str(DIGEST))


# --- quota ------------------------------------------------------------------------------------


async def limit(stores: Stores, project_id: str, quota_bytes: int | None) -> None:
    statement = update(projects).where(projects.c.id == project_id).values(quota_bytes=quota_bytes)
    await stores.database.write(lambda connection: connection.execute(statement))


async def used(stores: Stores, project_id: str = "mine") -> int:
    return await stores.database.read(lambda connection: used_bytes(connection, project_id))


async def test_a_project_uses_each_of_its_blobs_once_and_what_is_under_way(
    stores: Stores, store: UploadStore
) -> None:
    await push_blob(stores, REPOSITORY, b"content")
    await push_blob(stores, SIBLING, b"content")
    await push_blob(stores, SIBLING, b"other")
    await push_blob(stores, FOREIGN, b"another project's")
    assert await used(stores) == 12
    before = await session(store)
    assert await used(stores) == 12
    await store.reserve("upload", 100)
    await store.reserve("upload", 10)
    assert await used(stores) == 122
    # What came counts in place of what was announced.
    after = replace(before, parts=(Part("data/up/a", 30),))
    await store.resize_upload(before, after, NOW)
    assert await used(stores) == 42
    await store.link_upload(after, StoredBlob(Digest.of(b"30"), 30, "data/up/a"), NOW, LEASE)
    assert await used(stores) == 42
    await session(store, "another")
    await store.reserve("another", 100)
    await store.delete_upload("another", NOW)
    assert await used(stores) == 42
    assert await used(stores, "foreign") == 17


async def test_what_does_not_fit_is_refused_and_changes_nothing(
    stores: Stores, store: UploadStore
) -> None:
    await push_blob(stores, REPOSITORY, b"content")
    await limit(stores, "mine", 100)
    assert not (await session(store)).is_limited
    assert (await found(store)).is_limited
    assert await store.reserve("upload", 90) == 3
    with pytest.raises(QuotaExceeded) as refused:
        await store.reserve("upload", 4)
    assert (refused.value.used_bytes, refused.value.limit_bytes) == (97, 100)
    assert refused.value.project_id == "mine"
    assert await used(stores) == 97
    assert await store.reserve("upload", 3) == 0
    # Nothing is left: a session that could only fail is not begun.
    with pytest.raises(QuotaExceeded):
        await session(store, "another")
    assert await store.live_uploads(NOW) == {"upload"}
    with pytest.raises(UploadUnknown):
        await store.reserve("unknown", 1)
    # Another project's is its own, and a project without one may take everything.
    await push_blob(stores, FOREIGN, b"x" * 1000)
    await limit(stores, "mine", None)
    assert await store.reserve("upload", 2**50) is None


async def test_what_came_without_a_reservation_is_refused_at_the_end(
    stores: Stores, store: UploadStore
) -> None:
    before = await session(store, "upload", "data/up/a")
    after = replace(before, parts=(Part("data/up/a", 30),))
    # The quota is younger than the request.
    await limit(stores, "mine", 29)
    with pytest.raises(QuotaExceeded):
        await store.resize_upload(before, after, NOW)
    with pytest.raises(QuotaExceeded):
        await store.link_upload(before, StoredBlob(DIGEST, 30, "data/up/a"), NOW, LEASE)
    assert (await found(store)).parts == ()
    assert await stores.registry.find_blob(REPOSITORY, DIGEST, NOW) is None
    await store.reserve("upload", 10)
    with pytest.raises(QuotaExceeded):
        await store.resize_upload(before, after, NOW)
    await limit(stores, "mine", 30)
    await store.resize_upload(before, after, NOW)


async def test_a_mount_counts_where_the_project_does_not_have_the_blob_yet(stores: Stores) -> None:
    digest = await push_blob(stores, FOREIGN, b"content")
    mount = stores.registry.mount_blob
    await limit(stores, "mine", 6)
    with pytest.raises(QuotaExceeded):
        await mount(FOREIGN, REPOSITORY, digest, NOW, LEASE)
    assert await stores.registry.find_blob(REPOSITORY, digest, NOW) is None
    await limit(stores, "mine", 7)
    assert await mount(FOREIGN, REPOSITORY, digest, NOW, LEASE)
    assert await mount(FOREIGN, SIBLING, digest, NOW, LEASE)
    assert await used(stores) == 7


async def test_uploads_at_once_do_not_exceed_a_quota_together(
    stores: Stores, store: UploadStore
) -> None:
    for number in range(10):
        await session(store, f"upload-{number}")
    await limit(stores, "mine", 35)

    async def fits(store: UploadStore, number: int) -> bool:
        try:
            await store.reserve(f"upload-{number}", 10)
        except QuotaExceeded:
            return False
        return True

    with stores.replica() as other:
        pairs = enumerate([stores, other] * 5)
        done = await asyncio.gather(*(fits(one.uploads, number) for number, one in pairs))
    assert done.count(True) == 3
    assert await used(stores) == 30


async def test_a_reservation_that_nobody_renews_is_let_go_of(
    stores: Stores, store: UploadStore
) -> None:
    for upload_id in ("old", "live"):
        await session(store, upload_id)
        await store.reserve(upload_id, 10)
    await store.renew_uploads(["live"], NOW, NOW + 2 * HOUR, LEASE)
    await store.release_reservations(NOW + 2 * HOUR)
    assert await used(stores) == 10
