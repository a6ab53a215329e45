"""Asking the server for builders, one for each platform that a build needs."""

import asyncio
import platform as machine
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import urlsplit

from layover.cli.errors import CliError, WrongUsage
from layover.client.api import Client
from layover.client.buildkit import BuilderAddress
from layover.rpc.depot.cli.v1 import build_pb as wire

BuilderPlatform = wire.BuilderPlatform

# Which builder a platform's build runs on natively, or nearly so.
_ARM = ("arm", "arm64", "aarch64")
# What a builder of each kind is told to build, when there are two.
_PLATFORMS = {
    BuilderPlatform.AMD64: ("linux/amd64", "linux/amd64/v2", "linux/amd64/v3", "linux/386"),
    BuilderPlatform.ARM64: ("linux/arm64", "linux/arm/v7", "linux/arm/v6"),
}
_NAMES = {BuilderPlatform.AMD64: "linux/amd64", BuilderPlatform.ARM64: "linux/arm64"}

_DEFAULT_WAIT_SECONDS = 1.0
_LONGEST_WAIT_SECONDS = 30.0
# How long a builder that the server holds for healthy may refuse us; buildx alone would wait
# for it, and then fail.
_SILENT_BUILDER_SECONDS = 30.0
_CONNECT_SECONDS = 10.0


class NoBuilder(CliError):
    """The server gave no builder that can be used."""


def of_platform(text: str) -> BuilderPlatform:
    """The builder that is native to a platform such as linux/arm64/v8."""
    architecture = text.removeprefix("linux/").split("/")[0].lower()
    return BuilderPlatform.ARM64 if architecture in _ARM else BuilderPlatform.AMD64


def needed(build_platform: str, platforms: Iterable[str]) -> list[BuilderPlatform]:
    """The builders for a build: what --build-platform says, else what --platform asks for.

    With neither, this machine's own kind: an image built here runs here.
    """
    if build_platform and build_platform != "dynamic":
        if build_platform not in _NAMES.values():
            known = ", ".join(("dynamic", *_NAMES.values()))
            raise WrongUsage(f"invalid --build-platform {build_platform!r}: one of {known}")
        return [of_platform(build_platform)]
    asked = [part for text in platforms for part in text.split(",") if part and part != "local"]
    found = {of_platform(text) for text in asked} or {of_platform(machine.machine())}
    return sorted(found, key=lambda kind: kind.value)


async def acquire(
    client: Client,
    build_id: str,
    platforms: Sequence[BuilderPlatform],
    *,
    say: Callable[[str], None],
) -> list[tuple[BuilderAddress, tuple[str, ...]]]:
    """Wait for a builder of each platform; one that serves several is named once."""
    found: dict[tuple[str, str], tuple[BuilderAddress, list[str]]] = {}
    for platform in platforms:
        address = await _acquire(client, build_id, platform, say)
        # Each connection has a client certificate of its own, so the addresses are never equal,
        # and buildx takes an endpoint only once.
        key = (address.endpoint, address.server_name)
        found.setdefault(key, (address, []))[1].extend(_PLATFORMS[platform])
    return [(address, tuple(names)) for address, names in found.values()]


async def _acquire(
    client: Client, build_id: str, platform: BuilderPlatform, say: Callable[[str], None]
) -> BuilderAddress:
    is_told = False
    loop = asyncio.get_running_loop()
    give_up = loop.time() + _SILENT_BUILDER_SECONDS
    while True:
        answer = (await client.get_buildkit_connection(build_id, platform)).connection
        if answer is not None and answer.field == "active":
            connection = answer.value
            address = BuilderAddress(
                endpoint=connection.endpoint,
                server_name=connection.server_name,
                ca_cert=connection.ca_cert.cert if connection.ca_cert else "",
                cert=connection.cert.cert if connection.cert else "",
                key=connection.cert.key if connection.cert else "",
            )
            if await _answers(address):
                return address
            # It died since the server last looked, which it does before long.
            if loop.time() > give_up:
                raise NoBuilder(f"the builder at {address.endpoint} does not answer")
            if not is_told:
                say(f"The builder at {address.endpoint} does not answer; asking for another...")
                is_told = True
            await asyncio.sleep(_DEFAULT_WAIT_SECONDS)
            continue
        if answer is None:
            raise NoBuilder("the server answered with no builder; see the server's log")
        if not is_told:
            say(f"Waiting for a {_NAMES[platform]} builder...")
            is_told = True
        wait_seconds = answer.value.wait_ms / 1000 or _DEFAULT_WAIT_SECONDS
        await asyncio.sleep(min(wait_seconds, _LONGEST_WAIT_SECONDS))


async def _answers(address: BuilderAddress) -> bool:
    """Whether somebody listens there; of an address that is no host and port nobody can say."""
    parts = urlsplit(address.url)
    if not parts.hostname or not parts.port:
        return True
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
