"""Following a build's steps on its builder: BuildKit's Control/Status, over gRPC."""

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from connectrpc.code import Code
from connectrpc.errors import ConnectError
from connectrpc.protocol import ProtocolType
from pyqwest import Client as HTTPClient
from pyqwest import HTTPTransport, HTTPVersion, Proxy

from layover.client.errors import ClientError
from layover.client.wire import from_connect
from layover.rpc.moby.buildkit.v1.control_connect import ControlClient
from layover.rpc.moby.buildkit.v1.control_pb import StatusRequest, StatusResponse

# buildx names a build before it sends it: the builder may hear of it a moment later.
_APPEARS_WITHIN_SECONDS = 15.0
_PAUSE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class BuilderAddress:
    """Where a builder listens, and how to know each other: PEM texts, or none for plain text."""

    endpoint: str
    server_name: str = ""
    ca_cert: str = ""
    cert: str = field(default="", repr=False)
    key: str = field(default="", repr=False)

    @property
    def url(self) -> str:
        """The endpoint as buildx wants it, with its scheme."""
        return self.endpoint if "://" in self.endpoint else f"tcp://{self.endpoint}"

    @property
    def uses_tls(self) -> bool:
        return bool(self.ca_cert)


class Builder:
    """A connection to a builder. Use it as a context manager."""

    def __init__(self, address: BuilderAddress) -> None:
        self.address = address
        self._transport: HTTPTransport | None = None
        self._client: ControlClient | None = None

    async def __aenter__(self) -> Self:
        parts = urlsplit(self.address.url)
        if parts.scheme not in ("tcp", "https", "http") or not parts.hostname:
            raise ClientError(f"cannot follow a build at {self.address.endpoint}")
        host, port = parts.hostname, parts.port or 443
        name = self.address.server_name or host
        overrides: dict[str, list[str]] = {}
        if self.address.uses_tls and name != host and not _is_ip(name):
            # The certificate's name is not the address: dial the address under that name.
            overrides = {name: await _resolve(host, port)}
            host = name
        shown = f"[{host}]" if ":" in host else host
        self._transport = HTTPTransport(
            tls_ca_cert=self.address.ca_cert.encode() or None,
            tls_cert=self.address.cert.encode() or None,
            tls_key=self.address.key.encode() or None,
            http_version=HTTPVersion.HTTP2,
            connect_timeout=10,
            # A builder is reached as buildx reaches it, which takes no HTTP proxy for it; an
            # explicit proxy that serves no host keeps the environment's from being used. The
            # star stands for names alone (pyqwest 0.12).
            proxy=Proxy("http://proxy.invalid", no_proxy="0.0.0.0/0,::/0,*"),
            use_system_dns=True,
            dns_overrides=overrides or None,
            follow_redirects=False,
        )
        scheme = "https" if self.address.uses_tls else "http"
        self._client = ControlClient(
            f"{scheme}://{shown}:{port}",
            protocol=ProtocolType.GRPC,
            http_client=HTTPClient(self._transport),
            # BuildKit registers no compressor.
            send_compression=None,
            accept_compression=(),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._transport is not None:
            await self._transport.aclose()

    async def follow(self, ref: str) -> AsyncIterator[StatusResponse]:
        """What the build does, from its beginning to its end; an ended one is replayed.

        Waits for a build that the builder does not know yet. Raises a ClientError when the
        builder cannot be followed, which says nothing about the build itself.
        """
        if self._client is None:
            raise RuntimeError("follow() needs an entered Builder")
        deadline = asyncio.get_running_loop().time() + _APPEARS_WITHIN_SECONDS
        while True:
            heard = False
            try:
                async for status in self._client.status(StatusRequest(ref=ref)):
                    heard = True
                    yield status
                return
            except ConnectError as error:
                unknown = error.code in (Code.NOT_FOUND, Code.UNAVAILABLE, Code.UNKNOWN)
                too_late = asyncio.get_running_loop().time() > deadline
                # After the first word a new try would tell everything a second time.
                if heard or not unknown or too_late:
                    raise from_connect(error, self.address.endpoint) from error
            await asyncio.sleep(_PAUSE_SECONDS)


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def _resolve(host: str, port: int) -> list[str]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ClientError(f"cannot resolve the builder's name {host}: {error}") from error
    addresses = dict.fromkeys(str(entry[4][0]) for entry in found)
    return [f"[{a}]:{port}" if ":" in a else f"{a}:{port}" for a in addresses]
