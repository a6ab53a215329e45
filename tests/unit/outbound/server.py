"""A real HTTP server on an address of this machine, which tests dial through the rules."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from tests.certificates import Certificates

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


def plain(content: bytes, status: str = "200 OK", *headers: str) -> Answer:
    """An answer with this content."""

    async def write(writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", *headers, "", ""]
        writer.write("\r\n".join(lines).encode() + content)
        await writer.drain()

    return write


@dataclass
class LocalServer:
    """Answers each request as `answer` does, and remembers the heads that it heard."""

    host: str
    port: int = 0
    answer: Answer = field(default_factory=lambda: plain(b"{}"))
    heard: list[str] = field(default_factory=list)
    connections: int = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heard.append(head.decode())
                await self.answer(writer)
        writer.close()


@contextlib.asynccontextmanager
async def listening(
    host: str = "127.0.0.1", port: int = 0, certificates: Certificates | None = None
) -> AsyncIterator[LocalServer]:
    """Listen until the block ends."""
    context = None
    if certificates is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificates.certificate, certificates.key)
    local = LocalServer(host)
    server = await asyncio.start_server(local.handle, host, port, ssl=context)
    local.port = server.sockets[0].getsockname()[1]
    try:
        yield local
    finally:
        server.close()


@dataclass
class FakeResolver:
    """A name server whose answers are a test's; the last one stays."""

    answers: list[list[str]]
    asked: list[str] = field(default_factory=list)

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
