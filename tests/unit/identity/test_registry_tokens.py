import base64
import json
from datetime import timedelta
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layover.identity.models import Principal, TokenKind, Unauthenticated
from layover.identity.registry_tokens import KEY_BYTES, LIFETIME, RegistryTokens, Scope
from tests.unit.identity.clock import Clock

KEY = b"k" * KEY_BYTES
PRINCIPAL = Principal("token-id", TokenKind.PROJECT, "org", project_id="project")
SCOPES = (Scope("project/app", frozenset({"pull", "push"})), Scope("project", frozenset({"pull"})))


def encode(part: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")


def test_a_token_stands_for_its_token_and_its_scopes() -> None:
    tokens = RegistryTokens(KEY, Clock())
    assert tokens.read(tokens.issue(PRINCIPAL, SCOPES)) == ("token-id", SCOPES)
    assert tokens.read(tokens.issue(PRINCIPAL, ())) == ("token-id", ())


def test_a_token_is_read_by_every_replica_with_the_key() -> None:
    clock = Clock()
    token = RegistryTokens(KEY, clock).issue(PRINCIPAL, SCOPES)
    assert RegistryTokens(KEY, clock).read(token)[0] == "token-id"


def test_a_token_ends_with_its_lifetime_by_the_servers_clock() -> None:
    clock = Clock()
    tokens = RegistryTokens(KEY, clock)
    token = tokens.issue(PRINCIPAL, SCOPES)
    clock.advance(LIFETIME - timedelta(seconds=1))
    assert tokens.read(token)
    clock.advance(timedelta(seconds=1))
    with pytest.raises(Unauthenticated):
        tokens.read(token)


def test_a_token_of_another_key_is_refused() -> None:
    clock = Clock()
    token = RegistryTokens(b"o" * KEY_BYTES, clock).issue(PRINCIPAL, SCOPES)
    with pytest.raises(Unauthenticated):
        RegistryTokens(KEY, clock).read(token)


def test_one_that_has_expired_was_issued_all_the_same_and_a_forged_one_was_not() -> None:
    clock = Clock()
    tokens = RegistryTokens(KEY, clock)
    token = tokens.issue(PRINCIPAL, SCOPES)
    clock.advance(LIFETIME)
    assert tokens.issued(token)
    head, claims, _ = token.split(".")
    for forged in (
        RegistryTokens(b"o" * KEY_BYTES, clock).issue(PRINCIPAL, SCOPES),
        f"{encode({'alg': 'none', 'typ': 'JWT'})}.{claims}.",
        f"{head}.{claims}.",
        "..",
    ):
        assert not tokens.issued(forged)


@pytest.mark.parametrize("algorithm", ["none", "None", "HS384", "HS512", "RS256"])
def test_a_token_of_another_algorithm_is_refused(algorithm: str) -> None:
    tokens = RegistryTokens(KEY, Clock())
    _, claims, signature = tokens.issue(PRINCIPAL, SCOPES).split(".")
    for signed in (signature, ""):
        with pytest.raises(Unauthenticated):
            tokens.read(f"{encode({'alg': algorithm, 'typ': 'JWT'})}.{claims}.{signed}")
    if algorithm.startswith("HS"):
        with pytest.raises(Unauthenticated):
            tokens.read(jwt.encode({"sub": "a", "exp": 2**40, "access": []}, KEY * 2, algorithm))


def test_a_token_whose_scopes_were_widened_is_refused() -> None:
    tokens = RegistryTokens(KEY, Clock())
    header, claims, signature = tokens.issue(PRINCIPAL, SCOPES).split(".")
    document = json.loads(base64.urlsafe_b64decode(claims + "=="))
    document["access"][0]["actions"].append("delete")
    with pytest.raises(Unauthenticated):
        tokens.read(f"{header}.{encode(document)}.{signature}")


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"sub": "a", "access": []},
        {"sub": "a", "exp": 2**40},
        {"exp": 2**40, "access": []},
        {"sub": "a", "exp": "later", "access": []},
        {"sub": "a", "exp": 2**40, "access": [{}]},
        {"sub": "a", "exp": 2**40, "access": 5},
        {"sub": "a", "exp": 2**40, "access": [{"name": "p", "actions": None}]},
    ],
)
def test_a_token_of_ours_that_lacks_a_claim_is_refused(claims: dict[str, Any]) -> None:
    with pytest.raises(Unauthenticated):
        RegistryTokens(KEY, Clock()).read(jwt.encode(claims, KEY, "HS256"))


@pytest.mark.parametrize(
    "text",
    ["", "..", "a.b.c", "\xff.\xff.\xff", "a." * 100, encode("x") + ".e30.x", encode(None) + ".."],
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(Unauthenticated):
        RegistryTokens(KEY, Clock()).read(text)


@pytest.mark.parametrize("nested", [b"[" * 100_000, b'{"a":' * 100_000])
def test_a_header_that_nests_without_end_is_refused(nested: bytes) -> None:
    header = base64.urlsafe_b64encode(nested).decode().rstrip("=")
    with pytest.raises(Unauthenticated):
        RegistryTokens(KEY, Clock()).read(f"{header}.e30.x")


@given(text=st.text())
def test_any_text_is_refused_with_one_error(text: str) -> None:
    with pytest.raises(Unauthenticated):
        RegistryTokens(KEY, Clock()).read(text)
