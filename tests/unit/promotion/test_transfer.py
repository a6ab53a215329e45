import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from layover.oci.digest import Digest
from layover.oci.names import RepositoryName
from layover.oci.references import Destination, Place
from layover.promotion import transfer as module
from layover.promotion.models import (
    Authorization,
    AuthorizationScheme,
    InvalidPush,
    Push,
    RegistryRefused,
    RegistryUnauthorized,
    SourceGone,
    Transfer,
    TransferState,
)
from layover.promotion.transfer import TransferService
from tests.unit.promotion.images import Images
from tests.unit.promotion.memory import MemoryPushSource, MemoryRegistries

pytestmark = pytest.mark.anyio

REPOSITORY = RepositoryName("project123")
NOW = datetime(2026, 11, 25, tzinfo=UTC)
TOKEN = Authorization(AuthorizationScheme.BEARER, "first")


class Told:
    """The Standing that remembers."""

    def __init__(self) -> None:
        self.digest: Digest | None = None
        self.transfers: dict[tuple[Place, Digest], Transfer] = {}
        self.shown: object = TOKEN
        self.fresh: list[object] = []

    async def begins(self, digest: Digest, transfers: Sequence[Transfer]) -> None:
        self.digest = digest
        self.transfers = {(one.place, one.digest): one for one in transfers}

    def moved(self, transfer: Transfer) -> None:
        assert (transfer.place, transfer.digest) in self.transfers
        self.transfers[transfer.place, transfer.digest] = transfer

    def authorization_key(self, place: Place) -> object:
        return self.shown

    async def authorized_anew(self, place: Place, shown: object) -> bool:
        assert shown == self.shown
        if not self.fresh:
            return False
        self.shown = self.fresh.pop(0)
        return True

    def states(self, place: Place) -> set[TransferState]:
        return {one.state for (where, _), one in self.transfers.items() if where == place}


@pytest.fixture
def images() -> Images:
    return Images(MemoryPushSource(), REPOSITORY)


@pytest.fixture
def there() -> MemoryRegistries:
    return MemoryRegistries()


@pytest.fixture
def told() -> Told:
    return Told()


def push(source: Digest, *destinations: str, with_referrers: bool = False) -> Push:
    return Push(
        id="push1",
        project_id=REPOSITORY.value,
        build_id="build12345",
        target="",
        source=source,
        destinations=tuple(Destination.parse(one) for one in destinations),
        created_at=NOW,
        created_by="ann",
        with_referrers=with_referrers,
    )


async def run(images: Images, there: MemoryRegistries, told: Told, what: Push) -> None:
    service = TransferService(images.source, lambda: NOW, timedelta(hours=1))
    await service.run(what, there.open(lambda _: TOKEN), told)


def place(text: str) -> Place:
    return Destination.parse(text).place


async def test_everything_is_there_before_the_tag_names_it(
    images: Images, there: MemoryRegistries, told: Told
) -> None:
    amd64, arm64 = images.image("a", layers=3), images.image("b", layers=2)
    index = images.index({"linux/amd64": amd64, "linux/arm64": arm64})
    await run(images, there, told, push(index, "ghcr.io/acme/app:v1"))
    puts = [what for name, _, what in there.calls if name == "put"]
    assert puts == [str(amd64.digest), str(arm64.digest), str(index), "v1"]
    first_put = next(at for at, call in enumerate(there.calls) if call[0] == "put")
    assert all(name != "send" for name, _, _ in there.calls[first_put:])
    app = place("ghcr.io/acme/app")
    assert {digest for _, digest in there.blobs} == {*amd64.blobs, *arm64.blobs}
    assert there.manifests[app, "v1"] == there.manifests[app, str(index)]
    assert told.digest == index
    assert told.states(app) == {TransferState.SENT}
    assert all(one.sent_bytes == one.size_bytes for one in told.transfers.values())


async def test_what_is_there_is_not_sent_again(
    images: Images, there: MemoryRegistries, told: Told
) -> None:
    image = images.image("a", layers=3)
    what = push(image.digest, "ghcr.io/acme/app:v1")
    await run(images, there, told, what)
    there.calls.clear()
    await run(images, there, told, what)
    assert {name for name, _, _ in there.calls} == {"has", "find"}
    assert told.states(place("ghcr.io/acme/app")) == {TransferState.EXISTS}


@pytest.mark.parametrize(("bytes_at_once", "at_once"), [(1, 3), (1 << 30, 16)])
async def test_many_small_blobs_go_at_once_and_few_large_ones(
    images: Images,
    there: MemoryRegistries,
    told: Told,
    monkeypatch: pytest.MonkeyPatch,
    bytes_at_once: int,
    at_once: int,
) -> None:
    monkeypatch.setattr(module, "_BYTES_AT_ONCE", bytes_at_once)
    image = images.image("a", layers=40)
    sending, most = 0, 0

    async def count(name: str, where: Place) -> None:
        nonlocal sending, most
        if name == "send":
            sending += 1
            most = max(most, sending)
            await asyncio.sleep(0)
            sending -= 1

    there.before = count
    await run(images, there, told, push(image.digest, "r.io/app:1"))
    assert most == at_once


async def test_a_push_to_many_registries_sends_no_more_at_once(
    images: Images, there: MemoryRegistries, told: Told
) -> None:
    image = images.image("a", layers=20)
    under_way, most = 0, 0

    async def count(name: str, where: Place) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1

    there.before = count
    await run(images, there, told, push(image.digest, *(f"r{n}.io/app:1" for n in range(10))))
    assert most == 24


async def test_everything_is_asked_at_once(
    images: Images, there: MemoryRegistries, told: Told
) -> None:
    image = images.image("a", layers=3)
    questions = len(image.blobs) + len(["the manifest", "the tag"])
    asked, all_asked = 0, asyncio.Event()

    async def wait_for_all(name: str, where: Place) -> None:
        nonlocal asked
        if all_asked.is_set():
            return
        assert name in ("has", "find")
        asked += 1
        if asked == questions:
            all_asked.set()
        # One that waits for another's answer waits for ever.
        await asyncio.wait_for(all_asked.wait(), 10)

    there.before = wait_for_all
    await run(images, there, told, push(image.digest, "r.io/app:1"))
    assert there.manifests[place("r.io/app"), "1"] == image.body


async def test_killed_before_any_request_it_goes_on_and_sends_nothing_twice(images: Images) -> None:
    class KilledError(Exception):
        pass

    amd64, x86 = images.image("a", layers=3), images.image("b", layers=2)
    index = images.index({"linux/amd64": amd64, "linux/386": x86})
    blobs = {*amd64.blobs, *x86.blobs}
    tags = [Destination.parse(text) for text in ("r.io/app:1", "r.io/web:2", "other.io/app:1")]
    what = push(index, *(str(one) for one in tags))
    for last in range(200):
        there = MemoryRegistries()

        async def dies(name: str, where: Place, there: Any = there, last: int = last) -> None:
            # Those that are on their way at once do not all arrive.
            await asyncio.sleep(0)
            if len(there.calls) > last:
                raise KilledError

        there.before = dies
        with suppress(KilledError):
            await run(images, there, Told(), what)
        is_killed = len(there.calls) > last
        # No tag names what is not all there.
        for one in tags:
            body = there.manifests.get((one.place, str(one.tag)))
            if body is not None:
                assert Digest.of(body) == index
                assert {digest for where, digest in there.blobs if where == one.place} == blobs
        arrived = {(where, str(digest)) for where, digest in there.blobs}
        there.before = None
        there.calls.clear()
        await run(images, there, Told(), what)
        sent = {(where, digest) for name, where, digest in there.calls if name == "send"}
        assert not arrived & sent
        for one in tags:
            assert Digest.of(there.manifests[one.place, str(one.tag)]) == index
        if not is_killed:
            break
    assert 40 < last < 199


async def test_a_tag_that_names_it_is_not_set_again(
    images: Images, there: MemoryRegistries, told: Told
) -> None:
    image, app = images.image("a"), place("r.io/app")
    await run(images, there, told, push(image.digest, "r.io/app:1"))
    # Its registry lost a blob, and lets nobody set a tag twice.
    del there.blobs[app, image.blobs[0]]
    there.calls.clear()
    await run(images, there, told, push(image.digest, "r.io/app:1"))
    assert [name for name, _, _ in there.calls if name in ("send", "put")] == ["send"]


async def test_a_tag_that_somebody_moves_meanwhile_is_set_again(
    images: Images, there: MemoryRegistries, told: Told
) -> None:
    image, other, app = images.image("a"), images.image("b"), place("r.io/app")
    await run(images, there, told, push(image.digest, "r.io/app:1"))

    async def move(name: str, where: Place) -> None:
        if name == "send":
            there.manifests[app, "1"] = other.body

    there.before = move
    await run(images, there, told, push(image.digest, "r.io/app:1", "s.io/app:1"))
    assert there.manifests[app, "1"] == image.body


async def test_several_tags_of_one_repository_get_each_blob_once(
    images: Images, there: MemoryRegistries, told: Told
) -> None:
    image = images.image("a", layers=2)
    await run(images, there, told, push(image.digest, "r.io/app:v1", "r.io/app:latest"))
    sent = [what for name, _, what in there.calls if name == "send"]
    assert sorted(sent) == sorted(str(digest) for digest in image.blobs)
    assert there.manifests[place("r.io/app"), "latest"] == image.body


@pytest.mark.parametrize("mounts", [True, False])
async def test_another_repository_of_the_registry_takes_its_blobs_from_the_first(
    images: Images, there: MemoryRegistries, told: Told, mounts: bool
) -> None:
    there.mounts = mounts
    image = images.image("a", layers=2)
    what = push(image.digest, "r.io/b:1", "s.io/c:1", "r.io/a:1")
    await run(images, there, told, what)
    sent = [where for name, where, _ in there.calls if name == "send"]
    times = len(image.blobs)
    assert sent.count(place("r.io/b")) == times * (not mounts)
    assert sent.count(place("r.io/a")) == sent.count(place("s.io/c")) == times
    state = TransferState.MOUNTED if mounts else TransferState.SENT
    assert told.states(place("r.io/b")) == {state}
    for destination in what.destinations:
        assert there.manifests[destination.place, "1"] == image.body


async def test_a_repository_that_has_the_blobs_gives_them_whichever_is_named_first(
    images: Images, there: MemoryRegistries, told: Told
) -> None:
    image = images.image("a", layers=2)
    await run(images, there, told, push(image.digest, "r.io/z:1"))
    there.calls.clear()
    await run(images, there, told, push(image.digest, "r.io/a:1", "r.io/z:2"))
    assert "send" not in {name for name, _, _ in there.calls}
    assert told.states(place("r.io/a")) == {TransferState.MOUNTED}


async def test_no_tag_is_set_where_one_of_the_registries_refuses(
    images: Images, there: MemoryRegistries, told: Told
) -> None:
    image = images.image("a")
    refused = place("s.io/app")

    async def refuse(name: str, where: Place) -> None:
        if where == refused:
            raise RegistryRefused(where, "a blob", 403, "not here")

    there.before = refuse
    with pytest.raises(RegistryRefused, match=r"s\.io refused a blob \(403\): not here"):
        await run(images, there, told, push(image.digest, "r.io/app:1", "s.io/app:1"))
    assert not any(reference == "1" for _, reference in there.manifests)


async def test_a_tag_that_names_something_else_afterwards_is_an_error(
    images: Images, there: MemoryRegistries, told: Told
) -> None:
    image, other = images.image("a"), images.image("b")
    there.lie = other.digest
    with pytest.raises(RegistryRefused, match=f"names {other.digest} there, not {image.digest}"):
        await run(images, there, told, push(image.digest, "r.io/app:1"))


async def test_an_authorization_that_ran_out_is_asked_for_and_the_push_goes_on(
    images: Images, there: MemoryRegistries, told: Told
) -> None:
    image = images.image("a", layers=2)
    app = place("r.io/app")
    fresh = replace(TOKEN, secret="second")
    told.fresh = [fresh]

    async def is_over(name: str, where: Place) -> None:
        if name == "put" and told.shown != fresh:
            raise RegistryUnauthorized(app)

    there.before = is_over
    await run(images, there, told, push(image.digest, "r.io/app:1"))
    assert there.manifests[app, "1"] == image.body


async def test_one_that_is_always_refused_is_not_asked_for_for_ever(
    images: Images, there: MemoryRegistries, told: Told
) -> None:
    image = images.image("a")
    there.failure = RegistryUnauthorized(place("r.io/app"))
    told.fresh = list(range(100))
    with pytest.raises(RegistryUnauthorized, match=r"docker login r\.io"):
        await run(images, there, told, push(image.digest, "r.io/app:1"))
    assert len(told.fresh) > 90


async def test_more_transfers_than_a_push_may_have_are_refused(
    images: Images, there: MemoryRegistries, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_TRANSFERS", 3)
    image = images.image("a")
    await run(images, there, told, push(image.digest, "r.io/a:1"))
    with pytest.raises(InvalidPush, match="3 blobs and manifests to 2 repositories"):
        await run(images, there, told, push(image.digest, "r.io/a:1", "r.io/b:1"))


async def test_what_was_collected_meanwhile_is_said(
    images: Images, there: MemoryRegistries, told: Told
) -> None:
    image = images.image("a")
    images.source.remove(REPOSITORY, image.blobs[0])
    with pytest.raises(SourceGone, match="build it again"):
        await run(images, there, told, push(image.digest, "r.io/app:1"))


async def test_what_is_pushed_is_kept_and_kept_on(there: MemoryRegistries, told: Told) -> None:
    renewed = asyncio.Event()

    class Keeping(MemoryPushSource):
        """Tells of the third time."""

        async def keep(self, *arguments: Any) -> bool:
            is_kept = await super().keep(*arguments)
            if len(self.kept) == 3:
                renewed.set()
            return is_kept

    images = Images(Keeping(), REPOSITORY)
    image = images.image("a")

    async def wait(name: str, where: Place) -> None:
        if name == "send":
            await renewed.wait()

    there.before = wait
    service = TransferService(images.source, lambda: NOW, timedelta(seconds=0.08))
    await service.run(push(image.digest, "r.io/app:1"), there.open(lambda _: TOKEN), told)
    kept = {what for what, _ in images.source.kept}
    assert kept == {frozenset({image.digest, *image.blobs})}


async def test_referrers_go_before_the_tag_and_are_listed_where_the_registry_does_not(
    images: Images, there: MemoryRegistries, told: Told
) -> None:
    image = images.image("a")
    sbom, signature = images.referrer("sbom", image.digest), images.referrer("sig", image.digest)
    there.lists_referrers = False
    what = push(image.digest, "r.io/app:1", with_referrers=True)
    await run(images, there, told, what)
    puts = [reference for name, _, reference in there.calls if name == "put"]
    assert puts[-1] == "1"
    await run(images, there, told, what)
    app = place("r.io/app")
    listed = json.loads(there.manifests[app, f"sha256-{image.digest.hex}"])
    assert [entry["digest"] for entry in listed["manifests"]] == [
        str(sbom.digest),
        str(signature.digest),
    ]
    assert all(entry["artifactType"] for entry in listed["manifests"])
    assert there.manifests[app, "1"] == image.body
    # As where a push broke off between the two.
    there.manifests.pop((app, f"sha256-{image.digest.hex}"))
    await run(images, there, told, what)
    assert (
        there.manifests[app, f"sha256-{image.digest.hex}"]
        == json.dumps(listed, separators=(",", ":")).encode()
    )


async def test_a_list_of_referrers_that_does_not_say_what_it_is_is_added_to(
    images: Images, there: MemoryRegistries, told: Told
) -> None:
    image, there.lists_referrers = images.image("a"), False
    sbom, app = images.referrer("sbom", image.digest), place("r.io/app")
    tag = f"sha256-{image.digest.hex}"
    entry = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 5}
    theirs = {**entry, "digest": str(Digest.of(b"their signature"))}
    listed = {"schemaVersion": 2, "manifests": [theirs]}
    there.manifests[app, tag] = json.dumps(listed).encode()
    what = push(image.digest, "r.io/app:1", with_referrers=True)
    await run(images, there, told, what)
    digests = [one["digest"] for one in json.loads(there.manifests[app, tag])["manifests"]]
    assert digests == [theirs["digest"], str(sbom.digest)]
    # What is no list is somebody's.
    there.manifests[app, tag] = b"[]"
    with pytest.raises(RegistryRefused, match="no list of referrers"):
        await run(images, there, told, what)
    assert there.manifests[app, tag] == b"[]"
