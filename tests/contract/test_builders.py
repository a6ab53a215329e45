"""What every Builder does, asked of real daemons: remote in plain text and over TLS, embedded."""

import asyncio
import contextlib
import platform
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from opentelemetry.metrics import _internal as metrics_internal

from layover.adapters.buildkit.daemon_config import RegistryAccess
from layover.adapters.buildkit.embedded import EmbeddedBuilder
from layover.adapters.buildkit.probe import probe
from layover.adapters.buildkit.remote import RemoteBuilder
from layover.builds.builders import BuilderConfig, Platforms
from layover.builds.errors import BuilderUnhealthy
from layover.builds.ports import Builder
from tests.contract.daemons import Daemon, eventually, now, short_folder
from tests.e2e.processes import free_port

pytestmark = pytest.mark.anyio

MACHINE = {"x86_64": "linux/amd64", "aarch64": "linux/arm64"}[platform.machine()]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def is_healthy(builder: Builder) -> bool:
    try:
        await builder.check()
    except BuilderUnhealthy:
        return False
    return True


@pytest.fixture(params=["plain", "tls", "embedded"])
async def builder(request: pytest.FixtureRequest) -> AsyncIterator[Builder]:
    async with short_folder() as folder:
        if request.param == "embedded":
            embedded = EmbeddedBuilder(folder, RegistryAccess("127.0.0.1:5000"), now)
            task = asyncio.create_task(embedded.run())
            yield embedded
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            return
        daemon = Daemon(folder, with_tls=request.param == "tls")
        daemon.start()
        yield RemoteBuilder(daemon.config)
        await asyncio.to_thread(daemon.stop)


async def test_a_builder_tells_what_it_builds_natively(builder: Builder) -> None:
    await eventually(lambda: is_healthy(builder), "the daemon")
    assert MACHINE in (await builder.check()).native


async def test_what_a_build_is_given_opens_the_daemon(builder: Builder) -> None:
    await eventually(lambda: is_healthy(builder), "the daemon")
    credentials = await builder.credentials("build1")
    assert MACHINE in (await probe(builder.address, builder.server_name, credentials)).native


async def test_a_daemon_with_tls_lets_nobody_in_without_a_certificate_of_its_authority() -> None:
    async with short_folder() as folder:
        daemon = Daemon(folder, with_tls=True)
        daemon.start()
        try:
            config = daemon.config
            await eventually(lambda: is_healthy(RemoteBuilder(config)), "the daemon")
            anonymous = RemoteBuilder(replace(config, cert=None, key=None))
            with pytest.raises(BuilderUnhealthy, match="cannot connect"):
                await anonymous.check()
            misnamed = RemoteBuilder(replace(config, server_name="another.name"))
            with pytest.raises(BuilderUnhealthy, match="certificate"):
                await misnamed.check()
            plain = RemoteBuilder(BuilderConfig("plain", config.address))
            with pytest.raises(BuilderUnhealthy):
                await plain.check()
        finally:
            await asyncio.to_thread(daemon.stop)


async def test_a_daemon_that_ends_is_unhealthy_at_once_and_healthy_when_it_is_back() -> None:
    async with short_folder() as folder:
        daemon = Daemon(folder, with_tls=False)
        daemon.start()
        try:
            remote = RemoteBuilder(daemon.config)
            await eventually(lambda: is_healthy(remote), "the daemon")
            await asyncio.to_thread(daemon.stop)
            with pytest.raises(BuilderUnhealthy, match="Connection refused"):
                await remote.check()
            daemon.start()
            await eventually(lambda: is_healthy(remote), "the daemon again")
        finally:
            await asyncio.to_thread(daemon.stop)


async def test_platforms_of_the_settings_count_more_than_the_daemons_own() -> None:
    async with short_folder() as folder:
        daemon = Daemon(folder, with_tls=False)
        daemon.start()
        try:
            remote = RemoteBuilder(replace(daemon.config, platforms=("linux/riscv64",)))
            await eventually(lambda: is_healthy(remote), "the daemon")
            assert await remote.check() == Platforms(("linux/riscv64",))
        finally:
            await asyncio.to_thread(daemon.stop)


async def test_a_daemon_that_accepts_and_says_nothing_is_unhealthy_within_seconds() -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            await reader.read()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, asyncio.timeout(10):
        with pytest.raises(BuilderUnhealthy, match="no answer within 3 s"):
            await RemoteBuilder(BuilderConfig("mute", f"tcp://127.0.0.1:{port}")).check()


async def test_a_host_that_does_not_exist_is_named() -> None:
    config = BuilderConfig("nowhere", "tcp://no-such-host.invalid:1234")
    with pytest.raises(BuilderUnhealthy, match=r"no-such-host\.invalid|dns|resolve"):
        await RemoteBuilder(config).check()


async def test_asking_how_a_builder_is_leaves_nothing_behind() -> None:
    builder = RemoteBuilder(BuilderConfig("none", f"tcp://127.0.0.1:{free_port()}"))
    # What the HTTP client measures for whoever asks: never given back (opentelemetry-api).
    meters = metrics_internal._PROXY_METER_PROVIDER._meters
    before = len(meters)
    assert not await is_healthy(builder)
    assert len(meters) == before


async def test_an_address_of_another_kind_is_named() -> None:
    with pytest.raises(BuilderUnhealthy, match="is not tcp://HOST:PORT"):
        await RemoteBuilder(BuilderConfig("b", "unix:///run/buildkit/buildkitd.sock")).check()


async def test_certificates_that_cannot_be_read_or_used_are_named(tmp_path: Path) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    missing = BuilderConfig("b", address, ca_cert=str(tmp_path / "missing.pem"))
    with pytest.raises(BuilderUnhealthy, match=r"missing\.pem"):
        await RemoteBuilder(missing).check()
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(BuilderUnhealthy):
        await RemoteBuilder(replace(missing, ca_cert=str(tmp_path / "ca.pem"))).check()
