"""Keys come from the issuer's own documents, are kept, rotate, and never cost a request a token."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest

from layover.adapters.issuer_keys import (
    FRESH_FOR,
    MAX_ISSUERS,
    RETRY_AFTER,
    STALE_FOR,
    HttpIssuerKeys,
)
from layover.adapters.oidc_discovery import discover
from layover.identity.issuer_keys import IssuerUnavailable
from layover.outbound.client import outbound_client
from layover.outbound.rules import LOOPBACK, OutboundRules
from tests.oidc_provider import Issuer, OidcProvider

pytestmark = pytest.mark.anyio


@dataclass
class Seconds:
    """A clock that a test moves."""

    now: float = 1_000_000

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Seconds:
    return Seconds()


@pytest.fixture
def issuer(provider: OidcProvider) -> Issuer:
    return provider.issuer(secrets.token_hex(8))


@pytest.fixture
async def client(provider: OidcProvider) -> AsyncIterator[httpx.AsyncClient]:
    rules = OutboundRules(LOOPBACK, frozenset({provider.host_port}))
    async with outbound_client(rules) as client:
        yield client


@pytest.fixture
def issuer_keys(client: httpx.AsyncClient, clock: Seconds) -> HttpIssuerKeys:
    return HttpIssuerKeys(client, clock)


async def ids(issuer_keys: HttpIssuerKeys, issuer: Issuer, key_id: str | None = None) -> list[str]:
    return [str(key.key_id) for key in await issuer_keys.keys(issuer.url, key_id)]


async def test_an_issuer_is_asked_once_for_a_while(
    issuer_keys: HttpIssuerKeys, issuer: Issuer, clock: Seconds
) -> None:
    for _ in range(3):
        assert await ids(issuer_keys, issuer, "RSA-1") == ["RSA-1"]
    assert (issuer.asked("discovery"), issuer.asked("jwks")) == (1, 1)
    clock.now += FRESH_FOR
    await ids(issuer_keys, issuer)
    assert issuer.asked("jwks") == 2


async def test_a_new_key_is_found_at_its_first_use(
    issuer_keys: HttpIssuerKeys, issuer: Issuer, clock: Seconds
) -> None:
    await ids(issuer_keys, issuer)
    issuer.rotate(keep_old=True)
    clock.now += RETRY_AFTER
    assert await ids(issuer_keys, issuer, "RSA-2") == ["RSA-2", "RSA-1"]


async def test_made_up_key_ids_cost_one_request_a_minute(
    issuer_keys: HttpIssuerKeys, issuer: Issuer, clock: Seconds
) -> None:
    for number in range(20):
        assert await ids(issuer_keys, issuer, f"made-up-{number}") == ["RSA-1"]
    assert issuer.asked("jwks") == 1
    clock.now += RETRY_AFTER
    for number in range(20):
        await ids(issuer_keys, issuer, f"made-up-{number}")
    assert issuer.asked("jwks") == 2


async def test_a_withdrawn_key_is_forgotten(
    issuer_keys: HttpIssuerKeys, issuer: Issuer, clock: Seconds
) -> None:
    await ids(issuer_keys, issuer)
    issuer.rotate()
    clock.now += FRESH_FOR
    assert await ids(issuer_keys, issuer, "RSA-1") == ["RSA-2"]


async def test_an_issuer_that_does_not_answer_keeps_its_keys_for_a_while(
    issuer_keys: HttpIssuerKeys, issuer: Issuer, clock: Seconds
) -> None:
    await ids(issuer_keys, issuer)
    issuer.answer_with("jwks", status=503)
    clock.now += FRESH_FOR + STALE_FOR - 1
    assert await ids(issuer_keys, issuer, "RSA-1") == ["RSA-1"]
    clock.now += 1
    with pytest.raises(IssuerUnavailable, match="status 503"):
        await ids(issuer_keys, issuer)
    issuer.answer_with("jwks")
    clock.now += RETRY_AFTER
    assert await ids(issuer_keys, issuer) == ["RSA-1"]


async def test_an_issuer_that_never_answered_is_asked_once_a_minute(
    issuer_keys: HttpIssuerKeys, issuer: Issuer, clock: Seconds
) -> None:
    issuer.answer_with("discovery", status=500)
    for _ in range(5):
        with pytest.raises(IssuerUnavailable, match="status 500"):
            await ids(issuer_keys, issuer)
    assert issuer.asked("discovery") == 1
    issuer.answer_with("discovery")
    clock.now += RETRY_AFTER
    assert await ids(issuer_keys, issuer) == ["RSA-1"]


async def test_callers_at_once_share_one_question(
    issuer_keys: HttpIssuerKeys, issuer: Issuer
) -> None:
    answers = await asyncio.gather(*(ids(issuer_keys, issuer) for _ in range(20)))
    assert answers == [["RSA-1"]] * 20
    assert issuer.asked("jwks") == 1


async def test_a_caller_who_leaves_takes_nobodys_answer_away(
    issuer_keys: HttpIssuerKeys, issuer: Issuer
) -> None:
    leaving = asyncio.create_task(ids(issuer_keys, issuer))
    staying = asyncio.create_task(ids(issuer_keys, issuer))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying == ["RSA-1"]
    assert issuer.asked("jwks") == 1


async def test_as_many_issuers_are_remembered_as_said(
    issuer_keys: HttpIssuerKeys, provider: OidcProvider, issuer: Issuer
) -> None:
    await ids(issuer_keys, issuer)
    for number in range(MAX_ISSUERS):
        with pytest.raises(IssuerUnavailable):
            await issuer_keys.keys(f"https://127.0.0.1:1/{number}")
    await ids(issuer_keys, issuer)
    assert issuer.asked("jwks") == 2


@pytest.mark.parametrize(
    ("document", "how", "reason"),
    [
        ("discovery", {"status": 404}, "status 404"),
        ("discovery", {"status": 302, "headers": {"location": "https://evil.example"}}, "302"),
        ("discovery", {"body": "<html>"}, "not JSON"),
        ("discovery", {"json": []}, "no JSON object"),
        ("discovery", {"merge": {"issuer": "https://other.example"}}, "another issuer's"),
        ("discovery", {"merge": {"issuer": None}}, "another issuer's"),
        ("discovery", {"merge": {"jwks_uri": None}}, "names no keys"),
        ("discovery", {"merge": {"jwks_uri": 5}}, "names no keys"),
        ("discovery", {"merge": {"jwks_uri": "https://a/\x1b[31m"}}, "names no keys"),
        ("discovery", {"merge": {"jwks_uri": "https://a/" + "a" * 2000}}, "names no keys"),
        ("discovery", {"merge": {"jwks_uri": "https://169.254.169.254/"}}, "outbound_networks"),
        ("discovery", {"merge": {"jwks_uri": "http://1.1.1.1/"}}, "outbound_insecure_hosts"),
        ("discovery", {"merge": {"jwks_uri": "file:///etc/passwd"}}, "does not connect"),
        ("discovery", {"merge": {"jwks_uri": "jwks"}}, "does not connect"),
        ("discovery", {"body": " " * 100_000}, "more than 65536 bytes"),
        ("jwks", {"status": 500}, "status 500"),
        ("jwks", {"body": "{"}, "not JSON"),
        ("jwks", {"json": {"keys": 5}}, "no JWKS"),
        ("jwks", {"json": {"keys": [{}] * 101}}, "more than 100 keys"),
        ("jwks", {"body": " " * 300_000}, "more than 262144 bytes"),
    ],
)
async def test_documents_that_are_not_an_issuers_are_refused(
    issuer_keys: HttpIssuerKeys, issuer: Issuer, document: str, how: dict[str, object], reason: str
) -> None:
    issuer.answer_with(document, **how)
    with pytest.raises(IssuerUnavailable, match=reason):
        await ids(issuer_keys, issuer)


async def test_junk_among_the_keys_hides_no_other(
    issuer_keys: HttpIssuerKeys, client: httpx.AsyncClient, issuer: Issuer
) -> None:
    good = (await client.get(f"{issuer.url}/jwks")).json()["keys"]
    issuer.answer_with("jwks", json={"keys": [None, {"kty": "oct", "k": "AAAA"}, *good, 5]})
    assert await ids(issuer_keys, issuer) == ["RSA-1"]


async def test_a_relying_party_finds_its_endpoints(
    client: httpx.AsyncClient, issuer: Issuer
) -> None:
    configuration = await discover(client, issuer.url)
    assert configuration.authorization_endpoint == f"{issuer.url}/authorize"
    assert configuration.token_endpoint == f"{issuer.url}/token"


async def test_what_is_under_way_ends_with_the_server(
    issuer_keys: HttpIssuerKeys, issuer: Issuer
) -> None:
    asking = asyncio.create_task(ids(issuer_keys, issuer))
    await asyncio.sleep(0)
    await issuer_keys.close()
    with pytest.raises(asyncio.CancelledError):
        await asking
