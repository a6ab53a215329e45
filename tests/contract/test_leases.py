"""What a client that may push was told to be there can be named, and what lives lives as one."""

from datetime import datetime, timedelta

import pytest

from layover.adapters.sql.builds import SqlBuildStore
from layover.adapters.sql.retention import SqlRetentionStore
from layover.builds.models import BuildStatus
from layover.oci.digest import Digest
from layover.oci.manifests import OCI_MANIFEST, InvalidManifest, parse_manifest
from layover.oci.names import Reference, RepositoryName, Tag
from layover.registry.models import ManifestBlobUnknown, StoredManifest
from tests.stores import (
    LEASE,
    NOW,
    REPOSITORY,
    RETENTION,
    Stores,
    descriptor,
    finish,
    image,
    index,
    push_blob,
    push_image,
    put_manifest,
)

pytestmark = pytest.mark.anyio

BUILD, OTHER_BUILD = "bcdefghijk", "zyxwvutsrq"
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
OVER = NOW + RETENTION
LAYER, CONFIG = Digest.of(b"layer"), Digest.of(b"{}")


async def shows(stores: Stores, reference: Reference, now: datetime) -> bool:
    return bool(await stores.registry.find_manifest(REPOSITORY, reference, now))


async def collect(stores: Stores, now: datetime) -> None:
    """All that a collector does to rows."""
    retention = SqlRetentionStore(stores.database)
    for step in (
        retention.end_due,
        retention.release_ended,
        retention.collect_manifests,
        retention.collect_links,
    ):
        while await step(now, 100):
            pass


async def tell(stores: Stores, now: datetime) -> None:
    """Tell a client that may push that the blobs of the image are there."""
    for digest in (LAYER, CONFIG):
        assert await stores.registry.lease_blob(REPOSITORY, digest, now, LEASE)


# --- blobs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("collects", [False, True])
@pytest.mark.parametrize("deletes", [False, True])
async def test_what_a_pusher_was_told_can_be_named_when_it_is_gone(
    stores: Stores, deletes: bool, collects: bool
) -> None:
    body = await push_image(stores, REPOSITORY, b"layer", tag="v1")
    now = OVER - SECOND
    await tell(stores, now)
    if deletes:
        await stores.registry.delete_manifest(REPOSITORY, Digest.of(body), now)
    now += LEASE - SECOND
    if collects:
        await collect(stores, now)
    assert await stores.registry.find_blob(REPOSITORY, LAYER, now) is None
    await put_manifest(stores, REPOSITORY, image(b"layer", annotations={"a": "b"}), "v2", now=now)
    assert await stores.registry.find_blob(REPOSITORY, LAYER, now)
    # It is named now, and stays when the lease is over.
    await collect(stores, now + LEASE)
    assert await stores.registry.find_blob(REPOSITORY, LAYER, now + RETENTION - SECOND)
    assert await stores.registry.find_blob(REPOSITORY, LAYER, now + RETENTION + SECOND) is None


@pytest.mark.parametrize("collects", [False, True])
async def test_what_nobody_was_told_of_for_a_lease_cannot_be_named(
    stores: Stores, collects: bool
) -> None:
    await push_image(stores, REPOSITORY, b"layer", tag="v1")
    await tell(stores, OVER - LEASE)
    if collects:
        await collect(stores, OVER)
    with pytest.raises(ManifestBlobUnknown) as refused:
        await put_manifest(stores, REPOSITORY, image(b"layer", annotations={"a": "b"}), now=OVER)
    assert set(refused.value.missing) == {LAYER, CONFIG}


async def test_a_reader_leases_nothing(stores: Stores) -> None:
    await push_image(stores, REPOSITORY, b"layer", tag="v1")
    now = OVER - SECOND
    for digest in (LAYER, CONFIG):
        assert await stores.registry.find_blob(REPOSITORY, digest, now)
    with pytest.raises(ManifestBlobUnknown):
        await put_manifest(stores, REPOSITORY, image(b"layer", annotations={"a": "b"}), now=OVER)


async def test_each_answer_renews_the_lease(stores: Stores) -> None:
    await push_image(stores, REPOSITORY, b"layer", tag="v1")
    now = OVER - SECOND
    for minutes in (90, 60, 30, 20, 10, 5, 1, 0):
        await tell(stores, now - timedelta(minutes=minutes))
    await put_manifest(
        stores, REPOSITORY, image(b"layer", annotations={"a": "b"}), now=now + LEASE - SECOND
    )


async def test_a_blob_that_no_manifest_names_is_shown_for_the_lease(stores: Stores) -> None:
    digest = await push_blob(stores, REPOSITORY, b"alone")
    assert await stores.registry.find_blob(REPOSITORY, digest, NOW + LEASE - SECOND)
    assert await stores.registry.find_blob(REPOSITORY, digest, NOW + LEASE) is None
    # Brought again it is there again, whether or not it was collected.
    await push_blob(stores, REPOSITORY, b"alone", NOW + LEASE)
    assert await stores.registry.find_blob(REPOSITORY, digest, NOW + LEASE)


async def test_a_blob_that_is_brought_while_the_clock_was_set_back_is_shown(
    stores: Stores,
) -> None:
    digest = await push_blob(stores, REPOSITORY, b"alone")
    await stores.registry.unlink_blob(REPOSITORY, digest, NOW)
    before = NOW - timedelta(minutes=30)
    await push_blob(stores, REPOSITORY, b"alone", before)
    assert await stores.registry.find_blob(REPOSITORY, digest, before)


# --- indexes ----------------------------------------------------------------------------------


async def test_a_child_that_a_pusher_was_told_of_comes_back_with_its_index(
    stores: Stores,
) -> None:
    child = await push_image(stores, REPOSITORY, b"layer")
    digest = Digest.of(child)
    assert await stores.registry.lease_manifest(REPOSITORY, digest, NOW, LEASE, pushes=False)
    await stores.registry.delete_manifest(REPOSITORY, digest, NOW)
    now = NOW + LEASE - SECOND
    await collect(stores, now)
    assert not await shows(stores, digest, now)
    await put_manifest(stores, REPOSITORY, index(child), "v1", now=now)
    await collect(stores, now + LEASE)
    assert await shows(stores, digest, now + RETENTION - SECOND)
    assert await stores.registry.find_blob(REPOSITORY, LAYER, now + RETENTION - SECOND)


async def test_a_child_that_a_pusher_brought_outlives_a_short_retention_for_its_index(
    stores: Stores,
) -> None:
    child = await push_image(stores, REPOSITORY, b"layer")
    parsed = parse_manifest(child, None)
    stored = StoredManifest(Digest.of(child), parsed.media_type, child)
    await stores.registry.put_manifest(
        REPOSITORY, stored, parsed, [], None, OVER - SECOND, lease=LEASE
    )
    # As if it had been pushed to live for a second.
    await stores.registry.delete_manifest(REPOSITORY, stored.digest, OVER)
    now = OVER - SECOND + LEASE - SECOND
    await collect(stores, now)
    assert not await shows(stores, stored.digest, now)
    await put_manifest(stores, REPOSITORY, index(child), "v1", now=now)
    await collect(stores, now + LEASE)
    assert await shows(stores, stored.digest, now + RETENTION - SECOND)


@pytest.mark.parametrize("is_nested", [False, True])
async def test_what_is_over_does_not_come_back_by_being_named(
    stores: Stores, is_nested: bool
) -> None:
    child = await push_image(stores, REPOSITORY, b"layer")
    # One that is there and was not to come back with it.
    await put_manifest(stores, REPOSITORY, index(child), "v1", now=OVER)
    if is_nested:
        await put_manifest(stores, REPOSITORY, index(index(child)), "v2", now=OVER)
    assert not await shows(stores, Digest.of(child), OVER)
    assert await stores.registry.find_blob(REPOSITORY, LAYER, OVER) is None
    # Pushed again it belongs to both.
    await push_image(stores, REPOSITORY, b"layer", now=OVER + DAY)
    assert await shows(stores, Digest.of(child), OVER + DAY)


async def test_children_that_come_later_live_as_their_index_does(stores: Stores) -> None:
    leaf, other = image(b"layer"), image(b"other")
    inner = index(leaf, other)
    outer = index(inner)
    # A build's, which has no end yet; what comes later is somebody's push, from the outside in.
    await put_manifest(stores, REPOSITORY, outer, BUILD, BUILD)
    await put_manifest(stores, REPOSITORY, inner, now=NOW + DAY)
    for content in (b"{}", b"layer", b"other"):
        await push_blob(stores, REPOSITORY, content, NOW + DAY)
    for body in (leaf, other):
        await put_manifest(stores, REPOSITORY, body, now=NOW + DAY)
    late = NOW + RETENTION * 3
    await collect(stores, late)
    for body in (leaf, other, inner, outer):
        assert await shows(stores, Digest.of(body), late)
    for content in (b"layer", b"other"):
        assert await stores.registry.find_blob(REPOSITORY, Digest.of(content), late)
    await SqlBuildStore(stores.database).end(BUILD, BuildStatus.FINISHED, None, late)
    for body in (leaf, other, inner, outer):
        assert await shows(stores, Digest.of(body), late + RETENTION - SECOND)
        assert not await shows(stores, Digest.of(body), late + RETENTION)


async def test_what_one_push_writes_is_bounded(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("layover.adapters.sql.retention_rows.MAX_REACHED", 5)
    children = [await push_image(stores, REPOSITORY, str(n).encode()) for n in range(4)]
    await put_manifest(stores, REPOSITORY, index(*children))
    with pytest.raises(InvalidManifest, match="more than 5"):
        await put_manifest(stores, REPOSITORY, index(index(*children)), "v1")
    assert not await shows(stores, Tag("v1"), NOW)


# --- referrers --------------------------------------------------------------------------------


async def referrers(stores: Stores, subject: bytes, now: datetime) -> set[Digest]:
    page = await stores.registry.list_referrers(REPOSITORY, Digest.of(subject), None, None, now)
    return {referrer.descriptor.digest for referrer in page.referrers}


@pytest.mark.parametrize("comes_first", [False, True])
async def test_a_referrer_lives_as_its_subject_does(stores: Stores, comes_first: bool) -> None:
    body = image(b"layer")
    signature = image(subject=descriptor(OCI_MANIFEST, body))
    for content in (b"{}", b"layer"):
        await push_blob(stores, REPOSITORY, content)
    if comes_first:
        await put_manifest(stores, REPOSITORY, signature, now=NOW + SECOND)
        await put_manifest(stores, REPOSITORY, body, "v1")
    else:
        await put_manifest(stores, REPOSITORY, body, "v1")
        await put_manifest(stores, REPOSITORY, signature, now=NOW + SECOND)
    assert await referrers(stores, body, OVER - SECOND) == {Digest.of(signature)}
    # Not a moment longer, although it was pushed later.
    assert not await shows(stores, Digest.of(signature), OVER)
    # And longer with its subject.
    now = NOW + DAY
    await push_blob(stores, REPOSITORY, b"layer", now)
    await put_manifest(stores, REPOSITORY, body, "v1", now=now)
    assert await referrers(stores, body, OVER + DAY - SECOND) == {Digest.of(signature)}
    assert await referrers(stores, body, OVER + DAY) == set()


async def test_a_referrer_with_a_tag_lives_for_its_own_sake(stores: Stores) -> None:
    body = await push_image(stores, REPOSITORY, b"layer", tag="v1")
    signature = image(subject=descriptor(OCI_MANIFEST, body))
    await push_blob(stores, REPOSITORY, b"{}", NOW + DAY)
    await put_manifest(stores, REPOSITORY, signature, "signature", now=NOW + DAY)
    assert await shows(stores, Tag("signature"), OVER)
    assert not await shows(stores, Tag("v1"), OVER)
    # Its subject pushed again does not take that away.
    await push_image(stores, REPOSITORY, b"layer", tag="v1", now=OVER)
    assert await shows(stores, Tag("signature"), OVER + DAY - SECOND)
    assert not await shows(stores, Tag("signature"), OVER + DAY)
    assert await referrers(stores, body, OVER + RETENTION - SECOND) == {Digest.of(signature)}


# --- tags and pushes ---------------------------------------------------------------------------


@pytest.mark.parametrize("early", [timedelta(microseconds=1), timedelta(0), -SECOND])
@pytest.mark.parametrize("collects", [False, True])
async def test_a_push_that_races_the_expiry_loses_nothing(
    stores: Stores, early: timedelta, collects: bool
) -> None:
    await push_image(stores, REPOSITORY, b"layer", tag="v1")
    now = OVER - early
    for content in (b"{}", b"layer"):
        await push_blob(stores, REPOSITORY, content, now)
    if collects:
        await collect(stores, OVER)
    await put_manifest(stores, REPOSITORY, image(b"layer"), "v1", now=now)
    await collect(stores, OVER + LEASE * 2)
    late = now + RETENTION - SECOND
    for reference in (Tag("v1"), Digest.of(image(b"layer"))):
        assert await shows(stores, reference, late)
    assert await stores.registry.find_blob(REPOSITORY, LAYER, late)
    assert await stores.registry.find_gone(REPOSITORY, Tag("v1"), late) is None or early < SECOND


async def test_an_expired_tag_does_not_come_back_with_what_it_named(stores: Stores) -> None:
    body = await push_image(stores, REPOSITORY, b"layer", tag="old")
    await push_image(stores, REPOSITORY, b"layer", tag="new", now=OVER)
    assert await shows(stores, Tag("new"), OVER)
    assert await shows(stores, Digest.of(body), OVER)
    assert not await shows(stores, Tag("old"), OVER)
    page = await stores.registry.list_tags(REPOSITORY, None, None, OVER)
    assert page.tags == (Tag("new"),)
    await collect(stores, OVER)
    assert not await shows(stores, Tag("old"), OVER)
    assert await shows(stores, Tag("new"), OVER + RETENTION - SECOND)


async def test_a_tag_that_moved_on_is_over_with_what_it_names_now(stores: Stores) -> None:
    first = await push_image(stores, REPOSITORY, b"first", tag="v1")
    await push_image(stores, REPOSITORY, b"second", tag="v1", now=NOW + DAY)
    assert await shows(stores, Digest.of(first), OVER - SECOND)
    assert not await shows(stores, Digest.of(first), OVER)
    await collect(stores, OVER)
    assert await shows(stores, Tag("v1"), OVER + DAY - SECOND)
    assert not await shows(stores, Tag("v1"), OVER + DAY)


async def test_another_push_of_an_image_lets_all_its_tags_live_on(stores: Stores) -> None:
    body = await push_image(stores, REPOSITORY, b"layer", tag="v1")
    await put_manifest(stores, REPOSITORY, body, "latest", now=NOW + DAY)
    for tag in ("v1", "latest"):
        assert await shows(stores, Tag(tag), OVER + DAY - SECOND)
        assert not await shows(stores, Tag(tag), OVER + DAY)


async def test_what_another_image_needs_stays_until_its_time(stores: Stores) -> None:
    child = await push_image(stores, REPOSITORY, b"layer", tag="child")
    await put_manifest(stores, REPOSITORY, index(child), "all", now=NOW + DAY)
    await collect(stores, OVER)
    assert not await shows(stores, Tag("child"), OVER)
    assert await shows(stores, Digest.of(child), OVER + DAY - SECOND)
    assert not await shows(stores, Digest.of(child), OVER + DAY)


@pytest.mark.parametrize("ends", ["expires", "deleted"])
async def test_a_build_is_there_as_one_or_not_at_all(stores: Stores, ends: str) -> None:
    amd, arm = [
        await push_image(stores, REPOSITORY, name, build_id=BUILD) for name in (b"amd", b"arm")
    ]
    both = index(amd, arm)
    await put_manifest(stores, REPOSITORY, both, BUILD, BUILD)
    await put_manifest(stores, REPOSITORY, amd, "saved", BUILD)
    attestation = image(subject=descriptor(OCI_MANIFEST, amd))
    await put_manifest(stores, REPOSITORY, attestation)
    everything: list[Reference] = [Tag(BUILD), Tag("saved")]
    everything += [Digest.of(body) for body in (amd, arm, both, attestation)]
    builds = SqlBuildStore(stores.database)
    await builds.end(BUILD, BuildStatus.FINISHED, None, NOW)
    until = await builds.keep(BUILD, OVER + DAY, NOW)
    assert until == OVER + DAY
    if ends == "deleted":
        until = OVER
    assert {await shows(stores, one, until - SECOND) for one in everything} == {True}
    if ends == "deleted":
        await builds.delete(BUILD, until)
    assert {await shows(stores, one, until) for one in everything} == {False}
    gone = [await stores.registry.find_gone(REPOSITORY, one, until) for one in everything]
    assert {one and (one.is_deleted, one.at) for one in gone} == {(ends == "deleted", until)}
    # As before, once it is collected.
    await collect(stores, until)
    assert gone == [await stores.registry.find_gone(REPOSITORY, one, until) for one in everything]


@pytest.mark.parametrize("build_id", [None, OTHER_BUILD])
async def test_a_save_tag_is_pushed_although_the_same_image_is_under_it(
    stores: Stores, build_id: str | None
) -> None:
    # BuildKit and docker leave out the push of what they are told is there: the tag would be over
    # with the build that saved it first.
    body = await push_image(stores, REPOSITORY, b"layer", tag="saved", build_id=BUILD)
    await put_manifest(stores, REPOSITORY, body, BUILD, BUILD)

    async def is_told(tag: str, asker: str | None) -> bool:
        return bool(
            await stores.registry.lease_manifest(
                REPOSITORY, Tag(tag), NOW, LEASE, pushes=True, build_id=asker
            )
        )

    assert await is_told("saved", BUILD)
    await finish(stores, BUILD)
    assert not await is_told("saved", build_id)
    # What a push would be refused for, it is not made to try.
    assert await is_told(BUILD, build_id)
    await put_manifest(stores, REPOSITORY, body, "saved", build_id)
    assert await is_told("saved", build_id)
    await finish(stores, OTHER_BUILD)
    await SqlBuildStore(stores.database).delete(BUILD, NOW)
    assert await shows(stores, Tag("saved"), NOW)


# --- images without their blobs ------------------------------------------------------------------


async def test_a_mirror_takes_images_without_blobs_that_never_were_there(stores: Stores) -> None:
    repository = RepositoryName("mine/mirror")
    await push_blob(stores, repository, b"{}")
    body = image(b"layer")
    with pytest.raises(ManifestBlobUnknown):
        await put_manifest(stores, repository, body, "v1")
    await put_manifest(stores, repository, body, "v1", may_miss_blobs=True)
    assert await stores.registry.find_manifest(repository, Tag("v1"), NOW)
    assert await stores.registry.find_blob(repository, LAYER, NOW) is None
    # It belongs to the image when it comes.
    await push_blob(stores, repository, b"layer")
    assert await stores.registry.find_blob(repository, LAYER, OVER - SECOND)
    # What was there is not brought back.
    with pytest.raises(ManifestBlobUnknown):
        await put_manifest(
            stores, repository, image(b"layer", a="b"), "v2", now=OVER, may_miss_blobs=True
        )
