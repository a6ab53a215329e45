"""A registry, or a place that it has clients sign in at, whose answers are a test's."""

import asyncio
import base64
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from layover.client.registry_authorization import RegistryAuthorization, authorize
from layover.errors import LayoverError
from layover.oci.references import Destination, Place
from tests.certificates import Certificates

USER, PASSWORD = "ann", "p4ss:wörd-of-ann"
TLS_HANDSHAKE = b"\x16"
TOKEN = "a-t0ken"
IDENTITY = "an-1dentity-token"
PUSH = "repository:acme/app:pull,push"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BASIC = f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"


@dataclass(frozen=True)
class Request:
    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> list[tuple[str, str]]:
        return parse_qsl(urlsplit(self.target).query)

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode()))

    @property
    def authorization(self) -> str:
        return self.headers.get("authorization", "")


@dataclass(frozen=True)
class Reply:
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"{}"
    is_endless: bool = False


def reply_json(
    content: object, headers: Mapping[str, str] | None = None, *, status: int = 200
) -> Reply:
    return Reply(status, headers or {}, json.dumps(content).encode())


def challenge(*values: str) -> Reply:
    return Reply(401, {"www-authenticate": ", ".join(values)})


Handler = Callable[[Request], Reply]
Env = dict[str, str]


@dataclass
class RegistryServer:
    """Answers as `handle` says, and remembers what it heard."""

    host: str
    port: int
    scheme: str
    handle: Handler = field(default=lambda request: Reply())
    heard: list[Request] = field(default_factory=list)
    connections: int = 0

    @property
    def registry(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.registry}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while (begin := await reader.readexactly(1)) != TLS_HANDSHAKE:
                head = (begin + await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                method, target, _ = head[0].split(" ")
                headers = {
                    name.lower(): value
                    for name, _, value in (line.partition(": ") for line in head[1:] if line)
                }
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                request = Request(method, target, headers, body)
                self.heard.append(request)
                await self._reply(writer, self.handle(request))
            # As servers answer who wants TLS where there is none.
            await self._reply(writer, Reply(400))
        writer.close()

    async def _reply(self, writer: asyncio.StreamWriter, reply: Reply) -> None:
        lines = [f"HTTP/1.1 {reply.status} Said"]
        if not reply.is_endless:
            lines.append(f"Content-Length: {len(reply.body)}")
        lines += [f"{name}: {value}" for name, value in reply.headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + reply.body)
        await writer.drain()
        while reply.is_endless:
            writer.write(reply.body)
            await writer.drain()


@contextlib.asynccontextmanager
async def serving(
    certificates: Certificates | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[RegistryServer]:
    """Listen on loopback until the block ends."""
    context = None
    if certificates is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificates.certificate, certificates.key)
    server = RegistryServer(host, 0, "http" if certificates is None else "https")
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()


def log_in(env: Env, *registries: str, **entry: str) -> Env:
    """Note a login in Docker's file."""
    login = entry or {"username": USER, "password": PASSWORD}
    folder = Path(env["HOME"]) / ".docker"
    folder.mkdir(exist_ok=True)
    auths = dict.fromkeys(registries, login)
    (folder / "config.json").write_text(json.dumps({"auths": auths}))
    return env


def place(server: RegistryServer, repository: str = "acme/app") -> Place:
    return Destination.parse(f"{server.registry}/{repository}").place


def with_tokens(server: RegistryServer, answer: Reply | None = None, realm: str = "") -> None:
    """Let the server be a registry, and where it has clients sign in, too."""

    def handle(request: Request) -> Reply:
        if request.path == "/v2/":
            return challenge(f'Bearer realm="{realm or server.url + "/token"}",service="here"')
        if answer is not None:
            return answer
        if request.authorization != BASIC:
            return Reply(401)
        return reply_json({"token": TOKEN, "expires_in": 300})

    server.handle = handle


class Names:
    """A name server of a test's own."""

    def __init__(self, **addresses: str) -> None:
        self._addresses = {name.replace("_", "."): found for name, found in addresses.items()}

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        return [self._addresses.get(host, host)]


async def authorize_one(
    server: RegistryServer, env: Env, resolve: Names | None = None
) -> RegistryAuthorization:
    there = place(server)
    if resolve is None:
        return (await authorize([there], env, now=lambda: NOW))[there]
    return (await authorize([there], env, now=lambda: NOW, resolve=resolve))[there]


def tells_nothing(failure: pytest.ExceptionInfo[LayoverError]) -> bool:
    """Whether the failure, all of it, holds no secret."""
    shown, error = "", failure.value
    cause: BaseException | None = error
    while cause is not None:
        shown += f"{cause!s} {cause!r}"
        cause = cause.__cause__
    return not any(secret in shown for secret in (PASSWORD, IDENTITY, TOKEN, BASIC[6:]))
