import asyncio
from ipaddress import ip_network
from typing import Any

import pytest
import structlog
from starlette.types import Message, Receive, Scope, Send
from structlog.testing import capture_logs

from layover.http.middleware.requests import RequestMiddleware
from layover.http.origin import TrustedProxies, origin
from layover.identity.origin import Origin

pytestmark = pytest.mark.anyio

START: Message = {"type": "http.response.start", "status": 204, "headers": [(b"a", b"b")]}
END: Message = {"type": "http.response.body", "body": b""}


async def nothing() -> Message:
    return {"type": "http.disconnect"}


async def call(app: Any, **scope: Any) -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    asked = {
        **{"type": "http", "method": "GET", "path": "/a", "raw_path": b"/a", "headers": []},
        **scope,
    }
    await RequestMiddleware(app, TrustedProxies([ip_network("10.0.0.0/8")]))(asked, nothing, send)
    return sent


async def serves(_scope: Scope, _receive: Receive, send: Send) -> None:
    structlog.get_logger("test").info("worked")
    await send(START)
    await send(END)


async def test_a_request_is_logged_once_with_the_id_that_its_answer_carries() -> None:
    with capture_logs([structlog.contextvars.merge_contextvars]) as logs:
        sent = await call(serves, client=("192.0.2.1", 5))
    ids = {value.decode() for name, value in sent[0]["headers"] if name == b"x-request-id"}
    assert (b"a", b"b") in sent[0]["headers"]
    assert {entry["request_id"] for entry in logs if "request_id" in entry} == ids
    served = [entry for entry in logs if entry["event"] == "request_served"]
    assert [(entry["status"], entry["client"]) for entry in served] == [(204, "192.0.2.1")]


async def test_who_calls_is_known_behind_a_proxy_wherever_the_request_is_served() -> None:
    seen: list[tuple[Any, Origin]] = []

    async def looks(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((scope["client"], origin()))
        await serves(scope, receive, send)

    with capture_logs() as logs:
        sent = await call(
            looks,
            client=("10.1.2.3", 5),
            headers=[(b"x-forwarded-for", b"192.0.2.1"), (b"user-agent", b"docker/27")],
        )
    ((client, found),) = seen
    assert client == ("192.0.2.1", 0)
    assert (found.address, found.user_agent) == ("192.0.2.1", "docker/27")
    assert (b"x-request-id", found.request_id.encode()) in sent[0]["headers"]
    assert [entry["client"] for entry in logs if "client" in entry] == ["192.0.2.1"]


async def test_a_bug_is_told_without_a_word_about_it_and_logged() -> None:
    async def fails(*_: Any) -> None:
        raise RuntimeError("a secret in the database")

    with capture_logs() as logs:
        sent = await call(fails)
    assert sent[0]["status"] == 500
    assert b"internal error" in sent[1]["body"]
    assert b"secret" not in sent[1]["body"]
    assert {"request_failed", "request_served"} == {entry["event"] for entry in logs}


async def test_an_answer_that_has_begun_is_cut_off_by_a_bug() -> None:
    async def fails(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(START)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await call(fails)


async def test_neither_query_nor_control_characters_reach_the_log() -> None:
    with capture_logs() as logs:
        await call(
            serves, path="/a\x1b[2J\nb", raw_path=b"/a%1b[2J%0ab", query_string=b"token=secret"
        )
    assert "secret" not in repr(logs)
    assert [entry["path"] for entry in logs if "path" in entry] == ["/a%1b[2J%0ab"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_a_health_check_is_not_worth_a_line(path: str) -> None:
    with capture_logs() as logs:
        await call(serves, path=path)
    assert "request_served" not in {entry["event"] for entry in logs}


async def test_a_canceled_request_is_logged_and_stays_canceled() -> None:
    async def waits(*_: Any) -> None:
        await asyncio.Event().wait()

    with capture_logs() as logs:
        task = asyncio.create_task(call(waits))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert [entry["status"] for entry in logs] == [None]


async def test_what_is_no_http_request_passes_untouched() -> None:
    seen = []

    async def lifespan(scope: Scope, *_: Any) -> None:
        seen.append(scope["type"])

    assert await call(lifespan, type="lifespan") == []
    assert seen == ["lifespan"]
