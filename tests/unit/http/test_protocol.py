import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from layover.http import protocol as protocol_module
from layover.http.protocol import MAX_HEAD_BYTES, BoundedHttpProtocol
from layover.oci.digest import Digest
from tests.contract.registry_api import USER, RegistryApi
from tests.stores import REPOSITORY, opened

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


async def answer_at_once(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Reads nothing."""
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]}
    )
    await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def connected(
    protocol: type[BoundedHttpProtocol] = BoundedHttpProtocol,
    app: ASGIApp = answer_with_length,
) -> AsyncIterator[Streams]:
    """A connection to a server of this protocol."""
    config = uvicorn.Config(app, lifespan="off", log_config=None, ws="none")
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
    assert b"content-security-policy: default-src 'none'" in head


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


# --- bodies that do not come ---------------------------------------------------------------------

UPLOAD = b"PATCH /v2/p/blobs/uploads/abc HTTP/1.1\r\n"
CALL = b"POST /layover.v1.BuildsService/ListBuilds HTTP/1.1\r\n"
MANIFEST = b"PUT /v2/p/manifests/latest HTTP/1.1\r\n"
STREAM = CALL + b"Content-Type: application/connect+proto\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


class ImpatientOfBodies(BoundedHttpProtocol):
    body_seconds = 0.1
    upload_idle_seconds = 0.1
    stream_idle_seconds = 0.1


@pytest.mark.parametrize("start", [UPLOAD, CALL, MANIFEST, STREAM], ids=repr)
@pytest.mark.parametrize(
    "framing", [b"Content-Length: 9\r\n\r\n", b"Content-Length: 9\r\n\r\nabc", CHUNKED]
)
async def test_a_body_that_does_not_come_is_not_waited_for(start: bytes, framing: bytes) -> None:
    async with connected(ImpatientOfBodies) as (reader, writer):
        await send(writer, start, framing)
        answer = await received(reader)
    assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert answer.count(b"HTTP/1.1") == 1


class Watched(BoundedHttpProtocol):
    """By a clock of its own: time passes when a test says so."""

    body_seconds = upload_idle_seconds = stream_idle_seconds = 3600.0
    # Each protocol once for every time that something arrived.
    arrived: "asyncio.Queue[Watched]"

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.arrived.put_nowait(self)

    def let_time_pass(self) -> None:
        """A quarter of what is allowed."""
        assert self._body_timer is not None
        self._body_timer.cancel()
        self._look()


@asynccontextmanager
async def watched(start: bytes) -> AsyncIterator[tuple[Streams, Watched]]:
    """A connection on which a request of ten bytes came, and the first of them."""

    class Own(Watched):
        arrived = asyncio.Queue()

    async with connected(Own) as (reader, writer):
        await send(writer, start + b"Connection: close\r\nContent-Length: 10\r\n\r\na")
        yield (reader, writer), await Own.arrived.get()


@pytest.mark.parametrize("start", [UPLOAD, STREAM], ids=repr)
async def test_an_upload_or_a_stream_lasts_as_long_as_something_comes(start: bytes) -> None:
    async with watched(start) as ((reader, writer), protocol):
        for _ in range(9):
            for _ in range(3):
                protocol.let_time_pass()
            await send(writer, b"a")
            await protocol.arrived.get()
        answer = await received(reader)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"10" in answer


@pytest.mark.parametrize("start", [CALL, MANIFEST], ids=repr)
async def test_a_body_that_is_no_upload_has_its_time_in_all(start: bytes) -> None:
    async with watched(start) as ((reader, writer), protocol):
        for _ in range(3):
            protocol.let_time_pass()
            await send(writer, b"a")
            await protocol.arrived.get()
        protocol.let_time_pass()
        assert (await received(reader)).startswith(b"HTTP/1.1 408")


async def test_a_large_message_has_longer_on_a_slow_line(monkeypatch: pytest.MonkeyPatch) -> None:
    # Nine bytes are worth a third of what is allowed.
    monkeypatch.setattr(protocol_module, "SLOWEST_BYTES_PER_SECOND", 9 / 1200)
    async with watched(CALL) as ((reader, writer), protocol):
        await send(writer, b"a" * 8)
        await protocol.arrived.get()
        for _ in range(4):
            protocol.let_time_pass()
        assert not protocol.transport.is_closing()
        protocol.let_time_pass()
        assert (await received(reader)).startswith(b"HTTP/1.1 408")


async def test_time_in_which_the_server_does_not_read_is_not_the_clients() -> None:
    reads = asyncio.Event()

    async def busy(scope: Scope, receive: Receive, send: Send) -> None:
        await reads.wait()
        await answer_with_length(scope, receive, send)

    size = 1 << 20
    async with connected(ImpatientOfBodies, busy) as (reader, writer):
        await send(writer, UPLOAD + b"Connection: close\r\n")
        await send(writer, b"Content-Length: %d\r\n\r\n" % size)
        sending = asyncio.create_task(send(writer, *[bytes(1 << 16)] * 16))
        # Longer than the client could be silent.
        await asyncio.sleep(0.3)
        reads.set()
        answer = await received(reader)
        await sending
    assert answer.startswith(b"HTTP/1.1 200")
    assert str(size).encode() in answer


async def test_who_waits_to_be_asked_for_a_body_is_not_hurried() -> None:
    reads = asyncio.Event()

    async def busy(scope: Scope, receive: Receive, send: Send) -> None:
        await reads.wait()
        await answer_with_length(scope, receive, send)

    async with connected(ImpatientOfBodies, busy) as (reader, writer):
        head = b"Connection: close\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n"
        await send(writer, UPLOAD + head)
        await asyncio.sleep(0.3)
        reads.set()
        assert (await reader.readline()).startswith(b"HTTP/1.1 100")
        await send(writer, b"a")
        assert b"HTTP/1.1 200" in await received(reader)


async def test_the_application_is_told_that_a_body_was_given_up() -> None:
    told: asyncio.Queue[str] = asyncio.Queue()

    async def reads(_scope: Scope, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] != "http.disconnect":
            await told.put(message["body"].decode())
        await told.put(message["type"])
        # What it says now reaches nobody.
        await answer_at_once(_scope, receive, send)

    async with connected(ImpatientOfBodies, reads) as (reader, writer):
        await send(writer, UPLOAD + b"Content-Length: 9\r\n\r\nabc")
        answer = await received(reader)
        async with asyncio.timeout(30):
            assert [await told.get(), await told.get()] == ["abc", "http.disconnect"]
    assert answer.count(b"HTTP/1.1") == 1


async def test_an_upload_that_was_given_up_is_gone_on_with_where_it_stopped(tmp_path: Path) -> None:
    with opened(tmp_path) as stores:
        api = RegistryApi(stores)
        started = await api.call(USER, "POST", f"/v2/{REPOSITORY}/blobs/uploads/")
        session = started.headers["location"]
        head = f"PATCH {session} HTTP/1.1\r\nContent-Length: 9\r\n"
        credentials = base64.b64encode(f"x-token:{await api.token(USER)}".encode()).decode()
        ended = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await api.app(scope, receive, send)
            ended.set()

        async with connected(ImpatientOfBodies, app) as (reader, writer):
            await send(writer, f"{head}Authorization: Basic {credentials}\r\n\r\nabc".encode())
            assert (await received(reader)).startswith(b"HTTP/1.1 408")
        # What came is written down by the very request that was given up.
        async with asyncio.timeout(30):
            await ended.wait()
        found = await api.call(USER, "GET", session)
        assert (found.status, found.headers["range"]) == (204, "0-2")
        rest = {"Content-Range": "3-8"}
        assert (await api.call(USER, "PATCH", session, b"defghi", rest)).status == 202
        digest = Digest.of(b"abcdefghi")
        assert (await api.call(USER, "PUT", f"{session}?digest={digest}")).status == 201


class Unwelcoming(BoundedHttpProtocol):
    unwanted_seconds = 0.1
    head_seconds = 0.1


@pytest.mark.parametrize("body", [b"", b"a"])
async def test_what_was_answered_may_not_go_on_arriving(body: bytes) -> None:
    async with connected(Unwelcoming, answer_at_once) as (reader, writer):
        await send(writer, b"PUT / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n", body)
        assert (await received(reader)).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("rest", [b"", b"\r\n", b"\r\n\r\n"])
async def test_a_connection_is_not_kept_for_nothing(rest: bytes) -> None:
    # Behind a body that came late, or an empty line, uvicorn no longer waits for the next request.
    async with connected(Unwelcoming, answer_at_once) as (reader, writer):
        await send(writer, b"PUT / HTTP/1.1\r\nContent-Length: 1\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        await send(writer, b"a", rest)
        assert await received(reader) == b""


# --- requests that could be read in two ways -----------------------------------------------------

POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "request_",
    [
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na",
        POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\na",
        POST + b"Content-Length: 1, 1\r\n\r\na",
        POST + b"Content-Length: +1\r\n\r\na",
        POST + b"Content-Length: -1\r\n\r\na",
        POST + b"Content-Length: 0x1\r\n\r\na",
        POST + b"Content-Length: 1_0\r\n\r\na",
        POST + b"Content-Length:\r\n\r\na",
        POST + b"Content-Length : 1\r\n\r\na",
        POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"GET / HTTP/1.1\r\nHost: x\nX: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: y\r Z: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: y\r\n z\r\n\r\n",
        b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=repr,
)
async def test_a_request_that_could_be_read_in_two_ways_is_refused_with_all_behind_it(
    request_: bytes,
) -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["path"])
        await answer_at_once(scope, receive, send)

    async with connected(app=app) as (reader, writer):
        await send(writer, request_ + SMUGGLED)
        answer = await received(reader)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert answer.count(b"HTTP/1.1") == 1
    assert "/smuggled" not in seen


@pytest.mark.parametrize(
    "chunk",
    [
        b"1\na\r\n0\r\n\r\n",
        b"1;\nx\r\na\r\n0\r\n\r\n",
        b"0x1\r\na\r\n0\r\n\r\n",
        b"1 \r\na\r\n0\r\n\r\n",
        b"1\r\nab\r\n0\r\n\r\n",
        b"1\r\na0\r\n\r\n",
        b"-1\r\na\r\n0\r\n\r\n",
        b"FFFFFFFFFFFFFFFFF\r\na\r\n0\r\n\r\n",
    ],
    ids=repr,
)
async def test_a_chunk_that_could_be_read_in_two_ways_ends_the_connection(chunk: bytes) -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["path"])
        await answer_with_length(scope, receive, send)

    async with connected(app=app) as (reader, writer):
        await send(writer, POST + CHUNKED + chunk + SMUGGLED)
        answer = await received(reader)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert answer.count(b"HTTP/1.1") == 1
    assert "/smuggled" not in seen


async def test_an_answer_on_its_way_is_cut_off_and_not_mixed_with_a_refusal() -> None:
    begun = asyncio.Event()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"10")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"01234", "more_body": True})
        begun.set()
        await asyncio.Event().wait()

    async with connected(app=app) as (reader, writer):
        await send(writer, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(30):
            await begun.wait()
        await send(writer, b"nonsense\r\n\r\n")
        answer = await received(reader)
    assert answer.endswith(b"\r\n\r\n01234")
    assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("coding", [b"gzip, chunked", b"gzip", b"xchunked", b"identity"])
async def test_a_transfer_coding_that_is_not_known_is_refused(coding: bytes) -> None:
    async with connected() as (reader, writer):
        await send(writer, POST + b"Transfer-Encoding: " + coding + b"\r\n\r\n0\r\n\r\n")
        answer = await received(reader)
    assert answer.split()[1] == b"501"


@pytest.mark.parametrize("method", [b"FOO", b"BREW", b"GE"])
async def test_a_method_that_nobody_knows_is_not_implemented(method: bytes) -> None:
    async with connected() as (reader, writer):
        await send(writer, method + b" /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await received(reader)
    assert answer.startswith(b"HTTP/1.1 501 Not Implemented\r\n")


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c", b"TLS/1.2"])
async def test_who_asks_for_another_protocol_is_answered_in_this_one(protocol: bytes) -> None:
    head = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: " + protocol
    async with connected(app=answer_at_once) as (reader, writer):
        await send(writer, head + b"\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
