import json
from functools import partial

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message

from layover.http.gate import Gate
from layover.http.middleware import surrounded
from layover.http.origin import TrustedProxies
from tests.unit.http.oci.requests import request

pytestmark = pytest.mark.anyio


async def answer(gate: Gate, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    asked = request(method, path)
    await gate(asked.scope, asked.receive, send)
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent[1:])


@pytest.fixture
def missing() -> dict[str, str]:
    return {"database": "away"}


@pytest.fixture
def gate(missing: dict[str, str]) -> Gate:
    return Gate(missing, partial(surrounded, proxies=TrustedProxies(), https=False))


async def test_a_starting_server_is_alive_and_says_what_it_waits_for(
    gate: Gate, missing: dict[str, str]
) -> None:
    status, _, body = await answer(gate, "/healthz")
    assert (status, json.loads(body)) == (200, {"status": "ok"})
    status, _, body = await answer(gate, "/readyz")
    assert (status, json.loads(body)["checks"]) == (503, {"database": "away"})
    missing["database"] = "still away"
    assert json.loads((await answer(gate, "/readyz"))[2])["checks"] == {"database": "still away"}


@pytest.mark.parametrize("path", ["/v2", "/v2/", "/v2/p/app/manifests/latest", "/token"])
@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_the_registry_refuses_in_the_specifications_form(
    gate: Gate, method: str, path: str
) -> None:
    status, headers, body = await answer(gate, path, method)
    assert status == 503
    assert headers["docker-distribution-api-version"] == "registry/2.0"
    assert "x-request-id" in headers
    assert "sandbox" in headers["content-security-policy"]
    assert "retry-after" in headers
    (error,) = json.loads(body)["errors"]
    assert set(error) == {"code", "message", "detail"}


@pytest.mark.parametrize("path", ["/depot.cli.v1.BuildService/CreateBuild", "/v2x"])
async def test_everything_else_is_refused_in_connects_form(gate: Gate, path: str) -> None:
    status, headers, body = await answer(gate, path, "POST")
    assert status == 503
    assert headers["content-type"] == "application/json"
    assert json.loads(body)["code"] == "unavailable"


async def test_the_application_answers_once_it_is_there(gate: Gate) -> None:
    assert not gate.is_open
    gate.open(PlainTextResponse("here"))
    assert gate.is_open
    for path in ("/healthz", "/v2/", "/x"):
        assert (await answer(gate, path))[2] == b"here"
