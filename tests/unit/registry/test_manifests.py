from dataclasses import replace

import pytest
from sqlalchemy import update

from layover.adapters.sql import schema
from layover.errors import StorageFull
from layover.oci.digest import Digest
from layover.oci.manifests import OCI_MANIFEST, InvalidManifest
from layover.oci.names import Tag
from layover.registry.manifests import MAX_MANIFEST_BYTES, Audience, ManifestService
from layover.registry.models import (
    DigestMismatch,
    Gone,
    ManifestBlobUnknown,
    ManifestTooLarge,
    ManifestUnknown,
)
from tests.stores import LEASE, NOW, REPOSITORY, RETENTION, Stores, descriptor, image, push_blob
from tests.unit.registry.faults import Crash, Faulty

pytestmark = pytest.mark.anyio


def service(stores: Stores, registry: object = None) -> ManifestService:
    return ManifestService(registry or stores.registry, lambda: NOW, LEASE)  # type: ignore[arg-type]  # a proxy


async def is_visible(stores: Stores, body: bytes, tag: str = "main") -> bool:
    for reference in (Tag(tag), Digest.of(body), Digest.of(body, "sha512")):
        try:
            await service(stores).find(REPOSITORY, reference, Audience.READER)
        except ManifestUnknown:
            continue
        return True
    return False


@pytest.fixture
async def body(stores: Stores) -> bytes:
    """A manifest whose blobs are there."""
    for content in (b"{}", b"layer"):
        await push_blob(stores, REPOSITORY, content)
    return image(b"layer")


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_a_manifest_pushed_by_digest_is_served_byte_for_byte(
    stores: Stores, body: bytes, algorithm: str
) -> None:
    # White space and order of names are part of what the digest names.
    body = b" \n" + body + b"\n"
    digest = Digest.of(body, algorithm)
    stored, subject = await service(stores).put(REPOSITORY, digest, body, OCI_MANIFEST, None)
    assert (stored.digest, stored.body, subject) == (digest, body, None)
    for audience in Audience:
        found = await service(stores).find(REPOSITORY, digest, audience)
        assert found == replace(stored, expires_at=NOW + RETENTION)


async def test_a_damaged_manifest_is_unknown_to_a_pusher_and_whole_once_it_is_pushed_again(
    stores: Stores, body: bytes
) -> None:
    manifests = service(stores)
    stored, _ = await manifests.put(REPOSITORY, Tag("main"), body, OCI_MANIFEST, None)
    damaged = update(schema.manifests).values(body=body[:-1] + b"\0")
    await stores.database.write(lambda connection: connection.execute(damaged))
    for reference in (Tag("main"), stored.digest):
        # What is there a pusher does not bring.
        with pytest.raises(ManifestUnknown):
            await manifests.find(REPOSITORY, reference, Audience.PUSHER)
    await manifests.put(REPOSITORY, Tag("main"), body, OCI_MANIFEST, None)
    for audience in Audience:
        assert (await manifests.find(REPOSITORY, Tag("main"), audience)).body == body


async def test_a_manifest_with_a_subject_tells_it(stores: Stores, body: bytes) -> None:
    subject = descriptor(OCI_MANIFEST, body)
    _, told = await service(stores).put(
        REPOSITORY, Tag("a"), image(b"layer", subject=subject), None, None
    )
    assert told == Digest.of(body)


async def test_a_manifest_of_another_digest_stores_nothing(stores: Stores, body: bytes) -> None:
    for algorithm in ("sha256", "sha512"):
        with pytest.raises(DigestMismatch):
            await service(stores).put(
                REPOSITORY, Digest.of(b"other", algorithm), body, OCI_MANIFEST, None
            )
    assert not await is_visible(stores, body)


async def test_a_manifest_at_the_limit_is_taken_and_one_over_it_is_not(
    stores: Stores, body: bytes
) -> None:
    largest = body + b" " * (MAX_MANIFEST_BYTES - len(body))
    assert MAX_MANIFEST_BYTES == 4 << 20
    await service(stores).put(REPOSITORY, Tag("main"), largest, None, None)
    with pytest.raises(ManifestTooLarge):
        await service(stores).put(REPOSITORY, Tag("main"), largest + b" ", None, None)


async def test_what_is_no_manifest_stores_nothing(stores: Stores) -> None:
    for body in (b"", b"{}", b"not json"):
        with pytest.raises(InvalidManifest):
            await service(stores).put(REPOSITORY, Tag("main"), body, OCI_MANIFEST, None)
        assert not await is_visible(stores, body)


async def test_no_manifest_refers_to_a_blob_that_is_missing(stores: Stores, body: bytes) -> None:
    # Invariant 2.
    with pytest.raises(ManifestBlobUnknown):
        await service(stores).put(REPOSITORY, Tag("main"), image(b"layer", b"gone"), None, None)
    assert not await is_visible(stores, image(b"layer", b"gone"))


@pytest.mark.parametrize("after", [False, True])
async def test_a_crash_around_a_manifests_one_step_shows_nothing_or_all_of_it(
    stores: Stores, body: bytes, after: bool
) -> None:
    # Invariant 1: a manifest, its tag and what it refers to are one transaction.
    dying = service(stores, Faulty(stores.registry, "put_manifest", Crash, after=after))
    with pytest.raises(Crash):
        await dying.put(REPOSITORY, Tag("main"), body, None, None)
    assert await is_visible(stores, body) == after
    if after:
        by_tag, by_digest = [
            await service(stores).find(REPOSITORY, reference, Audience.READER)
            for reference in (Tag("main"), Digest.of(body))
        ]
        assert by_tag == by_digest


async def test_a_full_disk_stores_nothing(stores: Stores, body: bytes) -> None:
    with pytest.raises(StorageFull):
        await service(stores, Faulty(stores.registry, "put_manifest", StorageFull)).put(
            REPOSITORY, Tag("main"), body, None, None
        )
    assert not await is_visible(stores, body)


async def test_a_tag_and_a_manifest_are_deleted_each_by_its_own_name(
    stores: Stores, body: bytes
) -> None:
    await service(stores).put(REPOSITORY, Tag("main"), body, None, None)
    await service(stores).delete(REPOSITORY, Tag("main"))
    assert await is_visible(stores, body)
    await service(stores).delete(REPOSITORY, Digest.of(body))
    assert not await is_visible(stores, body)


@pytest.mark.parametrize("deletes", [False, True])
async def test_what_is_gone_is_told_with_its_time(
    stores: Stores, body: bytes, deletes: bool
) -> None:
    await service(stores).put(REPOSITORY, Tag("main"), body, None, None)
    later = NOW + RETENTION
    if deletes:
        await service(stores).delete(REPOSITORY, Digest.of(body))
    for reference in (Tag("main"), Digest.of(body)):
        for audience in Audience:
            after = ManifestService(stores.registry, lambda: later, LEASE)
            with pytest.raises(ManifestUnknown) as unknown:
                await after.find(REPOSITORY, reference, audience)
            assert unknown.value.gone == Gone(deletes, NOW if deletes else later)
            told = "was deleted at 2026-01-01" if deletes else "expired at 2026-01-08"
            assert f"it {told}T12:00:00Z" in str(unknown.value)
    with pytest.raises(ManifestUnknown) as unknown:
        await service(stores).find(REPOSITORY, Tag("never"), Audience.READER)
    assert unknown.value.gone is None
