"""The port `Registry` against real registries, as pushes reach them."""

import asyncio
import random
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from layover.adapters.registries.registry import HttpRegistries
from layover.oci.digest import Digest
from layover.oci.manifests import OCI_MANIFEST
from layover.oci.names import RepositoryName, Tag
from layover.oci.references import Place
from layover.outbound.client import outbound_client
from layover.outbound.rules import LOOPBACK, OutboundRules
from layover.promotion.models import (
    Authorization,
    RegistryRefused,
    RegistryUnauthorized,
)
from layover.promotion.ports import Registry
from tests.certificates import make_certificates
from tests.destinations import (
    Distribution2,
    Distribution3,
    LayoverDestination,
    OtherRegistry,
    TokenServer,
    Zot,
)
from tests.e2e import processes
from tests.e2e.server import LayoverServer
from tests.stores import image

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
# No builder is needed to push to.
NO_BUILDER = {"BUILDERS": '[{"name": "none", "address": "tcp://127.0.0.1:1"}]'}
KINDS = (
    *("distribution 2, Basic", "distribution 2, tokens"),
    *("distribution 3", "distribution 3, tokens", "distribution 3, TLS"),
    "layover",
    *("zot, Basic", "zot, tokens"),
)
RULES = OutboundRules(LOOPBACK, plain_loopback=True)


@dataclass
class World:
    """The registries that were started so far, each of which the tests share."""

    folder: Path
    tokens: TokenServer
    started: dict[str, OtherRegistry]

    @property
    def ca(self) -> Path:
        return self.folder / "certificates" / "ca.pem"

    def registry(self, kind: str) -> OtherRegistry:
        if kind not in self.started:
            self.started[kind] = made = self._make(kind, self.folder / kind.replace(" ", "-"))
            made.start()
        return self.started[kind]

    def _make(self, kind: str, folder: Path) -> OtherRegistry:
        match kind:
            case "distribution 2, Basic":
                return Distribution2(folder, basic=True)
            case "distribution 2, tokens":
                return Distribution2(folder, tokens=self.tokens)
            case "distribution 3, tokens":
                return Distribution3(folder, tokens=self.tokens)
            case "distribution 3, TLS":
                certificates = make_certificates(self.folder / "certificates")
                return Distribution3(folder, certificates=certificates)
            case "zot, Basic":
                return Zot(folder, basic=True)
            case "zot, tokens":
                return Zot(folder, tokens=self.tokens)
            case "layover":
                return LayoverDestination(LayoverServer(folder, settings=NO_BUILDER))
            case _:
                return Distribution3(folder)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    folder = Path(tempfile.mkdtemp(prefix="layover-registries-", dir="/tmp"))
    tokens = TokenServer(folder)
    world = World(folder, tokens, {})
    yield world
    for registry in world.started.values():
        registry.remove()
    tokens.stop()
    processes.remove(folder)


@pytest.fixture(params=KINDS)
def remote(world: World, request: pytest.FixtureRequest) -> OtherRegistry:
    return world.registry(request.param)


@asynccontextmanager
async def pushing(
    world: World,
    authorization: Callable[[Place], Authorization | None],
    chunk_bytes: int = MIB,
) -> AsyncIterator[Registry]:
    ca = world.ca if world.ca.exists() else None
    async with outbound_client(RULES, ca) as client:
        yield HttpRegistries(client, RULES, chunk_bytes=chunk_bytes).open(authorization)


def showing(remote: OtherRegistry, *names: str) -> Callable[[Place], Authorization | None]:
    authorization = remote.authorization(*(remote.repository(name) for name in names))
    return lambda place: authorization


def place_of(remote: OtherRegistry, name: str, host: str | None = None) -> Place:
    return Place(host or remote.host, RepositoryName.parse(remote.repository(name)))


def content_of(size_bytes: int, seed: str) -> bytes:
    return random.Random(seed).randbytes(size_bytes)


def reading(content: bytes) -> Callable[[int], AsyncGenerator[bytes]]:
    async def read(start: int) -> AsyncGenerator[bytes]:
        while start < len(content):
            yield content[start : start + 100_000]
            start += 100_000

    return read


async def send(registry: Registry, place: Place, content: bytes) -> list[int]:
    """Send a blob; returns what was told of its way."""
    sent: list[int] = []
    await registry.send_blob(place, Digest.of(content), len(content), reading(content), sent.append)
    return sent


@pytest.mark.parametrize("size_bytes", [0, 1, 3 * MIB + 17])
async def test_a_blob_of_any_size_arrives(
    world: World, remote: OtherRegistry, size_bytes: int
) -> None:
    place, content = place_of(remote, "app"), content_of(size_bytes, "arrives")
    async with pushing(world, showing(remote, "app")) as registry:
        if size_bytes > 1:  # Distribution knows the empty blob of old.
            assert not await registry.has_blob(place, Digest.of(content), size_bytes)
        assert (await send(registry, place, content))[-1] == size_bytes
        assert await registry.has_blob(place, Digest.of(content), size_bytes)
        assert not await registry.has_blob(place, Digest.of(content), size_bytes + 1)


async def test_a_blob_of_another_repository_is_mounted(world: World, remote: OtherRegistry) -> None:
    place, source = place_of(remote, "mounted"), place_of(remote, "source")
    content = content_of(1000, "mounted")
    async with pushing(world, showing(remote, "mounted", "source")) as registry:
        assert not await registry.mount(place, Digest.of(content), source.repository)
        await send(registry, source, content)
        assert await registry.mount(place, Digest.of(content), source.repository)
        assert await registry.has_blob(place, Digest.of(content), len(content))


async def test_a_manifest_is_found_by_the_digest_that_it_was_put_with(
    world: World, remote: OtherRegistry
) -> None:
    place, config, layer = place_of(remote, "manifest"), b"{}", b"layer"
    body = image(layer, config=config)
    async with pushing(world, showing(remote, "manifest")) as registry:
        assert await registry.find_manifest(place, Tag("v1")) is None
        # Nothing that it names is there yet.
        with pytest.raises(RegistryRefused, match=r"BLOB_UNKNOWN|MANIFEST_INVALID"):
            await registry.put_manifest(place, Tag("v1"), OCI_MANIFEST, body)
        for content in (config, layer):
            await send(registry, place, content)
        for reference in (Digest.of(body), Tag("v1")):
            await registry.put_manifest(place, reference, OCI_MANIFEST, body)
            assert await registry.find_manifest(place, reference) == Digest.of(body)
            assert await registry.read_manifest(place, reference) == body


async def test_what_is_not_the_blob_is_refused(world: World, remote: OtherRegistry) -> None:
    place, content = place_of(remote, "refused"), content_of(2 * MIB, "refused")
    digest = Digest.of(b"something else")
    async with pushing(world, showing(remote, "refused")) as registry:
        with pytest.raises(RegistryRefused, match="DIGEST_INVALID"):
            await registry.send_blob(
                place, digest, len(content), reading(content), lambda size_bytes: None
            )
        assert not await registry.has_blob(place, digest, len(content))


@pytest.mark.parametrize("kind", ["distribution 2, Basic", "distribution 3, tokens", "layover"])
async def test_who_shows_nothing_is_asked_to_sign_in(world: World, kind: str) -> None:
    remote = world.registry(kind)
    async with pushing(world, lambda place: None) as registry:
        with pytest.raises(RegistryUnauthorized, match="UNAUTHORIZED"):
            await send(registry, place_of(remote, "stranger"), b"a blob")


@pytest.mark.parametrize("kind", ["distribution 2, tokens", "distribution 3, tokens"])
async def test_an_upload_whose_token_ran_out_goes_on_with_another(world: World, kind: str) -> None:
    remote, content = world.registry(kind), content_of(3 * MIB, kind)
    place = place_of(remote, "renewed")
    good = remote.authorization("renewed")
    over = remote.authorization("renewed", life=timedelta(seconds=-1))
    shown, told = good, list[int]()

    def sent(size_bytes: int) -> None:
        nonlocal shown
        told.append(size_bytes)
        if size_bytes >= MIB and len(told) < 30:
            shown = over

    async with pushing(world, lambda place: shown) as registry:
        with pytest.raises(RegistryUnauthorized):
            await registry.send_blob(place, Digest.of(content), 3 * MIB, reading(content), sent)
        shown, told[:] = good, [0] * 30
        await registry.send_blob(place, Digest.of(content), 3 * MIB, reading(content), sent)
        assert await registry.has_blob(place, Digest.of(content), 3 * MIB)
    assert min(told[30:]) >= MIB


@pytest.mark.parametrize("kind", ["distribution 2, Basic", "distribution 3, tokens", "layover"])
@pytest.mark.parametrize("chunk_mib", [1, 16])
async def test_a_broken_upload_goes_on_from_where_it_stopped(
    world: World, kind: str, chunk_mib: int
) -> None:
    remote, content = world.registry(kind), content_of(6 * MIB, f"{kind} {chunk_mib}")
    async with cutting(remote.host, [random.Random(kind).randrange(3 * MIB, 5 * MIB)]) as proxy:
        place = place_of(remote, "broken", proxy.host)
        show = showing(remote, "broken")
        async with pushing(world, show, chunk_mib * MIB) as registry:
            await send(registry, place, content)
            assert await registry.has_blob(place, Digest.of(content), len(content))
    assert proxy.cuts == []
    # Of what had arrived before the cut hardly anything was sent again. Distribution 2 does not say
    # where a session stands that broke within a request, and gets it anew.
    if not kind.startswith("distribution 2"):
        assert proxy.passed_bytes < len(content) + 2 * MIB


async def test_a_registry_that_is_started_again_gets_the_rest(world: World) -> None:
    remote, content = Distribution3(world.folder / "restarted"), content_of(4 * MIB, "restarted")
    place, restarted = place_of(remote, "app"), False

    def sent(size_bytes: int) -> None:
        nonlocal restarted
        if size_bytes > 2 * MIB and not restarted:
            restarted = True
            remote.kill()
            remote.start()

    try:
        remote.start()
        async with pushing(world, lambda place: None) as registry:
            await registry.send_blob(
                place, Digest.of(content), len(content), reading(content), sent
            )
            assert await registry.has_blob(place, Digest.of(content), len(content))
    finally:
        remote.remove()
    assert restarted


@dataclass
class Cutting:
    """A proxy that resets connections when so many bytes of clients have passed in all."""

    host: str
    cuts: list[int]
    passed_bytes: int = 0


@asynccontextmanager
async def cutting(host: str, cuts: list[int]) -> AsyncIterator[Cutting]:
    name, _, port = host.rpartition(":")
    proxy = Cutting("", cuts)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        remote_reader, remote_writer = await asyncio.open_connection(name, int(port))

        async def forward() -> None:
            while piece := await reader.read(64 * 1024):
                proxy.passed_bytes += len(piece)
                if proxy.cuts and proxy.passed_bytes > proxy.cuts[0]:
                    del proxy.cuts[0]
                    writer.transport.abort()
                    return
                remote_writer.write(piece)
                await remote_writer.drain()

        async def answer() -> None:
            while piece := await remote_reader.read(64 * 1024):
                writer.write(piece)
                await writer.drain()

        tasks = [asyncio.create_task(forward()), asyncio.create_task(answer())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            remote_writer.close()
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    proxy.host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
