from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from layover.http.middleware import surrounded
from layover.http.middleware.headers import SecurityHeaders
from layover.http.origin import TrustedProxies

pytestmark = pytest.mark.anyio


async def headers_of(app: Any, *own: tuple[bytes, bytes]) -> dict[bytes, list[bytes]]:
    """The headers of an answer that sets `own`, by name."""

    async def answers(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(own)})
        await send({"type": "http.response.body", "body": b""})

    return found(await call(app(answers)))


async def call(app: Any) -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "headers": []}
    await app(scope, receive, send)
    return sent


def found(sent: list[Message]) -> dict[bytes, list[bytes]]:
    headers: dict[bytes, list[bytes]] = {}
    for name, value in sent[0]["headers"]:
        headers.setdefault(name, []).append(value)
    return headers


def plain(app: Any) -> SecurityHeaders:
    return SecurityHeaders(app, https=False)


def tls(app: Any) -> SecurityHeaders:
    return SecurityHeaders(app, https=True)


async def test_an_answer_may_do_nothing_in_a_browser() -> None:
    headers = await headers_of(plain, (b"content-type", b"text/html"))
    assert headers == {
        b"content-type": [b"text/html"],
        b"x-content-type-options": [b"nosniff"],
        b"x-frame-options": [b"DENY"],
        b"referrer-policy": [b"no-referrer"],
        b"content-security-policy": [b"default-src 'none'; frame-ancestors 'none'; sandbox"],
        b"cross-origin-resource-policy": [b"same-origin"],
        b"cache-control": [b"no-store"],
    }


async def test_what_an_answer_says_itself_stays_and_is_said_once() -> None:
    own = (
        (b"content-security-policy", b"default-src 'self'"),
        (b"referrer-policy", b"same-origin"),
        (b"cache-control", b"private"),
    )
    headers = await headers_of(plain, *own)
    for name, value in own:
        assert headers[name] == [value]
    assert headers[b"x-content-type-options"] == [b"nosniff"]
    assert all(len(values) == 1 for values in headers.values())


async def test_what_can_be_asked_about_again_may_be_stored() -> None:
    headers = await headers_of(plain, (b"etag", b'"sha256:0"'))
    assert b"cache-control" not in headers
    assert b"content-security-policy" in headers


async def test_a_browser_stays_with_https_where_clients_use_it_and_only_there() -> None:
    assert (await headers_of(tls))[b"strict-transport-security"] == [b"max-age=31536000"]
    assert b"strict-transport-security" not in await headers_of(plain)


async def test_a_bugs_answer_has_them_too() -> None:
    async def fails(*_: Any) -> None:
        raise RuntimeError

    sent = await call(surrounded(fails, TrustedProxies(), https=False))
    assert sent[0]["status"] == 500
    assert found(sent)[b"x-content-type-options"] == [b"nosniff"]


async def test_what_is_no_http_request_passes_untouched() -> None:
    seen = []

    async def lifespan(scope: Scope, *_: Any) -> None:
        seen.append(scope["type"])

    async def nothing(*_: Any) -> Any:
        raise AssertionError

    await plain(lifespan)({"type": "lifespan"}, nothing, nothing)
    assert seen == ["lifespan"]
