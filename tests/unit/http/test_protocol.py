import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from layover.http.protocol import MAX_HEAD_BYTES, BoundedHttpProtocol

pytestmark = pytest.mark.anyio

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def answer_with_length(_scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the whole body and answers with its length."""
    length, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length += len(message["body"])
        more = message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(length).encode()})


@asynccontextmanager
async def connected(
    protocol: type[BoundedHttpProtocol] = BoundedHttpProtocol,
) -> AsyncIterator[Streams]:
    """A connection to a server of this protocol."""
    config = uvicorn.Config(answer_with_length, lifespan="off", log_config=None)
    config.load()
    state = uvicorn.server.ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: protocol(config, state, {}), "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        yield reader, writer
        writer.close()


async def send(writer: asyncio.StreamWriter, *parts: bytes) -> None:
    """Send parts, each in packets of its own; stop when nobody listens any more."""
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
    except (ConnectionResetError, BrokenPipeError):
        pass


async def received(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the server closes; one that never does fails the test."""
    try:
        async with asyncio.timeout(30):
            return await reader.read(-1)
    except ConnectionResetError:
        return b""


@pytest.mark.parametrize(
    "garbage",
    [b"\x16\x03\x01\r\n\r\n", b"GET /v2/ HTTP/9.9\r\n\r\n", b"nonsense\r\n\r\n"],
    ids=repr,
)
async def test_what_is_no_http_is_refused_in_the_form_of_the_registrys_errors(
    garbage: bytes,
) -> None:
    async with connected() as (reader, writer):
        await send(writer, garbage)
        head, _, body = (await received(reader)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert f"content-length: {len(body)}".encode() in head
    (error,) = json.loads(body)["errors"]
    assert (error["code"], set(error)) == ("UNSUPPORTED", {"code", "message", "detail"})


@pytest.mark.parametrize(
    "start", [b"GET / HTTP/1.1\r\nX: ", b"GET /", b"GET / HTTP/1.1\r\nX", b""], ids=repr
)
async def test_a_head_without_end_is_cut_off(start: bytes) -> None:
    async with connected() as (reader, writer):
        await send(writer, start, *[b"a" * 65_536] * 200)
        answer = await received(reader)
        assert not answer or answer.startswith(b"HTTP/1.1 400")


async def test_headers_without_end_are_cut_off() -> None:
    async with connected() as (reader, writer):
        await send(writer, b"GET / HTTP/1.1\r\n", *[b"X: y\r\n" * 10_000] * 200)
        answer = await received(reader)
        assert not answer or answer.startswith(b"HTTP/1.1 400")


async def test_trailers_without_end_are_cut_off() -> None:
    async with connected() as (reader, writer):
        head = b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: "
        await send(writer, head, *[b"a" * 65_536] * 200)
        assert await received(reader) == b""


async def test_a_head_as_long_as_clients_need_is_taken() -> None:
    async with connected() as (reader, writer):
        head = b"GET / HTTP/1.1\r\nConnection: close\r\nX: " + b"a" * (MAX_HEAD_BYTES - 1000)
        await send(writer, *[head[start : start + 5000] for start in range(0, len(head), 5000)])
        await send(writer, b"\r\n\r\n")
        assert (await received(reader)).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_may_be_of_any_length(chunked: bool) -> None:
    size, count = 65_536, 100
    async with connected() as (reader, writer):
        if chunked:
            framing, pieces = "Transfer-Encoding: chunked", [b"10000\r\n" + b"a" * size + b"\r\n"]
        else:
            framing, pieces = f"Content-Length: {size * count}", [b"a" * size]
        head = f"PUT / HTTP/1.1\r\nConnection: close\r\n{framing}\r\n\r\n".encode()
        await send(writer, head, *pieces * count, b"0\r\n\r\n" if chunked else b"")
        answer = await received(reader)
        assert answer.startswith(b"HTTP/1.1 200")
        assert str(size * count).encode() in answer


async def test_each_request_of_a_connection_has_a_head_of_its_own() -> None:
    request = b"GET / HTTP/1.1\r\nX: " + b"a" * 60_000 + b"\r\n\r\n"
    async with connected() as (reader, writer):
        for _ in range(10):
            await send(writer, request)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            await reader.readexactly(len(b"1\r\n0\r\n0\r\n\r\n"))


class Impatient(BoundedHttpProtocol):
    head_seconds = 0.0


@pytest.mark.parametrize("start", [b"", b"GET / HTTP/1.1\r\n"])
async def test_a_head_that_does_not_come_is_not_waited_for(start: bytes) -> None:
    async with connected(Impatient) as (reader, writer):
        await send(writer, start)
        assert await received(reader) == b""


async def test_a_request_whose_head_has_come_takes_its_time() -> None:
    async with connected() as (reader, writer):
        await send(writer, b"PUT / HTTP/1.1\r\nContent-Length: 1\r\nConnection: close\r\n\r\n")
        await asyncio.sleep(0)
        await send(writer, b"a")
        assert (await received(reader)).startswith(b"HTTP/1.1 200")
