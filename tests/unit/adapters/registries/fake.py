"""A registry in the tests' own process, whose every answer can be another than it should be."""

import asyncio
import contextlib
import hashlib
import re
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET
from urllib.parse import parse_qs, unquote, urlsplit

from layover.adapters.registries.registry import HttpRegistries
from layover.adapters.registries.retries import Time
from layover.oci.digest import Digest
from layover.oci.names import RepositoryName
from layover.oci.references import Place
from layover.outbound.client import outbound_client
from layover.outbound.rules import LOOPBACK, OutboundRules
from layover.promotion.models import Authorization
from layover.promotion.ports import AuthorizationOf, Registry

REPOSITORY = "acme/app"

# Made once: that takes longer than most tests.
_CONTEXT = ssl.create_default_context()


@dataclass(frozen=True)
class Reply:
    """An answer in place of the registry's own."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Break:
    """The connection is reset when so much of the content has arrived, and that much was kept or
    not; or, with `answered`, when the request was done and only its answer is lost."""

    after_bytes: int = 0
    is_kept: bool = False
    is_answered: bool = False


@dataclass(frozen=True)
class Silence:
    """Nothing is read any more, and nothing said, after so much of the content."""

    after_bytes: int = 0


@dataclass(frozen=True)
class Heard:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class FakeRegistry:
    """It takes blobs and manifests as distribution-spec v1.1.1 says, of one repository."""

    host: str = ""
    location: Callable[[str], str] = field(default=lambda path: path)
    """What `Location` has for a path."""
    takes_chunks: bool = True
    status_of_chunk: int = 416
    mounts: bool = True
    names_digests: bool = True
    least_chunk_bytes: int = 0
    most_of_chunk: int | None = None
    """How much it takes of a chunk, whatever is sent."""
    largest_bytes: int | None = None
    """Of a request, in front of it."""
    secret: str | None = None
    """What `Authorization` is to be; None for whatever there is."""
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    sessions: dict[str, bytearray] = field(default_factory=dict)
    heard: list[Heard] = field(default_factory=list)
    hellos: int = 0
    """How often somebody tried TLS where there is none."""
    instead: list[tuple[str, Reply | Break | Silence]] = field(default_factory=list)
    """What comes in place of the answer to the next request that "METHOD TARGET" matches."""

    @property
    def place(self) -> Place:
        return Place(self.host, RepositoryName(REPOSITORY))

    def methods(self) -> list[str]:
        return [heard.method for heard in self.heard]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                first = await reader.readexactly(1)
                if first == b"\x16":  # TLS, where there is none: every server answers so
                    self.hellos += 1
                    writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
                    break
                head = (first + await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                method, target, _ = head[0].split(" ")
                headers = {
                    name.lower(): value.strip()
                    for name, _, value in (line.partition(":") for line in head[1:] if line)
                }
                instead = self._instead(method, target)
                length = int(headers.get("content-length", 0))
                if isinstance(instead, Silence):
                    await reader.readexactly(min(instead.after_bytes, length))
                    self.heard.append(Heard(method, target, headers, b""))
                    await asyncio.Event().wait()
                if isinstance(instead, Break) and not instead.is_answered:
                    body = await reader.readexactly(min(instead.after_bytes, length))
                    self.heard.append(Heard(method, target, headers, body))
                    session = self.sessions.get(_session_id(target))
                    if instead.is_kept and session is not None:
                        session += body
                    _reset(writer)
                    return
                body = await reader.readexactly(length)
                self.heard.append(Heard(method, target, headers, body))
                if isinstance(instead, Reply):
                    reply = instead
                else:
                    reply = self._reply(method, target, headers, body)
                if isinstance(instead, Break):
                    _reset(writer)
                    return
                lines = [f"HTTP/1.1 {reply.status} Status"]
                if "content-length" not in {name.lower() for name in reply.headers}:
                    lines.append(f"Content-Length: {len(reply.body)}")
                lines += [f"{name}: {value}" for name, value in reply.headers.items()]
                content = b"" if method == "HEAD" else reply.body
                writer.write("\r\n".join([*lines, "", ""]).encode() + content)
                await writer.drain()
        writer.close()

    def _instead(self, method: str, target: str) -> Reply | Break | Silence | None:
        for number, (pattern, instead) in enumerate(self.instead):
            if re.match(pattern, f"{method} {unquote(target)}"):
                del self.instead[number]
                return instead
        return None

    def _reply(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Reply:
        if self.secret is not None and headers.get("authorization") != self.secret:
            return error(401, "UNAUTHORIZED", "authentication required")
        if self.largest_bytes is not None and len(body) > self.largest_bytes:
            return Reply(413, {"Content-Type": "text/html"}, b"<h1>Too large</h1>")
        parts = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        path = parts.path.removeprefix(f"/v2/{REPOSITORY}/")
        if path == "blobs/uploads/":
            return self._begin(query)
        if path.startswith("blobs/uploads/"):
            return self._upload(method, _session_id(target), query, headers, body)
        if path.startswith("blobs/"):
            found = self.blobs.get(path.removeprefix("blobs/"))
            if found is None:
                return Reply(404)
            return Reply(200, {"Content-Length": str(len(found))}, found)
        return self._manifest(method, path.removeprefix("manifests/"), headers, body)

    def _begin(self, query: dict[str, str]) -> Reply:
        if self.mounts and query.get("mount") in self.blobs:
            return Reply(201, {"Location": f"/v2/{REPOSITORY}/blobs/{query['mount']}"})
        name = f"session{len(self.sessions)}"
        self.sessions[name] = bytearray()
        more = {"OCI-Chunk-Min-Length": str(self.least_chunk_bytes)}
        return self._stands(202, name, more if self.least_chunk_bytes else {})

    def _stands(self, status: int, name: str, more: dict[str, str] | None = None) -> Reply:
        path = f"/v2/{REPOSITORY}/blobs/uploads/{name}?state=a%2Fb"
        last = max(len(self.sessions[name]) - 1, 0)
        headers = {"Location": self.location(path), "Range": f"0-{last}", **(more or {})}
        return Reply(status, headers)

    def _upload(
        self, method: str, name: str, query: dict[str, str], headers: dict[str, str], body: bytes
    ) -> Reply:
        session = self.sessions.get(name)
        if session is None or query.get("state") != "a/b":
            return error(404, "BLOB_UPLOAD_UNKNOWN", "no such upload")
        if method == "DELETE":
            del self.sessions[name]
            return Reply(204)
        if method == "GET":
            return self._stands(204, name)
        if method == "PATCH":
            start = int(headers["content-range"].partition("-")[0])
            if not self.takes_chunks:
                return error(self.status_of_chunk, "UNSUPPORTED", "no chunks here")
            if start != len(session):
                return error(416, "BLOB_UPLOAD_INVALID", "not there")
            session += body[: self.most_of_chunk]
            return self._stands(202, name)
        session += body
        digest = query["digest"]
        if f"sha256:{hashlib.sha256(session).hexdigest()}" != digest:
            del self.sessions[name]
            return error(400, "DIGEST_INVALID", "provided digest did not match")
        self.blobs[digest] = bytes(self.sessions.pop(name))
        return Reply(201, {"Docker-Content-Digest": digest} if self.names_digests else {})

    def _manifest(self, method: str, reference: str, headers: dict[str, str], body: bytes) -> Reply:
        if method == "PUT":
            self.manifests[reference] = (headers["content-type"], body)
        if reference not in self.manifests:
            return error(404, "MANIFEST_UNKNOWN", "no such manifest")
        media_type, content = self.manifests[reference]
        digest = {"Docker-Content-Digest": str(Digest.of(content))} if self.names_digests else {}
        if method == "PUT":
            return Reply(201, digest)
        return Reply(200, {"Content-Type": media_type, **digest}, content)


def error(status: int, code: str, message: str) -> Reply:
    """What a registry says that refuses (distribution-spec v1.1.1, "Error Codes")."""
    body = f'{{"errors": [{{"code": "{code}", "message": "{message}"}}]}}'
    return Reply(status, {"Content-Type": "application/json"}, body.encode())


def _session_id(target: str) -> str:
    return urlsplit(target).path.rpartition("/")[2]


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection as a crash does, with RST."""
    writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextlib.asynccontextmanager
async def serving(
    host: str = "127.0.0.1", context: ssl.SSLContext | None = None
) -> AsyncIterator[FakeRegistry]:
    """A registry until the block ends."""
    registry = FakeRegistry()
    server = await asyncio.start_server(registry.serve, host, 0, ssl=context)
    registry.host = f"{host}:{server.sockets[0].getsockname()[1]}"
    try:
        yield registry
    finally:
        server.close()


@dataclass
class FakeTime:
    """Time that passes only when somebody sleeps."""

    seconds: float = 0.0
    answer_seconds: float = 60.0
    commit_seconds: float = 600.0
    """These two are of the real clock."""
    slept: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds
        await asyncio.sleep(0)

    def time(self) -> Time:
        start = datetime(2026, 1, 1, tzinfo=UTC)
        return Time(
            monotonic=lambda: self.seconds,
            now=lambda: start + timedelta(seconds=self.seconds),
            sleep=self.sleep,
            random=lambda: 1.0,
            answer_seconds=self.answer_seconds,
            commit_seconds=self.commit_seconds,
        )


@contextlib.asynccontextmanager
async def dialling(
    *hosts: str,
    authorization: AuthorizationOf = lambda place: None,
    time: FakeTime | None = None,
    chunk_bytes: int = 1000,
    ca: Path | None = None,
) -> AsyncIterator[Registry]:
    """What a push sees of registries, of which these hosts may be reached without TLS."""
    rules = OutboundRules(LOOPBACK[:1], frozenset(hosts))
    context = None if ca is not None else _CONTEXT
    async with outbound_client(rules, ca, context=context) as client:
        registries = HttpRegistries(
            client, rules, time=(time or FakeTime()).time(), chunk_bytes=chunk_bytes
        )
        yield registries.open(authorization)


def showing(authorization: Authorization | None) -> AuthorizationOf:
    return lambda place: authorization
