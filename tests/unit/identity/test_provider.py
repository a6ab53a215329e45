import base64
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from layover.identity.issuer_keys import IssuerUnavailable, VerificationKey
from layover.identity.oidc import IdTokens
from layover.identity.provider import ProviderFlow, ProviderSignIn
from layover.identity.sign_in_models import ProviderRefused

pytestmark = pytest.mark.anyio

ISSUER, BACK = "https://login.example.com", "https://layover.example.com/signin/callback"
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Provider:
    """A provider in memory: it gives what a test says for any code."""

    def __init__(self) -> None:
        self.key = Ed25519PrivateKey.generate()
        self.claims: dict[str, Any] = {}
        self.redeemed: list[tuple[str, str, str]] = []
        self.is_away = False

    async def authorization_endpoint(self) -> str:
        return f"{ISSUER}/authorize?tenant=a"

    async def redeem(self, code: str, verifier: str, redirect_uri: str) -> str:
        self.redeemed.append((code, verifier, redirect_uri))
        return jwt.encode(self.claims, self.key, "EdDSA")

    async def keys(self, issuer: str, key_id: str | None = None) -> tuple[VerificationKey, ...]:
        if self.is_away:
            raise IssuerUnavailable(issuer, "away")
        return (VerificationKey(None, frozenset({"EdDSA"}), self.key.public_key()),)


@pytest.fixture
def provider() -> Provider:
    return Provider()


@pytest.fixture
def sign_in(provider: Provider) -> ProviderSignIn:
    return ProviderSignIn(ISSUER, "layover", provider, IdTokens(provider, lambda: NOW), BACK)


def says(provider: Provider, flow: ProviderFlow, **claims: Any) -> dict[str, str]:
    """Let the provider vouch so; return what the browser brings back."""
    told = {"iss": ISSUER, "sub": "s", "aud": "layover", "nonce": flow.nonce, "exp": NOW}
    provider.claims = {**told, "exp": NOW + timedelta(minutes=5), **claims}
    return {"state": flow.state, "code": "the-code"}


async def test_the_browser_is_sent_with_a_challenge_of_what_it_keeps(
    sign_in: ProviderSignIn,
) -> None:
    url, flow = await sign_in.begin()
    query = parse_qs(urlsplit(url).query)
    digest = hashlib.sha256(flow.verifier.encode()).digest()
    assert query["code_challenge"] == [base64.urlsafe_b64encode(digest).decode().rstrip("=")]
    assert (query["tenant"], query["state"], query["nonce"]) == (["a"], [flow.state], [flow.nonce])
    assert flow.verifier not in url
    assert 43 <= len(flow.verifier) <= 128
    again = (await sign_in.begin())[1]
    assert {flow.state, flow.nonce, flow.verifier}.isdisjoint(
        {again.state, again.nonce, again.verifier}
    )
    for secret in (flow.state, flow.nonce, flow.verifier):
        assert secret not in repr(flow)


async def test_whom_the_provider_vouches_for_is_its_issuer_and_subject(
    sign_in: ProviderSignIn, provider: Provider
) -> None:
    _, flow = await sign_in.begin()
    answer = says(provider, flow, preferred_username="Ann", email=["not", "text"])
    vouched = await sign_in.finish(flow, {**answer, "iss": ISSUER})
    assert (vouched.issuer, vouched.subject) == (ISSUER, "s")
    assert vouched.names == ("Ann", ["not", "text"], "s")
    assert provider.redeemed == [("the-code", flow.verifier, BACK)]


@pytest.mark.parametrize(
    "spoilt",
    [
        {"state": ""},
        {"state": "x"},
        {"iss": "https://evil"},
        {"error": "denied"},
        {"code": ""},
        {"code": "x" * 5000},
    ],
)
async def test_an_answer_that_is_not_to_what_was_asked_redeems_nothing(
    sign_in: ProviderSignIn, provider: Provider, spoilt: dict[str, str]
) -> None:
    _, flow = await sign_in.begin()
    with pytest.raises(ProviderRefused):
        await sign_in.finish(flow, {**says(provider, flow), **spoilt})
    assert provider.redeemed == []


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "x"},
        {"nonce": None},
        {"nonce": 7},
        {"aud": "x"},
        {"aud": ["layover", "x"]},
        {"azp": "x"},
        {"iss": "https://evil"},
        {"exp": 1},
        {"sub": "x" * 256},
    ],
)
async def test_a_token_that_is_not_for_this_sign_in_vouches_for_nobody(
    sign_in: ProviderSignIn, provider: Provider, claims: dict[str, Any]
) -> None:
    _, flow = await sign_in.begin()
    with pytest.raises(ProviderRefused) as refused:
        await sign_in.finish(flow, says(provider, flow, **claims))
    assert str(refused.value) == "the sign-in at the provider did not work: start it again"


async def test_several_audiences_are_taken_when_the_token_says_who_asked(
    sign_in: ProviderSignIn, provider: Provider
) -> None:
    _, flow = await sign_in.begin()
    answer = says(provider, flow, aud=["layover", "x"], azp="layover")
    assert (await sign_in.finish(flow, answer)).subject == "s"


async def test_keys_that_cannot_be_had_are_told_apart_from_a_refusal(
    sign_in: ProviderSignIn, provider: Provider
) -> None:
    _, flow = await sign_in.begin()
    provider.is_away = True
    with pytest.raises(IssuerUnavailable):
        await sign_in.finish(flow, says(provider, flow))
