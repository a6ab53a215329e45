"""How a BuildKit daemon fares: asked over its own gRPC API what it can build.

Every check dials anew. It costs milliseconds, and a daemon that answers on an old connection
while it accepts no new one would be no use to a build.
"""

import asyncio
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from connectrpc.errors import ConnectError
from connectrpc.protocol import ProtocolType
from pyqwest import Client, HTTPTransport, HTTPVersion, Proxy

from layover.builds.builders import Credentials, Platforms
from layover.builds.errors import BuilderUnhealthy
from layover.rpc.moby.buildkit.v1.control_connect import ControlClient
from layover.rpc.moby.buildkit.v1.control_pb import ListWorkersRequest, Platform

CHECK_TIMEOUT_SECONDS = 3.0

# What a processor runs without emulation beside its own architecture.
_SUBSETS = {"amd64": frozenset({"386"}), "arm64": frozenset({"arm"})}


async def probe(address: str, server_name: str, credentials: Credentials | None) -> Platforms:
    """Ask the daemon at `address` (`tcp://host:port`) for its platforms.

    Raises BuilderUnhealthy, within CHECK_TIMEOUT_SECONDS, with what went wrong.
    """
    parts = urlsplit(address)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if parts.scheme != "tcp" or not host or not port:
        raise BuilderUnhealthy(f"its address {address!r} is not tcp://HOST:PORT", can_recover=False)
    limit = asyncio.timeout(CHECK_TIMEOUT_SECONDS)
    try:
        async with limit:
            workers = await _list_platforms(host, port, server_name, credentials)
    except TimeoutError:
        raise _too_late() from None
    except ConnectError as error:
        # The client library turns a cancellation, which a timeout is, into an error of its own.
        if limit.expired():
            raise _too_late() from None
        raise BuilderUnhealthy(_reason(error.message)) from error
    except OSError as error:
        raise BuilderUnhealthy(f"cannot find host {host!r}: {error.strerror or error}") from error
    except ValueError as error:
        raise BuilderUnhealthy(f"its certificates cannot be used: {error}") from error
    if not workers:
        raise BuilderUnhealthy("it has no worker")
    return split_platforms(workers)


def _too_late() -> BuilderUnhealthy:
    return BuilderUnhealthy(f"no answer within {CHECK_TIMEOUT_SECONDS:.0f} s")


def split_platforms(platforms: Iterable[Platform]) -> Platforms:
    """Which of a worker's platforms are native: BuildKit names the machine's own first."""
    listed = list(platforms)
    own = listed[0].architecture
    native = {own, *_SUBSETS.get(own, ())}
    return Platforms(
        native=_names(platform for platform in listed if platform.architecture in native),
        emulated=_names(platform for platform in listed if platform.architecture not in native),
    )


def _names(platforms: Iterable[Platform]) -> tuple[str, ...]:
    # Variants such as linux/amd64/v2 make no difference to where a build goes.
    names = (f"{platform.os}/{platform.architecture}" for platform in platforms)
    return tuple(dict.fromkeys(names))


async def _list_platforms(
    host: str, port: int, server_name: str, credentials: Credentials | None
) -> list[Platform]:
    scheme = "http" if credentials is None else "https"
    name = server_name if credentials is not None and server_name else host
    overrides: dict[str, list[str]] = {}
    if name != host:
        # The certificate is checked against the URL's host: the URL has the name, and this
        # says where it is.
        overrides[name] = await _addresses(host, port)
    transport = HTTPTransport(
        tls_ca_cert=_bytes(credentials.ca_cert if credentials else None),
        tls_cert=_bytes(credentials.cert if credentials else None),
        tls_key=_bytes(credentials.key if credentials else None),
        http_version=HTTPVersion.HTTP2,
        dns_overrides=overrides,
        use_system_dns=True,
        connect_timeout=CHECK_TIMEOUT_SECONDS,
        # A rule for the other scheme alone: without any, HTTP_PROXY of the environment would
        # apply, and a builder is never behind it.
        proxy=Proxy("http://proxy.invalid", scheme="http" if scheme == "https" else "https"),
        # Its meters are kept for as long as the process lives, and this is asked every few seconds.
        enable_otel=False,
    )
    try:
        url_host = f"[{name}]" if ":" in name else name
        client = ControlClient(
            f"{scheme}://{url_host}:{port}",
            protocol=ProtocolType.GRPC,
            http_client=Client(transport),
            send_compression=None,
        )
        response = await client.list_workers(ListWorkersRequest())
        return [platform for worker in response.record for platform in worker.platforms]
    finally:
        await transport.aclose()


async def _addresses(host: str, port: int) -> list[str]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [str(address[0]) for *_, address in found]
    return [f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}" for ip in addresses]


def _bytes(text: str | None) -> bytes | None:
    return text.encode() if text else None


def _reason(message: str) -> str:
    """The part of the transport's message that says what happened, without the URL asked for."""
    _, found, reason = message.partition("client error ")
    return f"cannot connect: {reason}" if found else message
