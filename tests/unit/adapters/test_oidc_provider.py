from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
from pydantic import SecretStr

from layover.adapters.oidc_provider import FRESH_FOR, RETRY_AFTER, HttpProviderEndpoints
from layover.identity.issuer_keys import IssuerUnavailable
from layover.identity.sign_in_models import ProviderRefused

pytestmark = pytest.mark.anyio

ISSUER = "https://login.example.com"
Answer = Callable[[httpx.Request], httpx.Response]


class World:
    """A provider that answers as a test says, and a clock that stands still."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.asked: list[httpx.Request] = []
        self.discovery: dict[str, Any] = {
            "issuer": ISSUER,
            "jwks_uri": f"{ISSUER}/jwks",
            "authorization_endpoint": f"{ISSUER}/authorize?tenant=a",
            "token_endpoint": f"{ISSUER}/token",
        }
        self.discovery_status = 200
        self.token: Answer = lambda _: httpx.Response(200, json={"id_token": "a.b.c"})
        self.client = httpx.AsyncClient(transport=httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        if request.url.path == "/token":
            made = self.token(request)
        else:
            made = httpx.Response(self.discovery_status, json=self.discovery)
        # Not read yet, as from a network.
        stream = httpx.ByteStream(made.content)
        return httpx.Response(made.status_code, headers=made.headers, stream=stream)

    def endpoints(self, secret: str = "s: ecret") -> HttpProviderEndpoints:
        return HttpProviderEndpoints(
            self.client, ISSUER, "lay over", SecretStr(secret), lambda: self.seconds
        )


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    async with world.client:
        yield world


async def test_a_code_is_traded_with_the_clients_own_secret_and_the_verifier(
    world: World,
) -> None:
    assert await world.endpoints().redeem("code", "verifier", "https://a/back") == "a.b.c"
    request = world.asked[-1]
    form = parse_qs(request.content.decode())
    assert form == {
        "grant_type": ["authorization_code"],
        "code": ["code"],
        "redirect_uri": ["https://a/back"],
        "code_verifier": ["verifier"],
    }
    # RFC 6749, section 2.3.1.
    assert (
        httpx.BasicAuth("lay+over", "s%3A+ecret")._auth_header == (request.headers["authorization"])
    )
    assert str(request.url) == f"{ISSUER}/token"


async def test_a_public_client_names_itself_and_has_no_secret(world: World) -> None:
    await world.endpoints("").redeem("code", "verifier", "https://a/back")
    request = world.asked[-1]
    assert parse_qs(request.content.decode())["client_id"] == ["lay over"]
    assert "authorization" not in request.headers


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (httpx.Response(400, json={"error": "invalid_grant"}), ProviderRefused),
        (httpx.Response(401), ProviderRefused),
        (httpx.Response(200, json={}), ProviderRefused),
        (httpx.Response(200, json={"id_token": 7}), ProviderRefused),
        (httpx.Response(200, json=["id_token"]), ProviderRefused),
        (httpx.Response(500), IssuerUnavailable),
        (httpx.Response(302, headers={"location": "http://169.254.169.254/"}), IssuerUnavailable),
        (httpx.Response(200, content=b"no JSON"), IssuerUnavailable),
        (httpx.Response(200, content=b"x" * 300_000), IssuerUnavailable),
    ],
)
async def test_an_answer_without_an_id_token_is_none(
    world: World, answer: httpx.Response, error: type[Exception]
) -> None:
    world.token = lambda _: answer
    with pytest.raises(error) as raised:
        await world.endpoints().redeem("the-code", "the-verifier", "https://a/back")
    for secret in ("the-code", "the-verifier", "s: ecret"):
        assert secret not in str(raised.value)
    # Nobody is followed elsewhere with the secret.
    assert all(request.url.host == "login.example.com" for request in world.asked)


async def test_the_provider_is_asked_where_things_are_now_and_then(world: World) -> None:
    endpoints = world.endpoints()
    for _ in range(3):
        assert await endpoints.authorization_endpoint() == f"{ISSUER}/authorize?tenant=a"
    assert len(world.asked) == 1
    world.seconds += FRESH_FOR
    await endpoints.authorization_endpoint()
    assert len(world.asked) == 2


async def test_a_provider_that_is_away_is_not_asked_at_each_press_of_the_button(
    world: World,
) -> None:
    endpoints = world.endpoints()
    world.discovery_status = 503
    for _ in range(3):
        with pytest.raises(IssuerUnavailable):
            await endpoints.authorization_endpoint()
    assert len(world.asked) == 1
    world.discovery_status = 200
    world.seconds += RETRY_AFTER
    assert await endpoints.authorization_endpoint()
    # What was known is good while it is away.
    world.discovery_status = 503
    world.seconds += FRESH_FOR
    assert await endpoints.authorization_endpoint()


@pytest.mark.parametrize("endpoint", ["", "javascript:alert(1)", "file:///etc/passwd", None, 7])
async def test_what_is_no_page_is_nowhere_to_send_a_browser(world: World, endpoint: object) -> None:
    world.discovery["authorization_endpoint"] = endpoint
    with pytest.raises(IssuerUnavailable):
        await world.endpoints().authorization_endpoint()
