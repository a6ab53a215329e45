"""A stranger's document is read within bounds, and its errors quote nothing of it."""

import asyncio
import gzip

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layover.outbound.client import outbound_client
from layover.outbound.documents import DocumentUnavailable, fetch_json, parse_json
from layover.outbound.rules import LOOPBACK, AddressForbidden, DialForbidden, OutboundRules
from tests.unit.outbound.server import Answer, LocalServer, listening, plain

pytestmark = pytest.mark.anyio


async def fetched(answer: Answer, seconds: float = 10) -> tuple[object, LocalServer]:
    async with listening() as server:
        server.answer = answer
        rules = OutboundRules(LOOPBACK, frozenset({f"127.0.0.1:{server.port}"}))
        async with outbound_client(rules) as client:
            document = await fetch_json(
                client,
                f"http://127.0.0.1:{server.port}/keys",
                max_bytes=1000,
                timeout_seconds=seconds,
            )
        return document, server


async def test_a_document_is_read_and_asked_for_uncompressed() -> None:
    document, server = await fetched(plain(b'{"keys": []}'))
    assert document == {"keys": []}
    assert "accept-encoding: identity" in server.heard[0].lower()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (plain(b"secret", "404 Not Found"), "status 404"),
        (plain(b"", "302 Found", "Location: https://elsewhere.example/secret"), "status 302"),
        (plain(b"secret"), "not JSON"),
        (plain(b"[" * 900), "not JSON"),
        (plain(b"\xff{}"), "not JSON"),
        (plain(b'"' + b"x" * 1000 + b'"'), "more than 1000 bytes"),
        (plain(gzip.compress(b"[]"), "200 OK", "Content-Encoding: gzip"), "compressed"),
    ],
)
async def test_an_answer_that_is_no_such_document_is_told_without_quoting_it(
    answer: Answer, reason: str
) -> None:
    with pytest.raises(DocumentUnavailable, match=reason) as refused:
        await fetched(answer)
    assert "secret" not in str(refused.value)


async def test_an_answer_without_end_is_given_up_on() -> None:
    async def drips(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            # Each part is in time; all of them never are.
            writer.write(b"1\r\n \r\n")
            await writer.drain()
            await asyncio.sleep(0.01)

    with pytest.raises(DocumentUnavailable, match="longer than"):
        await fetched(drips, seconds=0.1)


async def test_a_host_that_is_not_there_is_told_as_a_document_that_is_not() -> None:
    async with listening() as server:
        port = server.port
    rules = OutboundRules(LOOPBACK, frozenset({f"127.0.0.1:{port}"}))
    async with outbound_client(rules) as client:
        with pytest.raises(DocumentUnavailable, match="cannot be read"):
            await fetch_json(client, f"http://127.0.0.1:{port}/", max_bytes=10, timeout_seconds=5)


@pytest.mark.parametrize(
    "url", ["https://", "https://[", "https://a\x00b/", "https://" + "a" * 300]
)
async def test_what_is_no_url_is_asked_for_nowhere(url: str) -> None:
    async with outbound_client(OutboundRules()) as client:
        with pytest.raises((DocumentUnavailable, DialForbidden)):
            await fetch_json(client, url, max_bytes=10, timeout_seconds=5)


async def test_where_the_server_may_not_dial_is_told_as_that() -> None:
    async with outbound_client(OutboundRules()) as client:
        with pytest.raises(AddressForbidden):
            await fetch_json(client, "https://127.0.0.1/", max_bytes=10, timeout_seconds=5)


@given(content=st.binary())
def test_any_bytes_are_json_or_refused(content: bytes) -> None:
    try:
        parse_json(content, "there")
    except DocumentUnavailable as refused:
        assert str(refused) == "there is not JSON"


async def test_the_client_asks_as_what_it_is() -> None:
    async with outbound_client(OutboundRules()) as client:
        assert client.headers["user-agent"] == "layover"
        assert isinstance(client.timeout, httpx.Timeout)
