"""What a push to another registry reads: there until it has ended, and for nobody else."""

import asyncio
import json
import shutil
from collections.abc import Collection
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layover.adapters.sql.push_source import SqlPushSource
from layover.adapters.sql.schema import blobs
from layover.errors import StorageUnavailable
from layover.identity.models import Principal
from layover.oci.digest import Digest
from layover.oci.manifests import OCI_MANIFEST
from layover.oci.names import RepositoryName, Tag
from layover.registry.models import ManifestBlobUnknown, StoredManifest
from layover.retention.findings import Finding
from tests.contract.registry_api import PULLER, USER, RegistryApi
from tests.contract.test_collection import BUILD, World
from tests.contract.test_verification import change, verifier
from tests.stores import (
    FOREIGN,
    LEASE,
    NOW,
    REPOSITORY,
    RETENTION,
    SIBLING,
    Stores,
    descriptor,
    image,
    index,
    opened,
    push_blob,
    push_image,
    put_manifest,
)

pytestmark = pytest.mark.anyio

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
# For how long a push keeps at a time.
KEEP = timedelta(minutes=10)
LAYERS = b"layer one", b"layer two"


@dataclass
class Saved:
    """A build's index of two images with a signature, and the world that it is in."""

    world: World
    source: SqlPushSource
    bodies: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._api = RegistryApi(self.world.stores)

    @property
    def api(self) -> RegistryApi:
        """The registry's routes at the world's time."""
        self._api.now = self.world.clock.now
        return self._api

    @property
    def manifests(self) -> list[Digest]:
        return [Digest.of(body) for body in self.bodies]

    @property
    def contents(self) -> list[bytes]:
        return [b"{}", *LAYERS, b"signature"]

    @property
    def blobs(self) -> list[Digest]:
        return [Digest.of(content) for content in self.contents]

    async def save(self) -> None:
        stores = self.world.stores
        children = [
            await push_image(stores, REPOSITORY, layer, tag=f"{BUILD}-{n}", build_id=BUILD)
            for n, layer in enumerate(LAYERS)
        ]
        both = index(*children)
        await put_manifest(stores, REPOSITORY, both, BUILD, BUILD)
        await push_blob(stores, REPOSITORY, b"signature")
        subject = descriptor("application/vnd.oci.image.index.v1+json", both)
        signature = image(b"signature", subject=subject)
        await put_manifest(stores, REPOSITORY, signature)
        await self.world.end(BUILD)
        self.bodies = [*children, both, signature]

    async def keep(self, lease: timedelta = KEEP) -> bool:
        now = self.world.clock.now
        return await self.source.keep(REPOSITORY, self.manifests, self.blobs, now, lease)

    async def is_readable(self) -> bool:
        """Whether every byte is there; all or nothing is."""
        found = [await self.source.manifest(REPOSITORY, digest) for digest in self.manifests]
        assert [each.body for each in found if each] in ([], self.bodies)
        stored = [await self.source.blob(REPOSITORY, digest) for digest in self.blobs]
        read = []
        for blob in stored:
            if blob is not None:
                async with aclosing(self.source.read(blob, 0, blob.size_bytes)) as pieces:
                    read.append(b"".join([piece async for piece in pieces]))
        assert read in ([], self.contents)
        return bool(read) and all(found)

    async def statuses(self, caller: Principal = PULLER, method: str = "GET") -> set[int]:
        """How each way to read a part of it is answered."""
        paths = [f"manifests/{reference}" for reference in (BUILD, f"{BUILD}-0", *self.manifests)]
        paths += [f"blobs/{digest}" for digest in self.blobs]
        return {
            (await self.api.call(caller, method, f"/v2/{REPOSITORY}/{path}")).status
            for path in paths
        }

    async def assert_hidden(self) -> None:
        """That no route shows any of it, or lets it be shown elsewhere."""
        for caller, method in ((PULLER, "GET"), (USER, "GET"), (PULLER, "HEAD"), (USER, "HEAD")):
            assert await self.statuses(caller, method) == {404}
        api = self.api
        for digest in self.blobs:
            for source in ("", f"&from={REPOSITORY}"):
                mount = f"/v2/{SIBLING}/blobs/uploads/?mount={digest}{source}"
                # An upload is begun in place of the mount.
                begun = await api.call(USER, "POST", mount)
                assert begun.status == 202
                ended = await api.call(USER, "DELETE", begun.headers["location"])
                assert ended.status == 204
        lists = [f"/v2/{REPOSITORY}/tags/list", "/v2/_catalog"]
        lists += [f"/v2/{REPOSITORY}/referrers/{digest}" for digest in self.manifests]
        for path in lists:
            listed = (await api.call(PULLER, "GET", path)).json()
            assert not any(listed.get(key) for key in ("tags", "repositories", "manifests"))

    async def findings(self) -> tuple[Finding, ...]:
        return (await verifier(self.world.stores, self.world.clock.now).run()).findings


@pytest.fixture
def world(stores: Stores) -> World:
    return World(stores)


@pytest.fixture
async def saved(stores: Stores) -> Saved:
    saved = Saved(World(stores), SqlPushSource(stores.database, stores.blobs))
    await saved.save()
    return saved


@pytest.mark.parametrize("is_deleted", [False, True], ids=["expired", "deleted"])
async def test_what_is_pushed_stays_until_the_push_has_ended_and_nobody_sees_it(
    saved: Saved, is_deleted: bool
) -> None:
    world = saved.world
    # Behind the leases of its own uploads.
    world.clock.pass_by(RETENTION - MINUTE)
    assert await saved.keep()
    assert await saved.statuses() == {200}
    if is_deleted:
        assert await world.builds.delete(BUILD, world.clock.now)
    else:
        world.clock.pass_by(MINUTE)
    # The push goes on for hours, and says so; the collector comes by each time.
    for _ in range(12):
        await saved.assert_hidden()
        await world.collect()
        assert await saved.is_readable()
        world.clock.pass_by(KEEP / 2)
        await world.collect()
        assert await saved.keep()
    assert await world.builds.find(BUILD) is None
    receipt = await world.retention.find_receipt(BUILD)
    assert receipt is not None and receipt.document is None, "its bytes are still there"
    assert await saved.findings() == ()
    assert await world.collector.plan() == []
    # The push has ended, or its server died.
    world.clock.pass_by(KEEP - SECOND)
    await world.collect()
    assert await saved.is_readable()
    world.clock.pass_by(SECOND)
    await world.collect()
    assert not await saved.is_readable()
    assert not await saved.keep()
    assert await world.rows() == {}
    assert await world.objects() == 0
    assert await saved.findings() == ()
    receipt = await world.retention.find_receipt(BUILD)
    assert receipt is not None and receipt.document is not None
    document = json.loads(receipt.document)
    assert document["kept"] == []
    freed = {item["digest"] for item in document["freed"]}
    assert freed == {str(digest) for digest in (*saved.manifests, *saved.blobs)}


async def test_what_is_over_is_kept_for_a_push_that_takes_it_up_before_it_is_collected(
    saved: Saved,
) -> None:
    world = saved.world
    world.clock.pass_by(RETENTION + MINUTE)
    assert await saved.keep()
    await world.collect()
    assert await saved.is_readable()
    await saved.assert_hidden()
    world.clock.pass_by(KEEP)
    await world.collect()
    assert not await saved.is_readable()
    assert await world.rows() == {}


async def test_what_is_kept_does_not_come_back_by_being_named(saved: Saved) -> None:
    world = saved.world
    world.clock.pass_by(RETENTION)
    assert await saved.keep()
    now = world.clock.now
    for body in (*saved.bodies[:2], image(*LAYERS, annotations={"another": "image"})):
        with pytest.raises(ManifestBlobUnknown):
            await put_manifest(world.stores, REPOSITORY, body, "v2", now=now)
    # An index may name what is not there; it is not there by that.
    await put_manifest(world.stores, REPOSITORY, index(*saved.bodies[:2], more="x"), "v3", now=now)
    for digest in saved.manifests:
        assert not await world.shows(digest)
    await world.collect()
    assert await saved.findings() == ()


async def test_what_is_pushed_again_while_it_is_kept_lives_as_what_is_pushed_does(
    saved: Saved,
) -> None:
    world = saved.world
    world.clock.pass_by(RETENTION)
    assert await saved.keep()
    await world.collect()
    body = await push_image(world.stores, REPOSITORY, LAYERS[0], tag="again", now=world.clock.now)
    assert body == saved.bodies[0]
    world.clock.pass_by(KEEP + LEASE)
    await world.collect()
    assert await world.shows(Tag("again")) and await world.shows_blob(Digest.of(LAYERS[0]))
    assert await saved.source.manifest(REPOSITORY, saved.manifests[1]) is None
    assert await saved.findings() == ()


async def test_an_image_that_is_deleted_by_its_digest_is_pushed_to_the_end(world: World) -> None:
    stores = world.stores
    source = SqlPushSource(stores.database, stores.blobs)
    body = await push_image(stores, REPOSITORY, b"layer", tag="v1")
    world.clock.pass_by(LEASE)
    digest, content = Digest.of(body), [Digest.of(b"layer"), Digest.of(b"{}")]
    assert await source.keep(REPOSITORY, [digest], content, world.clock.now, KEEP)
    api = RegistryApi(stores, world.clock.now)
    assert (await api.call(USER, "DELETE", f"/v2/{REPOSITORY}/manifests/{digest}")).status == 202
    await world.collect()
    for blob in content:
        path = f"/v2/{REPOSITORY}/blobs/{blob}"
        assert (await api.call(USER, "GET", path)).status == 404
        assert await source.blob(REPOSITORY, blob) is not None
    world.clock.pass_by(KEEP)
    await world.collect()
    assert await world.rows() == {}


async def test_of_two_pushes_the_one_that_keeps_for_longer_counts(saved: Saved) -> None:
    world = saved.world
    world.clock.pass_by(RETENTION)
    assert await saved.keep(KEEP * 3)
    assert await saved.keep(KEEP)
    world.clock.pass_by(KEEP * 3 - SECOND)
    await world.collect()
    assert await saved.is_readable()
    world.clock.pass_by(SECOND)
    await world.collect()
    assert not await saved.is_readable()


async def test_all_is_kept_or_nothing(saved: Saved) -> None:
    world, source = saved.world, saved.source
    world.clock.pass_by(RETENTION)
    now, unknown = world.clock.now, Digest.of(b"unknown")
    for of_manifests, of_blobs in (
        ([*saved.manifests, unknown], saved.blobs),
        (saved.manifests, [*saved.blobs, unknown]),
        # A manifest is no blob, nor a blob a manifest.
        (saved.blobs, []),
        ([], saved.manifests),
    ):
        assert not await source.keep(REPOSITORY, of_manifests, of_blobs, now, KEEP)
    for repository in (SIBLING, FOREIGN, RepositoryName("nobody/app")):
        assert not await source.keep(repository, saved.manifests, saved.blobs, now, KEEP)
    await world.collect()
    assert not await saved.is_readable()
    assert await world.rows() == {}


async def test_what_is_shared_stays_for_whoever_keeps_it_in_its_own_repository(
    world: World,
) -> None:
    stores = world.stores
    source = SqlPushSource(stores.database, stores.blobs)
    for repository in (REPOSITORY, SIBLING):
        body = await push_image(stores, repository, b"layer", tag="v1")
    world.clock.pass_by(RETENTION)
    content = [Digest.of(body)], [Digest.of(b"layer")]
    assert await source.keep(SIBLING, *content, world.clock.now, KEEP)
    await world.collect()
    assert await source.manifest(REPOSITORY, Digest.of(body)) is None
    assert await source.blob(REPOSITORY, Digest.of(b"layer")) is None
    # A manifest is kept with all that it names.
    for text in (b"layer", b"{}"):
        assert await source.blob(SIBLING, Digest.of(text)) is not None


async def test_content_is_found_in_its_own_repository_alone(saved: Saved) -> None:
    source = saved.source
    digest = saved.manifests[2]
    found = await source.manifest(REPOSITORY, digest)
    assert found == StoredManifest(
        digest, "application/vnd.oci.image.index.v1+json", saved.bodies[2]
    )
    for repository in (SIBLING, FOREIGN, RepositoryName("mine")):
        assert await source.manifest(repository, digest) is None
        assert await source.blob(repository, saved.blobs[0]) is None
        assert await source.referrers(repository, digest, NOW) == []
    assert await source.manifest(REPOSITORY, saved.blobs[0]) is None
    assert await source.blob(REPOSITORY, digest) is None


async def test_referrers_are_found_while_they_live(saved: Saved) -> None:
    stores, source = saved.world.stores, saved.source
    subject = saved.manifests[2]
    more = image(subject=descriptor(OCI_MANIFEST, saved.bodies[2]), config=b"{}", note="second")
    await put_manifest(stores, REPOSITORY, more)
    expected = sorted([saved.manifests[3], Digest.of(more)], key=str)
    assert await source.referrers(REPOSITORY, subject, NOW) == expected
    assert await source.referrers(REPOSITORY, Digest.of(more), NOW) == []
    assert await source.keep(REPOSITORY, expected, [], NOW, RETENTION * 2)
    assert await source.referrers(REPOSITORY, subject, NOW + RETENTION) == []


async def test_a_blob_is_read_from_anywhere_and_fails_where_it_ends_too_soon(
    saved: Saved,
) -> None:
    source = saved.source
    blob = await source.blob(REPOSITORY, Digest.of(LAYERS[0]))
    assert blob is not None

    async def read(start: int, stop: int) -> bytes:
        async with aclosing(source.read(blob, start, stop)) as pieces:
            return b"".join([piece async for piece in pieces])

    assert await read(2, 5) == LAYERS[0][2:5]
    assert await read(4, blob.size_bytes) == LAYERS[0][4:]
    with pytest.raises(StorageUnavailable):
        await read(0, blob.size_bytes + 1)


async def test_a_damaged_blob_is_not_there(saved: Saved) -> None:
    damaged = Digest.of(LAYERS[0])
    statement = blobs.update().where(blobs.c.digest == str(damaged)).values(quarantined_at=NOW)
    await change(saved.world.stores, statement)
    assert await saved.source.blob(REPOSITORY, damaged) is None
    assert not await saved.keep()


async def test_keeping_meets_the_collector_and_neither_loses(stores: Stores) -> None:
    """Told that it is kept, a push reads all of it; told that it is not, it failed for a reason."""
    outcomes = set()
    with stores.replica() as replica:
        world = World(stores)
        for round_ in range(8):
            layer = b"layer %d" % round_
            body = await push_image(stores, REPOSITORY, layer, now=world.clock.now)
            content = [Digest.of(body)], [Digest.of(layer), Digest.of(b"{}")]
            world.clock.pass_by(RETENTION)
            source = SqlPushSource(replica.database, replica.blobs)

            async def keep(
                wait: float, content: tuple[list[Digest], list[Digest]], source: SqlPushSource
            ) -> bool:
                await asyncio.sleep(wait)
                return await source.keep(REPOSITORY, *content, world.clock.now, KEEP)

            is_kept, _ = await asyncio.gather(
                keep(0.004 * round_, content, source), world.collect()
            )
            await world.collect()
            outcomes.add(is_kept)
            is_there = [await source.manifest(REPOSITORY, content[0][0]) is not None]
            for digest in content[1]:
                blob = await source.blob(REPOSITORY, digest)
                is_there.append(blob is not None)
                if blob is not None:
                    async with aclosing(source.read(blob, 0, blob.size_bytes)) as pieces:
                        assert Digest.of(b"".join([piece async for piece in pieces])) == digest
            assert set(is_there) == {is_kept}
            world.clock.pass_by(KEEP)
            await world.collect()
            assert await world.rows() == {}
    assert outcomes
    assert (await verifier(stores, world.clock.now).run()).findings == ()


# --- any history ----------------------------------------------------------------------------

_TIMES = st.sampled_from([SECOND, MINUTE, KEEP, LEASE, RETENTION - LEASE, RETENTION])
_STEPS = st.one_of(
    st.tuples(st.just("keep"), st.integers(0, 2), st.sampled_from([MINUTE, KEEP, LEASE * 3])),
    st.tuples(st.just("pass"), _TIMES),
    st.tuples(st.just("collect")),
    st.tuples(st.just("delete"), st.integers(0, 2)),
    st.tuples(st.just("push"), st.integers(0, 2)),
)
_IMAGES = (b"own 0", b"shared"), (b"own 1", b"shared"), (b"own 2",)


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A data folder to copy: to make one takes longer than what is done in it."""
    (tmp_path / "empty").mkdir()
    with opened(tmp_path / "empty"):
        pass
    return tmp_path / "empty"


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(_STEPS, max_size=12))
def test_what_is_kept_is_there_and_what_nobody_keeps_goes(
    empty: Path, steps: list[tuple[Any, ...]]
) -> None:
    with TemporaryDirectory(dir=empty.parent) as folder:
        shutil.copytree(empty, folder, dirs_exist_ok=True)
        with opened(Path(folder)) as stores:
            asyncio.run(_check(stores, steps))


async def _check(stores: Stores, steps: list[tuple[Any, ...]]) -> None:
    world = World(stores)
    source = SqlPushSource(stores.database, stores.blobs)
    for layers in _IMAGES:
        await push_image(stores, REPOSITORY, *layers)
    kept: dict[int, Any] = {}
    for step in steps:
        match step:
            case "keep", number, lease:
                of_blobs = [Digest.of(layer) for layer in (*_IMAGES[number], b"{}")]
                digest = Digest.of(image(*_IMAGES[number]))
                now = world.clock.now
                if await source.keep(REPOSITORY, [digest], of_blobs, now, lease):
                    kept[number] = max(now + lease, kept.get(number, now))
            case "pass", time:
                world.clock.pass_by(time)
            case "collect":
                await world.collect()
            case "delete", number:
                digest = Digest.of(image(*_IMAGES[number]))
                if await world.shows(digest):
                    await stores.registry.delete_manifest(REPOSITORY, digest, world.clock.now)
            case "push", number:
                await push_image(stores, REPOSITORY, *_IMAGES[number], now=world.clock.now)
        for number, until in kept.items():
            if until > world.clock.now:
                await _assert_there(source, _IMAGES[number])
    assert (await verifier(stores, world.clock.now).run()).findings == ()
    world.clock.pass_by(RETENTION + LEASE * 3)
    await world.collect()
    assert await world.rows() == {}


async def _assert_there(source: SqlPushSource, layers: Collection[bytes]) -> None:
    assert await source.manifest(REPOSITORY, Digest.of(image(*layers)))
    for content in (*layers, b"{}"):
        blob = await source.blob(REPOSITORY, Digest.of(content))
        assert blob is not None
        async with aclosing(source.read(blob, 0, blob.size_bytes)) as pieces:
            assert b"".join([piece async for piece in pieces]) == content
