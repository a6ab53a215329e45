"""What pushes rely on, between any two steps of a collection."""

from datetime import timedelta

import pytest
from sqlalchemy import update

from layover.adapters.sql.schema import manifests, projects
from layover.oci.digest import Digest
from layover.oci.manifests import OCI_MANIFEST
from layover.oci.names import Tag
from layover.registry.manifests import Audience
from layover.retention.findings import Finding
from tests.contract.test_collection import BUILD, World
from tests.contract.test_verification import rows, verifier
from tests.stores import (
    LEASE,
    REPOSITORY,
    RETENTION,
    Stores,
    descriptor,
    image,
    index,
    push_blob,
    push_image,
    put_manifest,
)

pytestmark = pytest.mark.anyio

SECOND = timedelta(seconds=1)
OTHER = "cdefghijkl"


@pytest.fixture
def world(stores: Stores) -> World:
    return World(stores)


async def findings(world: World) -> tuple[Finding, ...]:
    """What a verification finds now."""
    return (await verifier(world.stores, world.clock.now).run()).findings


async def test_a_manifest_that_a_pusher_was_told_of_can_be_tagged_after_it_is_over(
    world: World,
) -> None:
    body = await push_image(world.stores, REPOSITORY, b"layer", tag="v1")
    world.clock.pass_by(RETENTION - SECOND)
    await world.manifests.find(REPOSITORY, Tag("v1"), Audience.WRITER)
    world.clock.pass_by(LEASE * 0.7)
    await world.collect()
    assert not await world.shows(Tag("v1"))
    await put_manifest(world.stores, REPOSITORY, body, "v2", now=world.clock.now)
    world.clock.pass_by(LEASE)
    await world.collect()
    assert await world.shows(Tag("v2")) and await world.shows_blob(Digest.of(b"layer"))
    assert await findings(world) == ()


async def test_an_index_that_a_pusher_was_told_of_can_be_tagged_whole_after_it_is_over(
    world: World,
) -> None:
    children = [
        await push_image(world.stores, REPOSITORY, b"layer", text, tag=BUILD, build_id=BUILD)
        for text in (b"one", b"two")
    ]
    both = index(*children)
    await put_manifest(world.stores, REPOSITORY, both, f"{BUILD}-all", BUILD)
    await world.end(BUILD)
    world.clock.pass_by(RETENTION - SECOND)
    await world.manifests.find(REPOSITORY, Tag(f"{BUILD}-all"), Audience.WRITER)
    world.clock.pass_by(LEASE * 0.7)
    await world.collect()
    assert await findings(world) == ()
    await put_manifest(world.stores, REPOSITORY, both, "v2", now=world.clock.now)
    world.clock.pass_by(LEASE)
    await world.collect()
    for child in children:
        assert await world.shows(Digest.of(child))
    assert await world.shows_blob(Digest.of(b"two"))
    assert await findings(world) == ()


async def test_an_index_under_a_lease_keeps_its_manifests_while_its_build_is_let_go_in_parts(
    world: World,
) -> None:
    children = [
        await push_image(world.stores, REPOSITORY, text, tag=BUILD, build_id=BUILD)
        for text in (b"one", b"two", b"three", b"four")
    ]
    both = index(*children)
    await put_manifest(world.stores, REPOSITORY, both, f"{BUILD}-all", BUILD)
    await world.end(BUILD)
    world.clock.pass_by(RETENTION - SECOND)
    await world.manifests.find(REPOSITORY, Tag(f"{BUILD}-all"), Audience.WRITER)
    world.clock.pass_by(SECOND)
    now, store = world.clock.now, world.retention
    await store.end_due(now, 100)
    # Two servers that take turns, as after a lease was lost: one releases, another collects.
    while await store.release_ended(now, 1):
        while await store.collect_manifests(now, 100):
            pass
        while await store.collect_links(now, 100):
            pass
        assert await findings(world) == ()
    found = {row.digest for row in await rows(world.stores, manifests)}
    assert found == {str(Digest.of(body)) for body in (*children, both)}
    await put_manifest(world.stores, REPOSITORY, both, "v2", now=now)
    world.clock.pass_by(LEASE)
    await world.collect()
    for body in (*children, both):
        assert await world.shows(Digest.of(body))
    assert await findings(world) == ()


async def test_what_an_index_no_longer_keeps_is_collected_when_the_index_is_pushed_again(
    world: World,
) -> None:
    child = await push_image(world.stores, REPOSITORY, b"layer")
    parent = index(child)
    await put_manifest(world.stores, REPOSITORY, parent, "v1")
    world.clock.pass_by(RETENTION - SECOND)
    await world.manifests.find(REPOSITORY, Tag("v1"), Audience.WRITER)
    world.clock.pass_by(LEASE / 2)
    await world.collect()
    # The lease is over, and nobody has collected since: what was told holds no more.
    world.clock.pass_by(LEASE)
    await put_manifest(world.stores, REPOSITORY, parent, "v2", now=world.clock.now)
    assert not await world.shows(Digest.of(child))
    assert await findings(world) == ()
    await world.collect()
    assert str(Digest.of(child)) not in {row.digest for row in await rows(world.stores, manifests)}
    assert await findings(world) == ()


async def test_a_build_takes_over_the_save_tag_of_the_same_image(world: World) -> None:
    body = await push_image(world.stores, REPOSITORY, b"layer", tag="main", build_id=BUILD)
    await world.end(BUILD)
    await push_image(world.stores, REPOSITORY, b"layer", tag=OTHER, build_id=OTHER)
    # BuildKit asks for the tag, and pushes nothing where it is told the digest that it has.
    for build_id, is_told in ((OTHER, False), (None, False), (BUILD, True)):
        told = await world.stores.registry.lease_manifest(
            REPOSITORY, Tag("main"), world.clock.now, LEASE, pushes=True, build_id=build_id
        )
        assert (told is not None) is is_told
    await put_manifest(world.stores, REPOSITORY, body, "main", OTHER)
    await world.end(OTHER)
    assert await world.builds.delete(BUILD, world.clock.now)
    assert await world.shows(Tag("main"))


async def test_what_comes_back_through_an_index_is_kept_by_all_that_need_it(world: World) -> None:
    child = await push_image(world.stores, REPOSITORY, b"layer")
    middle = index(child)
    await put_manifest(world.stores, REPOSITORY, middle, "middle")
    world.clock.pass_by(RETENTION - SECOND)
    await world.manifests.find(REPOSITORY, Tag("middle"), Audience.WRITER)
    world.clock.pass_by(SECOND)
    # The child is over: it is not brought back by being named.
    first = index(child, annotations={"only": "names it"})
    await put_manifest(world.stores, REPOSITORY, first, "first", now=world.clock.now)
    # The index above it is still leased, with all that it needs.
    outer = index(middle)
    await put_manifest(world.stores, REPOSITORY, outer, "outer", now=world.clock.now)
    assert await world.shows(Digest.of(child))
    assert await findings(world) == ()


async def test_a_referrer_that_comes_back_is_kept_with_its_subject(world: World) -> None:
    subject = await push_image(world.stores, REPOSITORY, b"layer", tag="v1")
    await push_blob(world.stores, REPOSITORY, b"signature")
    referrer = image(b"signature", subject=descriptor(OCI_MANIFEST, subject))
    await put_manifest(world.stores, REPOSITORY, referrer)
    await world.manifests.find(REPOSITORY, Digest.of(referrer), Audience.WRITER)
    await world.manifests.delete(REPOSITORY, Digest.of(referrer))
    assert not await world.shows(Digest.of(referrer))
    await put_manifest(world.stores, REPOSITORY, index(referrer), "again", now=world.clock.now)
    assert await world.shows(Digest.of(referrer))
    assert await findings(world) == ()


async def test_what_is_over_does_not_come_back_by_the_lease_of_the_index_that_names_it(
    world: World,
) -> None:
    child = await push_image(world.stores, REPOSITORY, b"layer")
    world.clock.pass_by(RETENTION)
    # Through the service, which leases what it takes.
    await world.manifests.put(REPOSITORY, Tag("v1"), index(child), None, None)
    assert await world.shows(Tag("v1"))
    assert not await world.shows(Digest.of(child))
    await world.collect()
    assert await findings(world) == ()
    assert not await world.shows_blob(Digest.of(b"layer"))


async def test_children_that_live_shorter_than_a_lease_can_be_named_for_that_long(
    world: World,
) -> None:
    await world.stores.database.write(
        lambda connection: connection.execute(update(projects).values(retention_seconds=60))
    )
    child = image(b"layer")
    for content in (b"{}", b"layer"):
        await push_blob(world.stores, REPOSITORY, content)
    await world.manifests.put(REPOSITORY, Digest.of(child), child, None, None)
    world.clock.pass_by(LEASE / 2)
    await world.collect()
    assert not await world.shows(Digest.of(child))
    await world.manifests.put(REPOSITORY, Tag("v1"), index(child), None, None)
    assert await world.shows(Digest.of(child)) and await world.shows_blob(Digest.of(b"layer"))
    assert await findings(world) == ()
