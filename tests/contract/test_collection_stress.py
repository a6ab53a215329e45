"""Pushes, mounts, looks and deletions at once, beside collections that are cut off anywhere."""

import asyncio
import random
from asyncio import FIRST_COMPLETED
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from layover.adapters.sql.retention import SqlRetentionStore
from layover.adapters.sql.schema import projects
from layover.oci.digest import Digest
from layover.oci.manifests import OCI_MANIFEST, parse_manifest
from layover.oci.names import RepositoryName, Tag
from layover.registry.models import (
    BlobInUse,
    BlobUnknown,
    ManifestInUse,
    ManifestUnknown,
    StoredManifest,
)
from tests.contract.test_verification import verifier
from tests.stores import (
    NOW,
    REPOSITORY,
    SIBLING,
    Stores,
    descriptor,
    image,
    index,
    push_blob,
)

pytestmark = pytest.mark.anyio

SECOND = timedelta(seconds=1)
LEASE = 150 * SECOND
RETENTION = 12 * SECOND
# What a client relies on is younger than that: what is left of a lease at least, and a margin.
RELIABLE = LEASE * 0.9

CLIENTS, ROUNDS = 6, 30
LAYERS = [f"layer {number}".encode() for number in range(10)]
TAGS = [Tag(f"tag{number}") for number in range(4)]


@dataclass
class Clock:
    """A time that every look at it moves on, so that much goes by in little time; but it waits for
    whoever relies on what it was told, as if nobody took longer than a lease.
    """

    now: datetime = NOW
    relying: list[datetime] = field(default_factory=list)

    def __call__(self) -> datetime:
        if not self.relying or self.now - min(self.relying) < RELIABLE:
            self.now += SECOND
        return self.now

    @contextmanager
    def waits(self) -> Iterator[None]:
        began = self()
        self.relying.append(began)
        try:
            yield
        finally:
            self.relying.remove(began)


class Client:
    """One that pushes as docker does: it leaves out what it is told is there."""

    def __init__(self, stores: Stores, clock: Clock, seed: int) -> None:
        self.stores, self.clock, self.random = stores, clock, random.Random(seed)
        self.pushed = 0

    async def run(self) -> None:
        for _ in range(ROUNDS):
            repository = self.random.choice([REPOSITORY, SIBLING])
            work = self.random.choices(
                [self.push, self.push_index, self.retag, self.delete, self.delete_tag, self.unlink],
                [6, 4, 4, 2, 1, 1],
            )[0]
            with self.clock.waits():
                await work(repository)

    async def push(self, repository: RepositoryName) -> None:
        body = await self.bring(repository)
        await self.put(repository, body, [self.random.choice(TAGS)])

    async def push_index(self, repository: RepositoryName) -> None:
        """Children first, by digest; then what names them, and a signature of it."""
        children = []
        for _ in range(2):
            body = await self.bring(repository)
            if not await self.look(repository, Digest.of(body)):
                await self.put(repository, body, [])
            children.append(body)
        parent = index(*children)
        await self.put(repository, parent, [self.random.choice(TAGS)])
        signature = await self.bring(repository, subject=descriptor(OCI_MANIFEST, parent))
        await self.put(repository, signature, [])

    async def retag(self, repository: RepositoryName) -> None:
        """Give what a tag names another one, as `crane tag` does."""
        found = await self.stores.registry.lease_manifest(
            repository, self.random.choice(TAGS), self.clock(), LEASE, pushes=False
        )
        await tick()
        if found is not None:
            await self.put(repository, found.body, [self.random.choice(TAGS)])

    async def delete(self, repository: RepositoryName) -> None:
        now, tag = self.clock(), self.random.choice(TAGS)
        found = await self.stores.registry.find_manifest(repository, tag, now)
        if found is not None:
            with suppress(ManifestUnknown, ManifestInUse):
                await self.stores.registry.delete_manifest(repository, found.digest, self.clock())

    async def delete_tag(self, repository: RepositoryName) -> None:
        with suppress(ManifestUnknown):
            await self.stores.registry.delete_tag(
                repository, self.random.choice(TAGS), self.clock()
            )

    async def unlink(self, repository: RepositoryName) -> None:
        digest = Digest.of(self.random.choice(LAYERS))
        with suppress(BlobUnknown, BlobInUse):
            await self.stores.registry.unlink_blob(repository, digest, self.clock())

    async def bring(self, repository: RepositoryName, **more: Any) -> bytes:
        """Bring an image's blobs, as far as they are not there; return its manifest."""
        layers = self.random.sample(LAYERS, 2)
        for content in (b"{}", *layers):
            digest, now = Digest.of(content), self.clock()
            if await self.stores.registry.lease_blob(repository, digest, now, LEASE):
                continue
            source = SIBLING if repository == REPOSITORY else REPOSITORY
            if not await self.stores.registry.mount_blob(source, repository, digest, now, LEASE):
                await push_blob(self.stores, repository, content, now, LEASE)
        return image(*layers, **more)

    async def look(self, repository: RepositoryName, digest: Digest) -> bool:
        found = await self.stores.registry.lease_manifest(
            repository, digest, self.clock(), LEASE, pushes=True
        )
        return found is not None

    async def put(self, repository: RepositoryName, body: bytes, tags: list[Tag]) -> None:
        manifest = parse_manifest(body, None)
        stored = StoredManifest(Digest.of(body), manifest.media_type, body)
        now, registry = self.clock(), self.stores.registry
        await registry.put_manifest(repository, stored, manifest, tags, None, now, lease=LEASE)
        self.pushed += 1
        for child in manifest.manifests:
            shown = await registry.find_manifest(repository, child.digest, now)
            # Another client may have deleted them since: the index first.
            assert shown or not await registry.find_manifest(repository, stored.digest, now)


async def collect(stores: Stores, clock: Clock, seed: int) -> None:
    """Collect for ever, a few rows at a time, going on or beginning anew after any step."""
    retention, random_ = SqlRetentionStore(stores.database), random.Random(seed)
    while True:
        for step in (
            retention.end_due,
            retention.release_ended,
            retention.collect_manifests,
            retention.collect_links,
        ):
            while await step(clock(), random_.randint(1, 4)):
                if random_.random() < 0.2:
                    break
        doomed = await retention.doomed("", random_.randint(1, 10))
        await stores.blobs.delete([one.key for one in doomed])
        if random_.random() < 0.8:
            await retention.forget_doomed([one.key for one in doomed])
        await tick()


async def check(stores: Stores, clock: Clock) -> None:
    while True:
        assert (await verifier(stores, lambda: clock.now).run()).findings == ()
        await tick()


async def tick() -> None:
    """Let the others go on."""
    await asyncio.sleep(0.001)


async def test_no_push_is_lost_and_no_row_contradicts_another(stores: Stores) -> None:
    await stores.database.write(
        lambda connection: connection.execute(
            update(projects).values(retention_seconds=RETENTION // SECOND)
        )
    )
    clock = Clock()
    with stores.replica() as replica:
        clients = [Client((stores, replica)[seed % 2], clock, seed) for seed in range(CLIENTS)]
        beside = [
            asyncio.create_task(collect(stores, clock, 1)),
            asyncio.create_task(collect(replica, clock, 2)),
            asyncio.create_task(check(replica, clock)),
        ]
        pushing = asyncio.gather(*(client.run() for client in clients))
        # Whoever of them fails ends the wait; only who pushes comes to an end.
        waited: list[asyncio.Future[Any]] = [pushing, *beside]
        await asyncio.wait(waited, return_when=FIRST_COMPLETED)
        failed = [task for task in beside if task.done()]
        for task in beside:
            task.cancel()
        await asyncio.wait(beside)
        for task in failed:
            task.result()
        await pushing
        assert sum(client.pushed for client in clients) > 50
        assert (await verifier(stores, clock.now).run()).findings == ()

        # Once everything is over, nothing is left of it.
        clock.now += RETENTION + 2 * LEASE
        last = asyncio.create_task(collect(stores, clock, 3))
        async with asyncio.timeout(60):
            while [found async for found in stores.blobs.list_blobs()]:  # noqa: ASYNC110  # a store
                await asyncio.sleep(0.05)
        last.cancel()
        await asyncio.wait({last})
        result = await verifier(stores, clock.now).run()
        assert result.findings == ()
        assert {result.counts[name] for name in ("blobs", "manifests", "tags")} == {0}
