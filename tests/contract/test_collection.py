"""What every RetentionStore and the collector on it do: what is over goes, and nothing else."""

import asyncio
import json
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import func, select

from layover.adapters.sql.builds import SqlBuildStore
from layover.adapters.sql.retention import SqlRetentionStore
from layover.adapters.sql.schema import (
    blobs,
    doomed_objects,
    manifest_references,
    manifests,
    repository_blobs,
    retained_manifests,
    retentions,
    tags,
)
from layover.builds.models import BuildStatus
from layover.oci.digest import Digest
from layover.oci.names import Reference, RepositoryName, Tag
from layover.registry.blobs import BlobService
from layover.registry.manifests import Audience, ManifestService
from layover.registry.models import BlobUnknown, ManifestBlobUnknown, ManifestUnknown
from layover.registry.uploads import UploadService
from layover.retention import collector
from layover.retention.collector import Collector
from layover.retention.models import Kind
from layover.retention.receipts import ReceiptService
from tests.stores import (
    LEASE,
    NOW,
    REPOSITORY,
    RETENTION,
    SIBLING,
    Stores,
    descriptor,
    image,
    index,
    pieces,
    push_image,
    put_manifest,
)

pytestmark = pytest.mark.anyio

BUILD = "bcdefghijk"
HOUR = timedelta(hours=1)


@dataclass
class Clock:
    """The time, which only a test moves."""

    now: datetime = NOW
    elapsed: float = 0.0

    def __call__(self) -> datetime:
        return self.now

    def pass_by(self, time: timedelta) -> None:
        self.now += time
        self.elapsed += time.total_seconds()


@dataclass
class World:
    """The services on a test's stores, by a test's clock."""

    stores: Stores
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.retention = SqlRetentionStore(self.stores.database)
        self.builds = SqlBuildStore(self.stores.database)
        self.blobs = BlobService(self.stores.registry, self.stores.blobs, self.clock, LEASE)
        self.manifests = ManifestService(self.stores.registry, self.clock, LEASE)
        self.receipts = ReceiptService(self.retention, bytes(32), self.clock, LEASE)
        self.collector = self.collector_of("server")

    def collector_of(self, holder: str) -> Collector:
        return Collector(
            self.retention,
            self.stores.blobs,
            self.receipts,
            self.clock,
            holder,
            LEASE,
            timedelta(minutes=1),
            elapsed=lambda: self.clock.elapsed,
        )

    async def collect(self) -> None:
        assert await self.collector.run_once()

    async def shows(self, reference: Reference, where: RepositoryName = REPOSITORY) -> bool:
        try:
            await self.manifests.find(where, reference, Audience.READER)
        except ManifestUnknown:
            return False
        return True

    async def shows_blob(self, digest: Digest) -> bool:
        try:
            await self.blobs.find(REPOSITORY, digest, may_push=False)
        except BlobUnknown:
            return False
        return True

    async def objects(self) -> int:
        return len([found async for found in self.stores.blobs.list_blobs()])

    async def rows(self) -> dict[str, int]:
        """How many rows each table of content has."""
        tables = (
            blobs,
            doomed_objects,
            manifest_references,
            manifests,
            repository_blobs,
            retained_manifests,
            retentions,
            tags,
        )
        return await self.stores.database.read(
            lambda connection: {
                table.name: count
                for table in tables
                if (count := connection.scalar(select(func.count()).select_from(table)))
            }
        )

    async def end(self, build_id: str) -> None:
        await self.builds.end(build_id, BuildStatus.FINISHED, None, self.clock.now)


@pytest.fixture
def world(stores: Stores) -> World:
    return World(stores)


async def test_an_image_lives_for_its_retention_and_is_gone_with_its_bytes(world: World) -> None:
    body = await push_image(world.stores, REPOSITORY, b"layer", tag="v1")
    digest, layer = Digest.of(body), Digest.of(b"layer")
    world.clock.pass_by(RETENTION - timedelta(seconds=1))
    await world.collect()
    assert await world.shows(Tag("v1")) and await world.shows(digest)
    assert await world.shows_blob(layer)
    world.clock.pass_by(timedelta(seconds=1))
    # At its time, before anybody has collected.
    assert not await world.shows(Tag("v1"))
    assert not await world.shows(digest)
    assert not await world.shows_blob(layer)
    await world.collect()
    assert await world.rows() == {}
    assert await world.objects() == 0


async def test_a_build_counts_from_its_end_and_goes_as_one(world: World) -> None:
    body = await push_image(world.stores, REPOSITORY, b"layer", tag=BUILD, build_id=BUILD)
    await put_manifest(world.stores, REPOSITORY, index(body), f"{BUILD}-all", BUILD)
    signature = image(subject=descriptor("application/vnd.oci.image.manifest.v1+json", body))
    await put_manifest(world.stores, REPOSITORY, signature)
    world.clock.pass_by(RETENTION * 2)
    await world.collect()
    assert await world.shows(Digest.of(index(body))), "it runs"
    await world.end(BUILD)
    world.clock.pass_by(RETENTION - timedelta(seconds=1))
    for reference in (Tag(BUILD), Tag(f"{BUILD}-all"), Digest.of(signature)):
        assert await world.shows(reference)
    world.clock.pass_by(timedelta(seconds=1))
    for reference in (Tag(BUILD), Tag(f"{BUILD}-all"), Digest.of(signature), Digest.of(body)):
        assert not await world.shows(reference)
    await world.collect()
    assert await world.rows() == {}
    assert await world.objects() == 0


async def test_a_kept_build_keeps_all_that_belongs_to_it(world: World) -> None:
    body = await push_image(world.stores, REPOSITORY, b"layer", tag=BUILD, build_id=BUILD)
    await world.end(BUILD)
    until = NOW + RETENTION * 3
    assert await world.builds.keep(BUILD, until, NOW) == until
    world.clock.pass_by(RETENTION * 3 - timedelta(seconds=1))
    await world.collect()
    assert await world.shows(Tag(BUILD)) and await world.shows_blob(Digest.of(b"layer"))
    world.clock.pass_by(timedelta(seconds=1))
    assert await world.builds.keep(BUILD, until + HOUR, world.clock.now) is None
    assert not await world.shows(Digest.of(body))
    await world.collect()
    assert await world.rows() == {}


async def test_a_deleted_build_is_gone_at_once_and_its_bytes_after_the_lease(world: World) -> None:
    await push_image(world.stores, REPOSITORY, b"layer", tag=BUILD, build_id=BUILD)
    await world.end(BUILD)
    assert await world.builds.delete(BUILD, NOW)
    assert not await world.shows(Tag(BUILD)) and not await world.shows_blob(Digest.of(b"layer"))
    await world.collect()
    assert await world.objects() == 2, "leased since they were uploaded"
    world.clock.pass_by(LEASE)
    await world.collect()
    assert await world.objects() == 0
    assert await world.rows() == {}


async def test_what_was_told_to_a_pusher_can_be_named_after_it_is_over(world: World) -> None:
    await push_image(world.stores, REPOSITORY, b"layer", tag="v1")
    layer = Digest.of(b"layer")
    world.clock.pass_by(RETENTION - timedelta(seconds=1))
    for digest in (layer, Digest.of(b"{}")):
        await world.blobs.find(REPOSITORY, digest, may_push=True)
    world.clock.pass_by(timedelta(minutes=30))
    await world.collect()
    assert not await world.shows_blob(layer)
    body = image(b"layer", annotations={"new": "image"})
    await put_manifest(world.stores, REPOSITORY, body, "v2", now=world.clock.now)
    world.clock.pass_by(LEASE)
    await world.collect()
    assert await world.shows(Tag("v2")) and await world.shows_blob(layer)


async def test_what_nobody_was_told_cannot_be_named_after_it_is_over(world: World) -> None:
    await push_image(world.stores, REPOSITORY, b"layer", tag="v1")
    world.clock.pass_by(RETENTION)
    body = image(b"layer", annotations={"new": "image"})
    with pytest.raises(ManifestBlobUnknown):
        await put_manifest(world.stores, REPOSITORY, body, "v2", now=world.clock.now)


async def test_a_collected_blob_is_pushed_again_at_once(world: World) -> None:
    await push_image(world.stores, REPOSITORY, b"layer", tag="v1")
    world.clock.pass_by(RETENTION)
    await world.collect()
    await push_image(world.stores, REPOSITORY, b"layer", tag="v1", now=world.clock.now)
    await world.collect()
    assert await world.shows(Tag("v1")) and await world.shows_blob(Digest.of(b"layer"))


async def test_shared_layers_stay_for_who_lives_longer(world: World) -> None:
    await push_image(world.stores, REPOSITORY, b"base", b"one", tag="one")
    world.clock.pass_by(HOUR * 24)
    await push_image(world.stores, REPOSITORY, b"base", b"two", tag="two", now=world.clock.now)
    world.clock.pass_by(RETENTION - HOUR * 24)
    await world.collect()
    assert await world.shows(Tag("two")) and await world.shows_blob(Digest.of(b"base"))
    assert not await world.shows_blob(Digest.of(b"one"))
    assert await world.objects() == 3


async def test_the_bytes_stay_where_another_repository_shows_them(world: World) -> None:
    await push_image(world.stores, REPOSITORY, b"layer", tag="v1")
    world.clock.pass_by(HOUR)
    await push_image(world.stores, SIBLING, b"layer", tag="v1", now=world.clock.now)
    world.clock.pass_by(RETENTION - HOUR)
    await world.collect()
    assert not await world.shows_blob(Digest.of(b"layer"))
    found = await world.blobs.find(SIBLING, Digest.of(b"layer"), may_push=False)
    content = [block async for block in world.blobs.read(found, 0, found.size_bytes)]
    assert b"".join(content) == b"layer"


async def test_one_server_collects_at_a_time_and_another_takes_over(world: World) -> None:
    await push_image(world.stores, REPOSITORY, b"layer", tag="v1")
    world.clock.pass_by(RETENTION)
    now = world.clock.now
    assert await world.retention.take_lease("collector", "another", now, now + timedelta(minutes=1))
    assert not await world.collector.run_once()
    assert (await world.rows())["manifests"] == 1
    world.clock.pass_by(timedelta(minutes=1))
    await world.collect()
    assert await world.rows() == {}


async def test_a_clock_set_forward_delays_collection_by_the_grace_time(world: World) -> None:
    await push_image(world.stores, REPOSITORY, b"layer", tag="v1")
    await world.collect()
    world.clock.now += RETENTION
    assert not await world.collector.run_once()
    world.clock.pass_by(LEASE)
    await world.collect()
    assert await world.rows() == {}


async def test_a_clock_set_forward_in_the_middle_of_a_collection_takes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await push_image(world.stores, REPOSITORY, b"layer", tag="v1")
    await world.collect()
    before = await world.rows()
    end_due = world.retention.end_due

    async def set_forward(now: datetime, limit: int) -> int:
        world.clock.now += RETENTION
        return await end_due(now, limit)

    monkeypatch.setattr(world.retention, "end_due", set_forward)
    await world.collect()
    assert not await world.collector.run_once()
    assert await world.rows() == before


async def test_a_plan_says_what_goes_and_changes_nothing(world: World) -> None:
    await push_image(world.stores, REPOSITORY, b"layer", tag=BUILD, build_id=BUILD)
    await world.end(BUILD)
    await push_image(world.stores, REPOSITORY, b"other", tag="stays", now=NOW + HOUR)
    world.clock.pass_by(RETENTION)
    before = await world.rows()
    planned = await world.collector.plan()
    assert await world.rows() == before
    assert {(removal.kind, removal.reference) for removal in planned} == {
        (Kind.BUILD, BUILD),
        (Kind.TAG, BUILD),
        (Kind.MANIFEST, str(Digest.of(image(b"layer")))),
        (Kind.LINK, str(Digest.of(b"layer"))),
        (Kind.BLOB, str(Digest.of(b"layer"))),
    }
    await world.collect()
    assert await world.objects() == 2
    assert await world.collector.plan() == []


async def test_a_collected_build_leaves_a_signed_receipt(world: World) -> None:
    body = await push_image(world.stores, REPOSITORY, b"own", b"shared", tag=BUILD, build_id=BUILD)
    other = "zzzzzzzzzz"
    await push_image(world.stores, REPOSITORY, b"shared", tag=other, build_id=other)
    await world.end(BUILD)
    assert await world.builds.delete(BUILD, NOW)
    await world.collect()
    receipt = await world.retention.find_receipt(BUILD)
    assert receipt is not None and receipt.document is None, "a lease is still on its blobs"
    world.clock.pass_by(LEASE)
    await world.collect()
    receipt = await world.retention.find_receipt(BUILD)
    assert receipt is not None and receipt.document is not None and receipt.signature is not None
    key = Ed25519PublicKey.from_public_bytes(world.receipts.public_key)
    key.verify(receipt.signature, receipt.document)
    document = json.loads(receipt.document)
    assert {item["digest"] for item in document["freed"]} == {
        str(Digest.of(body)),
        str(Digest.of(b"own")),
    }
    assert {(item["digest"], item["by"]) for item in document["kept"]} == {
        (str(Digest.of(b"shared")), other),
        (str(Digest.of(b"{}")), other),
    }
    assert document["freed_bytes"] == len(body) + len(b"own")
    assert document["reason"] == "deleted"


async def test_a_push_whose_last_layer_takes_long_keeps_its_first(world: World) -> None:
    uploads = UploadService(
        world.stores.uploads, world.stores.blobs, world.clock, timedelta(hours=24), LEASE
    )
    for content in (b"{}", b"small"):
        await uploads.push(REPOSITORY, Digest.of(content), pieces(content))
    await uploads.push(SIBLING, Digest.of(b"nobody's"), pieces(b"nobody's"))
    ends = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"large"
        await ends.wait()

    pushing = asyncio.create_task(uploads.push(REPOSITORY, Digest.of(b"large"), slow()))
    for _ in range(30):
        await asyncio.sleep(0.01)
        world.clock.pass_by(LEASE / 10)
        await uploads.clean_up()
        await world.collect()
    ends.set()
    await pushing
    assert await world.shows_blob(Digest.of(b"small"))
    body = image(b"small", b"large")
    await put_manifest(world.stores, REPOSITORY, body, "v1", now=world.clock.now)
    assert await world.shows(Tag("v1"))
    # What nobody goes on with is gone after the lease.
    assert await world.objects() == 3


async def test_what_cannot_be_removed_keeps_nothing_else_from_going(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(7):
        await push_image(world.stores, REPOSITORY, f"layer {number}".encode(), tag="v1")
    world.clock.pass_by(RETENTION)
    monkeypatch.setattr(collector, "_BATCH", 2)
    delete, stuck = world.stores.blobs.delete, set[str]()

    async def refuse_some(keys: Collection[str]) -> frozenset[str]:
        if not stuck:
            stuck.update(keys)
        return await delete(set(keys) - stuck)

    monkeypatch.setattr(world.stores.blobs, "delete", refuse_some)
    await world.collect()
    assert await world.objects() == len(stuck) == 2
    monkeypatch.setattr(world.stores.blobs, "delete", delete)
    await world.collect()
    assert await world.objects() == 0
