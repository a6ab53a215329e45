"""Several servers that write the same things at once, on every database.

Each replica has connections and threads of its own, as another process would have.
"""

import asyncio
import random
from contextlib import ExitStack

import pytest
from sqlalchemy import Connection, and_, exists, select

from layover.adapters.sql.schema import (
    blobs,
    manifest_references,
    manifests,
    repository_blobs,
    tags,
)
from layover.oci.digest import Digest
from layover.oci.manifests import parse_manifest
from layover.oci.names import Tag
from layover.registry.models import BlobInUse, BlobUnknown, ManifestInUse, ManifestUnknown
from tests.stores import (
    NOW,
    REPOSITORY,
    SIBLING,
    Stores,
    image,
    index,
    push_blob,
    push_image,
    put_manifest,
)

pytestmark = pytest.mark.anyio

REPLICAS = 3
ROUNDS = 9
LAYERS = [b"layer %d" % number for number in range(4)]
IMAGES = [image(*layers) for layers in (LAYERS[:2], LAYERS[1:3], LAYERS[2:], LAYERS)]
INDEX = index(*IMAGES[:2])
TAGS = ("main", "next", "old")

# What one who lost a race is told.
LOST = (BlobInUse, BlobUnknown, ManifestInUse, ManifestUnknown)


def broken(connection: Connection) -> list[object]:
    """What breaks invariant 2, in one state of the database."""
    link = and_(
        repository_blobs.c.repository_id == manifest_references.c.repository_id,
        repository_blobs.c.digest == manifest_references.c.digest,
    )
    named = and_(
        manifests.c.repository_id == tags.c.repository_id, manifests.c.digest == tags.c.digest
    )
    owner = and_(
        manifests.c.repository_id == manifest_references.c.repository_id,
        manifests.c.digest == manifest_references.c.manifest_digest,
    )
    return [
        *connection.execute(
            select(manifest_references).where(
                manifest_references.c.kind == "blob", ~exists().where(link)
            )
        ),
        *connection.execute(select(manifest_references).where(~exists().where(owner))),
        *connection.execute(
            select(repository_blobs).where(
                ~exists().where(blobs.c.digest == repository_blobs.c.digest)
            )
        ),
        *connection.execute(select(tags).where(~exists().where(named))),
    ]


async def push_something(stores: Stores, choose: random.Random) -> None:
    body = choose.choice(IMAGES)
    layers = [layer for layer in LAYERS if str(Digest.of(layer)).encode() in body]
    await push_image(stores, REPOSITORY, *layers, tag=choose.choice(TAGS))


async def push_index(stores: Stores, choose: random.Random) -> None:
    for layers in (LAYERS[:2], LAYERS[1:3]):
        await push_image(stores, REPOSITORY, *layers)
    await put_manifest(stores, REPOSITORY, INDEX, choose.choice(TAGS))


async def move_tag(stores: Stores, choose: random.Random) -> None:
    found = await stores.registry.find_manifest(REPOSITORY, Tag(choose.choice(TAGS)), NOW)
    if found is not None:
        await put_manifest(stores, REPOSITORY, found.body, choose.choice(TAGS))


async def delete_tag(stores: Stores, choose: random.Random) -> None:
    await stores.registry.delete_tag(REPOSITORY, Tag(choose.choice(TAGS)), NOW)


async def delete_manifest(stores: Stores, choose: random.Random) -> None:
    body = choose.choice([*IMAGES, INDEX])
    await stores.registry.delete_manifest(REPOSITORY, Digest.of(body), NOW)


async def unlink_blob(stores: Stores, choose: random.Random) -> None:
    await stores.registry.unlink_blob(REPOSITORY, Digest.of(choose.choice(LAYERS)), NOW)


ACTIONS = (push_something, push_something, push_index, move_tag, delete_tag, delete_manifest)


async def test_whoever_writes_at_once_no_manifest_ever_lacks_what_it_refers_to(
    stores: Stores,
) -> None:
    with ExitStack() as stack:
        replicas = [stores, *(stack.enter_context(stores.replica()) for _ in range(REPLICAS - 1))]
        refusals: list[type[Exception]] = []

        async def work(number: int) -> None:
            choose = random.Random(number)
            for _ in range(ROUNDS):
                action = choose.choice([*ACTIONS, unlink_blob])
                try:
                    await action(choose.choice(replicas), choose)
                except LOST as error:
                    refusals.append(type(error))

        async def watch(workers: "asyncio.Future[list[None]]") -> None:
            while not workers.done():
                assert await watcher.database.read(broken) == []

        watcher = replicas[-1]
        workers = asyncio.gather(*(work(number) for number in range(2 * REPLICAS)))
        await asyncio.gather(workers, watch(workers))
        assert await stores.database.read(broken) == []
        # They did meet: a run in which nothing was refused would show nothing.
        assert refusals
        for body in IMAGES:
            for replica in replicas:
                found = await replica.registry.find_manifest(REPOSITORY, Digest.of(body), NOW)
                if found is None:
                    continue
                assert found.body == body
                for blob in parse_manifest(body, None).needed_blobs:
                    assert await replica.registry.find_blob(REPOSITORY, blob.digest, NOW)


async def test_the_same_blob_and_manifest_from_everybody_at_once_are_there_once(
    stores: Stores,
) -> None:
    content = b"the same for all"
    with ExitStack() as stack:
        replicas = [stores, *(stack.enter_context(stores.replica()) for _ in range(REPLICAS - 1))]
        await asyncio.gather(
            *(
                push_image(replica, repository, content, tag=f"tag-{number}")
                for number, replica in enumerate(replicas * 4)
                for repository in (REPOSITORY, SIBLING)
            )
        )
        rows = await stores.database.read(
            lambda connection: connection.execute(
                select(blobs.c.digest).where(blobs.c.digest == str(Digest.of(content)))
            ).all()
        )
        assert len(rows) == 1
        for replica in replicas:
            for repository in (REPOSITORY, SIBLING):
                assert await replica.registry.find_blob(repository, Digest.of(content), NOW)
                page = await replica.registry.list_tags(repository, None, None, NOW)
                assert len(page.tags) == 4 * REPLICAS


async def test_after_a_write_no_replica_answers_with_what_it_replaced(stores: Stores) -> None:
    # Invariant 6, beside others that write into the same repository all the time.
    with ExitStack() as stack:
        replicas = [stores, *(stack.enter_context(stores.replica()) for _ in range(REPLICAS - 1))]

        async def move(number: int) -> None:
            choose = random.Random(number)
            own = Tag(f"own-{number}")
            await push_blob(replicas[number], REPOSITORY, b"{}")
            for round_ in range(ROUNDS):
                layer = b"%d of %d" % (round_, number)
                writer, *readers = choose.sample(replicas, REPLICAS)
                body = await push_image(writer, REPOSITORY, layer, tag=own.value)
                for reader in readers:
                    found = await reader.registry.find_manifest(REPOSITORY, own, NOW)
                    assert found is not None
                    assert found.body == body
                if round_ % 3 == 2:
                    await writer.registry.delete_tag(REPOSITORY, own, NOW)
                    for reader in readers:
                        assert not await reader.registry.find_manifest(REPOSITORY, own, NOW)

        await asyncio.gather(*(move(number) for number in range(REPLICAS)))
