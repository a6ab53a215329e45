"""A rule trusts the tokens that are meant: its issuer's, for this server, with those claims."""

from datetime import UTC, datetime
from typing import Any

import pytest

from layover.identity.models import Grant
from layover.identity.oidc import IdToken
from layover.identity.trust import Provider, TrustRule

SERVER = "https://layover.example"
ORGANIZATION = "11111111-2222-3333-4444-555555555555"


def token(issuer: str = "https://issuer.example", *audiences: str, **claims: Any) -> IdToken:
    return IdToken(
        issuer,
        "subject",
        frozenset(audiences or (SERVER,)),
        datetime(2026, 1, 1, tzinfo=UTC),
        claims,
    )


def rule(**changes: Any) -> TrustRule:
    facts: dict[str, Any] = {
        "provider": Provider.GENERIC,
        "issuer": "https://issuer.example",
        "audience": "",
        "claims": {"team": "a-*", "stage": "prod"},
        "grants": Grant.PROJECT,
    }
    return TrustRule(**{**facts, **changes})


def test_every_claim_has_to_match() -> None:
    assert rule().trusts(token(team="a-1", stage="prod"), SERVER)
    for claims in (
        {"team": "a-1"},
        {"stage": "prod"},
        {"team": "b-1", "stage": "prod"},
        {"team": "a-1", "stage": "production"},
        {},
    ):
        assert not rule().trusts(token(**claims), SERVER)


def test_another_issuers_token_with_the_same_claims_is_not_trusted() -> None:
    for issuer in ("https://evil.example", "https://issuer.example/", "https://ISSUER.example"):
        assert not rule().trusts(token(issuer, team="a-1", stage="prod"), SERVER)


def test_a_token_for_somebody_else_is_not_trusted() -> None:
    claims = {"team": "a-1", "stage": "prod"}
    issuer = "https://issuer.example"
    assert rule().trusts(token(issuer, "https://other.example", SERVER, **claims), SERVER)
    assert not rule().trusts(token(issuer, "https://other.example", **claims), SERVER)
    own = rule(audience="ours")
    assert own.trusts(token(issuer, "ours", **claims), SERVER)
    # Whoever names an audience means that one and no other.
    assert not own.trusts(token(issuer, SERVER, **claims), SERVER)


def test_circlecis_tokens_are_for_the_organization_or_for_the_server() -> None:
    circleci = rule(
        provider=Provider.CIRCLECI, issuer=f"https://oidc.circleci.com/org/{ORGANIZATION}"
    )
    assert circleci.audiences(SERVER) == {SERVER, ORGANIZATION}
    for other in (Provider.GITHUB, Provider.GITLAB, Provider.GENERIC, Provider.KUBERNETES):
        assert rule(provider=other).audiences(SERVER) == {SERVER}


@pytest.mark.parametrize("issuer", ["https://a.example/", "https://a.example/org/"])
def test_no_rule_takes_a_token_for_nobody(issuer: str) -> None:
    assert "" not in rule(provider=Provider.CIRCLECI, issuer=issuer).audiences(SERVER)
