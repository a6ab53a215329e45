"""Conditions become the claims of each system, and what would trust strangers is refused."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layover.identity.claim_patterns import matches
from layover.identity.trust import InvalidTrustPolicy, Provider
from layover.identity.trust_providers import CONDITIONS, parse_issuer, trust_rule

ORGANIZATION = "11111111-2222-3333-4444-555555555555"
CLUSTER = "https://oidc.eks.eu-central-1.amazonaws.com/id/ABC"
MINIMAL: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "github": ({"repository": "acme/app"}, {}),
    "gitlab": ({"project": "acme/app"}, {}),
    "circleci": ({"organization": ORGANIZATION, "project": "p"}, {}),
    "buildkite": ({"organization": "acme", "pipeline": "app"}, {}),
    "kubernetes": ({"namespace": "web", "service-account": "app"}, {"issuer": CLUSTER}),
    "generic": ({}, {"issuer": "https://issuer.example", "claims": {"sub": "a"}}),
}


@pytest.mark.parametrize(
    ("provider", "conditions", "issuer", "claims"),
    [
        (
            "github",
            {"repository": "acme/app"},
            "https://token.actions.githubusercontent.com",
            {"repository": "acme/app"},
        ),
        (
            "github",
            {
                "repository": "acme/*",
                "branch": "release/*",
                "environment": "prod",
                "workflow": "build.yml",
                "reusable-workflow": "acme/shared/.github/workflows/b.yml@refs/heads/main",
                "event": "push",
                "repository-id": "1",
                "owner-id": "2",
            },
            "https://token.actions.githubusercontent.com",
            {
                "repository": "acme/*",
                "ref": "refs/heads/release/*",
                "environment": "prod",
                "workflow_ref": "acme/*/.github/workflows/build.yml@*",
                "job_workflow_ref": "acme/shared/.github/workflows/b.yml@refs/heads/main",
                "event_name": "push",
                "repository_id": "1",
                "repository_owner_id": "2",
            },
        ),
        (
            "github",
            {"repository": "acme/app", "tag": "v*"},
            "https://token.actions.githubusercontent.com",
            {"repository": "acme/app", "ref": "refs/tags/v*"},
        ),
        (
            "gitlab",
            {"project": "acme/group/app", "ref": "main", "ref-type": "branch"},
            "https://gitlab.com",
            {"project_path": "acme/group/app", "ref": "main", "ref_type": "branch"},
        ),
        (
            "circleci",
            {"organization": ORGANIZATION, "project": "p", "branch": "main", "context": "c"},
            f"https://oidc.circleci.com/org/{ORGANIZATION}",
            {
                "oidc.circleci.com/project-id": "p",
                "oidc.circleci.com/vcs-ref": "refs/heads/main",
                "oidc.circleci.com/context-ids": "c",
            },
        ),
        (
            "buildkite",
            {"organization": "acme", "pipeline": "*", "branch": "main"},
            "https://agent.buildkite.com",
            {"organization_slug": "acme", "pipeline_slug": "*", "build_branch": "main"},
        ),
    ],
)
def test_conditions_become_claims(
    provider: str, conditions: dict[str, str], issuer: str, claims: dict[str, str]
) -> None:
    rule = trust_rule(provider, conditions)
    assert (rule.issuer, rule.claims, rule.audience) == (issuer, claims, "")


def test_a_service_account_is_the_subject_of_its_token() -> None:
    rule = trust_rule("kubernetes", *[MINIMAL["kubernetes"][0]], issuer=CLUSTER)
    assert rule.claims == {"sub": "system:serviceaccount:web:app"}
    any_account = {"namespace": "web", "service-account": "*"}
    pattern = trust_rule("kubernetes", any_account, issuer=CLUSTER).claims["sub"]
    assert matches(pattern, "system:serviceaccount:web:anything")
    assert not matches(pattern, "system:serviceaccount:web2:anything")


def test_an_instance_of_ones_own_has_an_issuer_of_its_own() -> None:
    for provider, issuer in (
        ("gitlab", "https://gitlab.acme.example"),
        ("github", "https://github.acme.example/_services/token"),
        ("github", "https://token.actions.githubusercontent.com/acme"),
    ):
        assert trust_rule(provider, MINIMAL[provider][0], issuer=issuer).issuer == issuer


def test_claims_go_beside_conditions_and_never_over_them() -> None:
    rule = trust_rule("github", {"repository": "acme/app"}, claims={"actor": "alice"})
    assert rule.claims == {"repository": "acme/app", "actor": "alice"}
    with pytest.raises(InvalidTrustPolicy, match="given already"):
        trust_rule("github", {"repository": "acme/app"}, claims={"repository": "*"})
    with pytest.raises(InvalidTrustPolicy, match="given already"):
        trust_rule("github", {"repository": "acme/app", "branch": "main", "tag": "v1"})


@pytest.mark.parametrize("provider", Provider)
def test_every_provider_needs_what_tells_its_tokens_apart(provider: str) -> None:
    conditions, more = MINIMAL[provider]
    trust_rule(provider, conditions, **more)
    for name in conditions:
        without = {other: value for other, value in conditions.items() if other != name}
        with pytest.raises(InvalidTrustPolicy, match=name):
            trust_rule(provider, without, **more)
        with pytest.raises(InvalidTrustPolicy):
            trust_rule(provider, {**conditions, name: ""}, **more)


@pytest.mark.parametrize(
    ("provider", "changes"),
    [
        ("github", {"repository": "*"}),
        ("github", {"repository": "*/*"}),
        ("github", {"repository": "*/app"}),
        ("github", {"repository": "acme*"}),
        ("github", {"repository": "acme*/app"}),
        ("github", {"repository": "acme"}),
        ("github", {"repository": "acme/"}),
        ("github", {"repository": "/app"}),
        ("github", {"repository": "acme/app/more"}),
        ("github", {"repository": "https://github.com/acme/app"}),
        ("github", {"workflow": "../../evil/app/.github/workflows/build.yml"}),
        ("github", {"reusable-workflow": "*/.github/workflows/build.yml@main"}),
        ("github", {"reusable-workflow": "build.yml"}),
        ("github", {"owner-id": "*"}),
        ("gitlab", {"project": "*"}),
        ("gitlab", {"project": "*/app"}),
        ("gitlab", {"project": "acme"}),
        ("gitlab", {"ref-protected": "*"}),
        ("circleci", {"organization": "*"}),
        ("circleci", {"organization": "acme"}),
        ("circleci", {"project": "*"}),
        ("buildkite", {"organization": "*"}),
        ("buildkite", {"organization": "acme*"}),
        ("kubernetes", {"namespace": "*"}),
        ("kubernetes", {"namespace": "web:app"}),
        ("kubernetes", {"service-account": "a*"}),
        ("kubernetes", {"service-account": "a:b"}),
        ("github", {"branch": "a\nb"}),
        ("github", {"branch": "x" * 2000}),
        ("github", {"brunch": "main"}),
        ("generic", {"repository": "acme/app"}),
    ],
)
def test_what_would_trust_strangers_or_nobody_is_refused(
    provider: str, changes: dict[str, str]
) -> None:
    conditions, more = MINIMAL[provider]
    with pytest.raises(InvalidTrustPolicy):
        trust_rule(provider, {**conditions, **changes}, **more)


@pytest.mark.parametrize(
    "issuer",
    [
        "https://token.actions.githubusercontent.com",
        "https://token.actions.githubusercontent.com/acme",
        "https://gitlab.com",
        "https://gitlab.com/",
        "https://agent.buildkite.com",
        f"https://oidc.circleci.com/org/{ORGANIZATION}",
    ],
)
def test_an_issuer_of_everybodys_is_trusted_only_by_its_own_provider(issuer: str) -> None:
    for provider in ("generic", "kubernetes"):
        conditions, more = MINIMAL[provider]
        with pytest.raises(InvalidTrustPolicy, match="use the provider"):
            trust_rule(provider, conditions, **{**more, "issuer": issuer})


@pytest.mark.parametrize("claims", [{}, {"sub": "*"}, {"sub": "**", "team": "*"}])
def test_a_general_policy_says_something_of_who_is_meant(claims: dict[str, str]) -> None:
    with pytest.raises(InvalidTrustPolicy, match="everybody"):
        trust_rule("generic", {}, issuer="https://issuer.example", claims=claims)


@pytest.mark.parametrize(
    "issuer",
    [
        "",
        "issuer",
        "ftp://issuer.example",
        "https://",
        "https://user:password@issuer.example",
        "https://issuer.example?a=b",
        "https://issuer.example#a",
        "https://issuer.example:port",
        "https://issuer.example:0",
        "https://issuer.example/\na",
        "https://issuer.example/ a",
        "https://issuer.ex\xe4mple",
        "https://[::1",
        "https://issuer.example/" + "a" * 600,
    ],
)
def test_what_is_no_issuer_is_refused(issuer: str) -> None:
    with pytest.raises(InvalidTrustPolicy):
        trust_rule("generic", {}, issuer=issuer, claims={"sub": "a"})


def test_an_unknown_provider_or_grant_is_told_with_those_there_are() -> None:
    with pytest.raises(InvalidTrustPolicy, match="github, gitlab"):
        trust_rule("jenkins", {})
    with pytest.raises(InvalidTrustPolicy, match="project or pull"):
        trust_rule("github", {"repository": "acme/app"}, grants="admin")
    assert trust_rule("github", {"repository": "acme/app"}, grants="pull").grants == "pull"


def test_as_many_claims_as_said_and_no_longer_audience() -> None:
    many = {f"claim-{number}": "a" for number in range(30)}
    with pytest.raises(InvalidTrustPolicy, match="at most"):
        trust_rule("generic", {}, issuer="https://issuer.example", claims=many)
    with pytest.raises(InvalidTrustPolicy, match="audience"):
        trust_rule("github", {"repository": "acme/app"}, audience="a" * 600)


@given(text=st.text())
def test_any_text_is_an_issuer_or_refused(text: str) -> None:
    for tried in (text, f"https://{text}"):
        with contextlib.suppress(InvalidTrustPolicy):
            assert parse_issuer(tried) == tried


@given(
    provider=st.sampled_from(list(Provider)),
    values=st.lists(st.text(alphabet="ab/*{}:@.", max_size=10), min_size=8, max_size=8),
)
def test_no_condition_makes_a_pattern_of_another(provider: Provider, values: list[str]) -> None:
    names = list(CONDITIONS[provider])
    said = dict(zip(names, values, strict=False))
    try:
        rule = trust_rule(provider, said, issuer="https://issuer.example")
    except InvalidTrustPolicy:
        return
    for name, value in said.items():
        claim = CONDITIONS[provider][name].claim
        assert value.strip() in rule.claims[claim]
