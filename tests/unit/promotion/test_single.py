import asyncio

import pytest

from layover.builds.errors import BuildGone, BuildStillRunning, BuildUnknown, BuildUnsuccessful
from layover.builds.models import BuildStatus
from layover.identity.models import ActionDenied
from layover.oci.digest import Digest
from layover.oci.references import Place
from layover.promotion.models import RegistryRefused, SourceGone, TooManyBlobs
from layover.registry.models import BlobUnknown, StoredBlob
from tests.unit.promotion.blob_world import CONTENT, DIGEST, LEASE, PLACE, REPOSITORY, BlobWorld
from tests.unit.promotion.world import TOKEN, VIEWER

pytestmark = pytest.mark.anyio


async def test_a_blob_is_sent_with_what_authorizes_it_there() -> None:
    world = BlobWorld()
    await world.service.push(world.world.user, await world.build(), DIGEST, PLACE, TOKEN)
    assert world.registries.blobs == {(PLACE, DIGEST): CONTENT}
    assert {shown for _, shown in world.registries.shown} == {TOKEN}


async def test_a_blob_that_is_there_is_not_sent_again() -> None:
    world = BlobWorld()
    world.registries.blobs[PLACE, DIGEST] = CONTENT
    await world.service.push(world.world.project_token, await world.build(), DIGEST, PLACE, None)
    assert world.calls() == ["has"]


async def test_a_blob_is_kept_while_it_is_on_its_way() -> None:
    world = BlobWorld()
    await world.service.push(world.world.user, await world.build(), DIGEST, PLACE, TOKEN)
    assert world.source.kept == [(frozenset({DIGEST}), world.world.clock() + LEASE)]


async def test_a_blob_that_goes_before_it_is_sent_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    world = BlobWorld()
    build_id = await world.build()
    found = world.blobs.find

    async def find_and_lose(*arguments: object, **named: object) -> StoredBlob:
        blob = await found(REPOSITORY, DIGEST, may_push=False, of_build=build_id)
        world.source.remove(REPOSITORY, DIGEST)
        return blob

    monkeypatch.setattr(world.blobs, "find", find_and_lose)
    with pytest.raises(SourceGone):
        await world.service.push(world.world.user, build_id, DIGEST, PLACE, TOKEN)
    assert world.calls() == []


async def test_a_blob_that_the_build_does_not_need_is_unknown() -> None:
    world = BlobWorld()
    build_id = await world.build()
    other = world.source.add_blob(REPOSITORY, b"another build's")
    for digest in (other, Digest.of(b"nobody's")):
        with pytest.raises(BlobUnknown):
            await world.service.push(world.world.user, build_id, digest, PLACE, TOKEN)
    assert world.calls() == []


async def test_who_may_not_push_on_sends_no_blob() -> None:
    world = BlobWorld()
    build_id = await world.build()
    for principal, error in (
        (VIEWER, ActionDenied),
        (world.world.puller, ActionDenied),
        (world.world.foreigner, BuildUnknown),
    ):
        with pytest.raises(error):
            await world.service.push(principal, build_id, DIGEST, PLACE, TOKEN)
    assert world.calls() == []


async def test_a_build_that_runs_failed_or_is_over_sends_no_blob() -> None:
    world = BlobWorld()
    running = (await world.world.create()).build.id
    failed = (await world.world.create()).build.id
    await world.world.builds.finish(world.world.user, failed, BuildStatus.FAILED)
    over = await world.build()
    await world.world.builds.delete(world.world.user, over)
    for build_id, error in (
        (running, BuildStillRunning),
        (failed, BuildUnsuccessful),
        (over, BuildGone),
        ("unknown", BuildUnknown),
    ):
        world.blobs.needed[build_id] = {DIGEST}
        with pytest.raises(error):
            await world.service.push(world.world.user, build_id, DIGEST, PLACE, TOKEN)
    assert world.calls() == []


async def test_what_the_registry_says_is_told() -> None:
    world = BlobWorld()
    world.registries.failure = RegistryRefused(PLACE, "blob", 405, "read-only")
    with pytest.raises(RegistryRefused, match="read-only"):
        await world.service.push(world.world.user, await world.build(), DIGEST, PLACE, TOKEN)


async def test_so_many_blobs_of_a_project_are_on_their_way_and_more_when_they_are_through() -> None:
    world = BlobWorld(most_waiting=2)
    build_id = await world.build()
    go_on, waiting = asyncio.Event(), asyncio.Event()

    async def wait(name: str, place: Place) -> None:
        if len(world.registries.calls) == 2:
            waiting.set()
        await go_on.wait()

    world.registries.before = wait
    under_way = [
        asyncio.create_task(world.service.push(world.world.user, build_id, DIGEST, PLACE, TOKEN))
        for _ in range(2)
    ]
    await waiting.wait()
    with pytest.raises(TooManyBlobs, match="2 blobs on their way"):
        await world.service.push(world.world.user, build_id, DIGEST, PLACE, TOKEN)
    go_on.set()
    await asyncio.gather(*under_way)
    await world.service.push(world.world.user, build_id, DIGEST, PLACE, TOKEN)


async def test_a_blob_whose_client_went_away_makes_room() -> None:
    world = BlobWorld(most_waiting=1)
    build_id = await world.build()
    asked = asyncio.Event()

    async def wait(name: str, place: Place) -> None:
        asked.set()
        await asyncio.Event().wait()

    world.registries.before = wait
    task = asyncio.create_task(world.service.push(world.world.user, build_id, DIGEST, PLACE, TOKEN))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    world.registries.before = None
    await world.service.push(world.world.user, build_id, DIGEST, PLACE, TOKEN)
