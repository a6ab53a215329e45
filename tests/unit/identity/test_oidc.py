"""A token is accepted only from its issuer, for us, in time, and signed with a published key."""

import base64
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layover.identity.issuer_keys import (
    ALGORITHMS,
    IssuerUnavailable,
    VerificationKey,
    parse_keys,
)
from layover.identity.models import Unauthenticated
from layover.identity.oidc import (
    CLOCK_SKEW,
    MAX_TOKEN_BYTES,
    IdToken,
    IdTokenRefused,
    IdTokens,
    looks_like_id_token,
    unverified_issuer,
)
from tests.oidc_provider.keys import Keys, sign
from tests.unit.identity.clock import Clock

pytestmark = pytest.mark.anyio

ISSUER, AUDIENCE = "https://issuer.example", "https://layover.example"
CLOCK = Clock()
NOW = int(CLOCK.now.timestamp())
SKEW = int(CLOCK_SKEW.total_seconds())
KEYS = Keys()
CLAIMS: Mapping[str, Any] = {
    "iss": ISSUER,
    "aud": AUDIENCE,
    "sub": "repo:acme/app",
    "iat": NOW,
    "nbf": NOW,
    "exp": NOW + 300,
}


class PublishedKeys:
    """The port in memory; remembers what it was asked."""

    def __init__(self, keys: Keys = KEYS) -> None:
        self._published = keys
        self.asked: list[tuple[str, str | None]] = []

    async def keys(self, issuer: str, key_id: str | None = None) -> tuple[VerificationKey, ...]:
        self.asked.append((issuer, key_id))
        return parse_keys(self._published.published())


class NoKeys:
    async def keys(self, issuer: str, key_id: str | None = None) -> tuple[VerificationKey, ...]:
        raise IssuerUnavailable(issuer, "it is away")


def signed(
    algorithm: str = "RS256",
    key: str = "current",
    headers: Mapping[str, Any] | None = None,
    without: tuple[str, ...] = (),
    **claims: Any,
) -> str:
    content = {name: value for name, value in {**CLAIMS, **claims}.items() if name not in without}
    return sign(KEYS, content, algorithm, key, headers or {}, without)


async def verified(token: str, *, keys: Any = None, audience: str = AUDIENCE) -> IdToken:
    return await IdTokens(keys or PublishedKeys(), CLOCK).verify(token, ISSUER, [audience])


async def refused(token: str, *, keys: Any = None, audience: str = AUDIENCE) -> str:
    """Why, as a log has it; the refusal itself reads as every other."""
    with pytest.raises(Unauthenticated) as caught:
        await verified(token, keys=keys, audience=audience)
    assert str(caught.value) == str(Unauthenticated())
    return str(caught.value.__cause__)


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
async def test_a_token_tells_who_its_issuer_says_it_is(algorithm: str) -> None:
    token = await verified(signed(algorithm, repository="acme/app"))
    assert (token.issuer, token.subject, token.audiences) == (
        ISSUER,
        "repo:acme/app",
        frozenset({AUDIENCE}),
    )
    assert token.claims["repository"] == "acme/app"
    assert token.expires_at.timestamp() == NOW + 300


async def test_one_of_several_audiences_is_enough() -> None:
    token = await verified(signed(aud=["https://other.example", AUDIENCE]))
    assert token.audiences == {"https://other.example", AUDIENCE}
    await verified(signed(aud=[AUDIENCE, AUDIENCE]))


async def test_whoever_compares_audiences_itself_gets_them_and_never_none() -> None:
    tokens = IdTokens(PublishedKeys(), CLOCK)
    token = await tokens.verify(signed(aud=["a", "b"]), ISSUER, None)
    assert token.audiences == {"a", "b"}
    for audience in ([], "", None, [5]):
        with pytest.raises(Unauthenticated):
            await tokens.verify(signed(aud=audience), ISSUER, None)


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
async def test_a_token_signed_with_anothers_key_is_refused(algorithm: str) -> None:
    assert "signature" in await refused(signed(algorithm, "foreign"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"algorithm": "none"}, "alg"),
        ({"headers": {"alg": "None"}}, "alg"),
        ({"headers": {"alg": "NONE"}}, "alg"),
        ({"headers": {"alg": ""}}, "alg"),
        ({"headers": {"alg": None}}, "alg"),
        ({"headers": {"alg": ["RS256"]}}, "alg"),
        ({"headers": {"alg": "rs256"}}, "alg"),
        ({"algorithm": "HS256"}, "alg"),  # with the public key as secret (CVE-2015-9235)
        ({"headers": {"alg": "RS1"}}, "alg"),
        ({"headers": {"alg": "ES256K"}}, "alg"),
        ({"without": ("alg",)}, "alg"),
        ({"headers": {"alg": "PS256"}}, "signature"),
        ({"headers": {"alg": "ES256"}}, "kid"),
        ({"key": "header"}, "header"),
        ({"headers": {"jku": "https://evil.example/jwks"}}, "header"),
        ({"headers": {"x5u": "https://evil.example/certificate"}}, "header"),
        ({"headers": {"x5c": ["AAAA"]}}, "header"),
        ({"headers": {"crit": ["exp"]}}, "header"),
        ({"headers": {"crit": ["b64"], "b64": False}}, "header"),
        ({"headers": {"kid": 5}}, "kid"),
        ({"headers": {"kid": "another"}}, "kid"),
        ({"headers": {"kid": "../../dev/null"}}, "kid"),
        ({"headers": {"typ": "at+jwt"}}, "typ"),
        ({"headers": {"typ": 5}}, "typ"),
    ],
)
async def test_a_header_that_no_issuer_of_ours_writes_is_refused(
    change: dict[str, Any], reason: str
) -> None:
    assert reason in await refused(signed(**change))


async def test_a_token_without_a_key_id_is_verified_where_only_one_key_fits() -> None:
    await verified(signed(without=("kid",)))
    keys = Keys()
    keys.rotate(keep_old=True)
    token = sign(keys, dict(CLAIMS), "RS256", "current", {}, ("kid",))
    assert await refused(token, keys=PublishedKeys(keys)) == "kid"


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"iss": "https://evil.example"}, "iss"),
        ({"iss": f"{ISSUER}/"}, "iss"),
        ({"iss": [ISSUER]}, "iss"),
        ({"iss": None}, "iss"),
        ({"aud": "https://evil.example"}, "aud"),
        ({"aud": f"{AUDIENCE}/"}, "aud"),
        ({"aud": []}, "aud"),
        ({"aud": ""}, "aud"),
        ({"aud": None}, "aud"),
        ({"aud": {"a": AUDIENCE}}, "aud"),
        ({"aud": [AUDIENCE, 5]}, "aud"),
        ({"aud": [AUDIENCE, ""]}, "aud"),
        ({"aud": [[AUDIENCE]]}, "aud"),
        ({"sub": ""}, "sub"),
        ({"sub": None}, "sub"),
        ({"sub": 5}, "sub"),
        ({"exp": NOW - SKEW}, "exp"),
        ({"exp": 0}, "exp"),
        ({"exp": -1}, "exp"),
        ({"exp": str(NOW + 300)}, "exp"),
        ({"exp": True}, "exp"),
        ({"exp": None}, "exp"),
        ({"exp": [NOW + 300]}, "exp"),
        ({"exp": 10**400}, "exp"),
        ({"exp": 1e300}, "exp"),
        ({"exp": float("nan")}, "number"),
        ({"exp": float("inf")}, "number"),
        ({"nbf": NOW + SKEW + 1}, "nbf"),
        ({"nbf": "soon"}, "nbf"),
        ({"nbf": None}, "nbf"),
        ({"iat": NOW + SKEW + 1}, "iat"),
        ({"iat": {}}, "iat"),
        ({"iat": float("nan")}, "number"),
    ],
)
async def test_a_claim_that_is_wrong_is_refused_before_any_key_is_asked_for(
    claims: dict[str, Any], reason: str
) -> None:
    keys = PublishedKeys()
    assert reason in await refused(signed(**claims), keys=keys)
    assert keys.asked == []


@pytest.mark.parametrize("name", ["iss", "aud", "sub", "exp"])
async def test_a_token_without_a_claim_that_it_needs_is_refused(name: str) -> None:
    assert await refused(signed(without=(name,))) == name


async def test_a_token_needs_no_time_of_its_making() -> None:
    await verified(signed(without=("iat", "nbf")))


async def test_clocks_may_differ_by_the_skew_and_by_no_more() -> None:
    await verified(signed(exp=NOW - SKEW + 1, iat=NOW + SKEW, nbf=NOW + SKEW))
    await verified(signed(exp=NOW + 0.5))
    assert await refused(signed(exp=NOW - SKEW)) == "exp"


async def test_a_token_ends_by_the_servers_clock() -> None:
    clock = Clock()
    tokens = IdTokens(PublishedKeys(), clock)
    token = signed()
    clock.advance(timedelta(seconds=300) + CLOCK_SKEW - timedelta(seconds=1))
    await tokens.verify(token, ISSUER, [AUDIENCE])
    clock.advance(timedelta(seconds=1))
    with pytest.raises(Unauthenticated):
        await tokens.verify(token, ISSUER, [AUDIENCE])


async def test_an_issuer_that_does_not_answer_refuses_its_tokens_as_any_other() -> None:
    assert "away" in await refused(signed(), keys=NoKeys())


async def test_any_change_of_what_was_signed_is_refused() -> None:
    header, claims, signature = signed().split(".")
    forged = json.loads(base64.urlsafe_b64decode(claims + "=="))
    forged["repository"] = "evil/app"
    changed = base64.urlsafe_b64encode(json.dumps(forged).encode()).decode().rstrip("=")
    assert "signature" in await refused(f"{header}.{changed}.{signature}")
    assert "signature" in await refused(f"{header}.{claims}.")
    assert "signature" in await refused(f"{header}.{claims}.{signature[:-4]}")
    assert "JWT" in await refused(f"{header}.{claims}.{signature}.{signature}")


async def test_a_claim_that_stands_there_twice_is_refused() -> None:
    header, _, signature = signed().split(".")
    text = json.dumps(dict(CLAIMS))[:-1] + f', "aud": "{AUDIENCE}"}}'
    twice = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
    assert "twice" in await refused(f"{header}.{twice}.{signature}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "..",
        "a.b.c",
        "eyJ.eyJ.eyJ",
        "\N{SNOWMAN}.e30.e30",
        "e30.e30.e30",
        "bnVsbA.bnVsbA.bnVsbA",
        "W10.W10.",
        base64.urlsafe_b64encode(b"[" * 9000).decode().rstrip("=") + ".e30.",
        base64.urlsafe_b64encode(b'{"a":' * 2000).decode().rstrip("=") + ".e30.",
        "e30." + "A" * MAX_TOKEN_BYTES + ".e30",
    ],
)
async def test_nonsense_is_refused(text: str) -> None:
    await refused(text)
    with pytest.raises(Unauthenticated):
        unverified_issuer(text)


def test_a_refusals_cause_quotes_nothing_of_the_token() -> None:
    with pytest.raises(Unauthenticated) as caught:
        unverified_issuer(signed(iss={"secret": "x"}))
    assert isinstance(caught.value.__cause__, IdTokenRefused)
    assert "secret" not in str(caught.value.__cause__)


@pytest.mark.parametrize("issuer", ["https://a\x00b", "https://a\ud800", "https://\xe4", 5, None])
def test_an_issuer_that_no_url_can_be_is_refused_before_it_is_looked_up(issuer: object) -> None:
    with pytest.raises(Unauthenticated):
        unverified_issuer(signed(iss=issuer))


def test_who_a_token_says_that_it_is_from_is_told_unverified() -> None:
    assert unverified_issuer(signed(key="foreign", iss="https://a.example")) == "https://a.example"


def test_what_a_token_says_is_shown_in_no_repr() -> None:
    token = IdToken(ISSUER, "s", frozenset(), CLOCK.now, {"email": "alice@example.com"})
    assert "alice" not in repr(token)


def test_a_token_is_known_by_its_form() -> None:
    assert looks_like_id_token(signed())
    for text in ("layover_abc", "", "a.b.c", "ey.ey", "ey" + "." * 100_000):
        assert not looks_like_id_token(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(
    claims=st.dictionaries(
        st.sampled_from(["iss", "aud", "sub", "exp", "nbf", "iat", "jti"]), json_values
    ),
    headers=st.dictionaries(
        st.sampled_from(["alg", "kid", "typ", "crit", "jwk", "cty", "x5c"]), json_values
    ),
)
async def test_any_claims_and_headers_are_accepted_or_refused(
    claims: dict[str, Any], headers: dict[str, Any]
) -> None:
    try:
        token = await verified(signed(headers=headers, **claims))
    except Unauthenticated:
        return
    assert token.issuer == ISSUER
    assert AUDIENCE in token.audiences


@given(text=st.text())
async def test_any_text_is_refused_with_one_error(text: str) -> None:
    await refused(text)
