"""A build is listed whole or not at all, on every database."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from datetime import timedelta

import pytest

from layover.adapters.sql.builds import SqlBuildStore
from layover.adapters.sql.images import SqlSavedImages
from layover.builds.models import BuildStatus
from layover.oci.digest import Digest
from layover.oci.manifests import OCI_MANIFEST
from layover.oci.names import Tag
from layover.registry.manifests import Audience
from layover.registry.models import BuildOver, ManifestUnknown, TagProtected
from tests.contract.test_collection import BUILD, World
from tests.stores import (
    LEASE,
    NOW,
    RETENTION,
    SAVES,
    SIBLING,
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

OTHER = "zyxwvutsrq"
NAMES = ["main", BUILD, f"{BUILD}-api"]


@pytest.fixture
def world(stores: Stores) -> World:
    return World(stores)


async def fail(world: World) -> None:
    await world.builds.end(BUILD, BuildStatus.FAILED, "no such file", world.clock.now)


async def cancel(world: World) -> None:
    await world.builds.end(BUILD, BuildStatus.CANCELED, "interrupted", world.clock.now)


async def vanish(world: World) -> None:
    world.clock.pass_by(timedelta(minutes=2))
    seen_before = world.clock.now - timedelta(minutes=1)
    # Other builds are heard of.
    await world.builds.mark_seen(OTHER, world.clock.now, starts=False)
    assert await world.builds.end_vanished(seen_before, "silent", world.clock.now) == [BUILD]


unlucky_ends = pytest.mark.parametrize("end_badly", [fail, cancel, vanish])


async def save(world: World, build_id: str, *layers: bytes) -> list[bytes]:
    """Two images and the index of them, under the build's names."""
    first = await push_image(world.stores, SAVES, *layers[:1], build_id=build_id)
    second = await push_image(world.stores, SAVES, *layers, build_id=build_id)
    both = index(first, second)
    for name in ("main", build_id, f"{build_id}-api"):
        await put_manifest(world.stores, SAVES, both, name, build_id)
    return [first, second, both]


async def listed(world: World, of_build: str | None = None) -> list[str]:
    page = await world.manifests.list_tags(SAVES, None, None, of_build)
    return [tag.value for tag in page.tags]


async def named(world: World, tag: str) -> bytes | None:
    try:
        found = await world.manifests.find(SAVES, Tag(tag), Audience.READER)
    except ManifestUnknown:
        return None
    return found.body


async def test_what_a_build_named_is_there_for_others_from_its_end_on(world: World) -> None:
    *_, both = await save(world, BUILD, b"layer", b"other")
    images = SqlSavedImages(world.stores.database, world.stores.blobs)
    assert await listed(world) == await listed(world, BUILD) == []
    assert [await named(world, name) for name in NAMES] == [None, None, None]
    assert await images.of_build("mine", BUILD) == []
    await world.end(BUILD)
    assert await listed(world) == await listed(world, BUILD) == sorted(NAMES)
    assert [await named(world, name) for name in NAMES] == [both, both, both]
    assert len(await images.of_build("mine", BUILD)) == 3
    # All of it as long.
    world.clock.pass_by(RETENTION)
    assert await listed(world) == []


@pytest.mark.parametrize("audience", Audience)
async def test_a_running_build_sees_what_it_named(world: World, audience: Audience) -> None:
    *_, both = await save(world, BUILD, b"layer")
    for name in NAMES:
        own = await world.manifests.find(SAVES, Tag(name), audience, BUILD)
        assert (own.body, own.expires_at) == (both, None)
        for another in (None, OTHER):
            with pytest.raises(ManifestUnknown):
                await world.manifests.find(SAVES, Tag(name), audience, another)


@unlucky_ends
async def test_a_build_that_fails_leaves_nothing_and_moves_no_tag(
    world: World, end_badly: Callable[[World], Awaitable[None]]
) -> None:
    *_, before = await save(world, OTHER, b"layer", b"of the one before")
    await finish(world.stores, OTHER)
    await world.collect()
    kept = await world.rows()
    bytes_kept = await world.objects()
    bodies = await save(world, BUILD, b"layer", b"of the one that fails")
    await end_badly(world)
    assert await named(world, "main") == before
    assert await listed(world) == sorted(["main", OTHER, f"{OTHER}-api"])
    # One of its images is the other one's as well.
    assert [await world.shows(Digest.of(body), SAVES) for body in bodies] == [True, False, False]
    world.clock.pass_by(LEASE)
    await world.collect()
    # The build itself, and why it failed, can be read as long as any other.
    kept["retentions"] += 1
    assert await world.rows() == kept
    assert await world.objects() == bytes_kept
    build = await world.builds.find(BUILD)
    assert build is not None
    assert build.finished_at == world.clock.now - LEASE
    assert build.expires_at == build.finished_at + RETENTION


async def test_what_a_user_pushed_as_well_stays_when_the_build_fails(world: World) -> None:
    body = await push_image(world.stores, SAVES, b"layer", tag=BUILD, build_id=BUILD)
    await put_manifest(world.stores, SAVES, body, "of-a-user")
    await fail(world)
    world.clock.pass_by(LEASE)
    await world.collect()
    assert await named(world, "of-a-user") == body
    assert await world.blobs.find(SAVES, Digest.of(b"layer"), may_push=False)
    assert await named(world, BUILD) is None


async def test_the_build_that_finished_last_has_the_save_tag(world: World) -> None:
    *_, first = await save(world, BUILD, b"layer", b"first")
    *_, second = await save(world, OTHER, b"layer", b"second")
    await finish(world.stores, OTHER)
    assert await named(world, "main") == second
    await finish(world.stores, BUILD)
    assert await named(world, "main") == first
    assert await named(world, OTHER) == second


@pytest.mark.parametrize("tag", [BUILD, f"{BUILD}-api"])
async def test_a_builds_name_is_its_own_from_its_creation_on_also_when_it_failed(
    world: World, tag: str
) -> None:
    async def is_its_own() -> None:
        for build_id in (None, OTHER):
            with pytest.raises(TagProtected):
                await put_manifest(world.stores, SAVES, body, tag, build_id, world.clock.now)

    body = await push_image(world.stores, SAVES, b"layer", build_id=BUILD)
    await is_its_own()
    await put_manifest(world.stores, SAVES, body, tag, BUILD)
    await is_its_own()
    with pytest.raises(TagProtected):
        await world.stores.registry.delete_manifest(SAVES, Digest.of(body), NOW)
    await fail(world)
    await is_its_own()
    # A copy that goes by the same name elsewhere is nobody's but its user's.
    await push_image(world.stores, SIBLING, b"layer", tag=tag)


async def test_a_referrer_that_waited_for_its_subject_does_not_fail_with_a_build(
    world: World,
) -> None:
    for content in (b"{}", b"layer"):
        await push_blob(world.stores, SAVES, content)
    body = image(b"layer")
    signature = image(subject=descriptor(OCI_MANIFEST, body))
    await put_manifest(world.stores, SAVES, signature)
    await put_manifest(world.stores, SAVES, body, BUILD, BUILD)
    await fail(world)
    assert await world.shows(Digest.of(signature), SAVES)
    await put_manifest(world.stores, SAVES, body, OTHER, OTHER)
    await finish(world.stores, OTHER)
    assert await world.builds.delete(OTHER, world.clock.now)
    assert not await world.shows(Digest.of(signature), SAVES)


async def test_the_receipt_of_a_failed_build_tells_what_it_had_pushed(world: World) -> None:
    bodies = await save(world, BUILD, b"layer", b"other")
    await fail(world)
    world.clock.pass_by(LEASE)
    await world.collect()
    stored = await world.retention.find_receipt(BUILD)
    assert stored is not None and stored.document is None, "the build lives"
    world.clock.pass_by(RETENTION)
    await world.collect()
    await world.collect()
    stored = await world.retention.find_receipt(BUILD)
    assert stored is not None and stored.document is not None
    document = json.loads(stored.document)
    freed = {item["digest"] for item in document["freed"]}
    assert {str(Digest.of(body)) for body in bodies} < freed
    assert str(Digest.of(b"other")) in freed
    assert document["ended_at"] == "2026-01-08T12:00:00Z"


async def test_who_read_a_failed_builds_image_is_told_since_when_it_is_gone(world: World) -> None:
    *_, both = await save(world, BUILD, b"layer")
    digest = Digest.of(both)
    assert await world.shows(digest, SAVES)
    await fail(world)
    gone = await world.stores.registry.find_gone(SAVES, digest, world.clock.now)
    assert gone is not None
    assert (gone.is_deleted, gone.at) == (True, world.clock.now)
    assert await world.stores.registry.find_gone(SAVES, Tag(BUILD), world.clock.now) is None


async def test_a_save_tag_whose_image_is_deleted_meanwhile_is_not_set(world: World) -> None:
    body = await push_image(world.stores, SAVES, b"layer", tag="main", build_id=BUILD)
    other = await push_image(world.stores, SAVES, b"other", tag=BUILD, build_id=BUILD)
    await world.stores.registry.delete_manifest(SAVES, Digest.of(body), NOW)
    await world.end(BUILD)
    assert await listed(world) == [BUILD]
    assert await named(world, BUILD) == other


async def test_what_comes_as_the_build_ends_is_of_it_or_refused(stores: Stores) -> None:
    images = [await push_image(stores, SAVES, bytes([number])) for number in range(12)]
    for status in (BuildStatus.FINISHED, BuildStatus.FAILED):
        with ExitStack() as stack:
            replica = stack.enter_context(stores.replica())
            build_id = f"{status.value:x<10}"
            await put_manifest(stores, SAVES, images[0], build_id, build_id)
            ending = SqlBuildStore(replica.database).end(build_id, status, None, NOW)
            _, *outcomes = await asyncio.gather(
                ending,
                *(
                    put_manifest(stores, SAVES, body, f"{build_id}-{number}", build_id)
                    for number, body in enumerate(images)
                ),
                return_exceptions=True,
            )
        assert {type(outcome) for outcome in outcomes} <= {Digest, BuildOver}
        taken = {
            f"{build_id}-{number}"
            for number, outcome in enumerate(outcomes)
            if isinstance(outcome, Digest)
        }
        page = await stores.registry.list_tags(SAVES, None, None, NOW, build_id)
        names = {tag.value for tag in page.tags}
        assert names == ({build_id, *taken} if status is BuildStatus.FINISHED else set())
