"""An ID token that a real provider signed opens what policies say, and no forged one anything."""

import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from layover.adapters.issuer_keys import HttpIssuerKeys
from layover.adapters.sql.tokens import SqlTokenStore
from layover.adapters.sql.trust import SqlTrustStore
from layover.identity.access import Action, may
from layover.identity.models import (
    ActionDenied,
    Grant,
    Principal,
    Project,
    ProjectUnknown,
    Role,
    TokenKind,
    Unauthenticated,
)
from layover.identity.service import TRADED_LIFETIME, IdentityService
from layover.identity.trust import InvalidTrustPolicy, TrustPolicy, TrustPolicyUnknown
from layover.identity.trust_service import MAX_POLICIES, TrustService
from layover.outbound.client import outbound_client
from layover.outbound.rules import LOOPBACK, OutboundRules
from tests.oidc_provider import Issuer, OidcProvider
from tests.stores import Stores, opened
from tests.unit.identity.clock import Clock

pytestmark = pytest.mark.anyio

SERVER = "https://layover.example"
OWNER = Principal("t1", TokenKind.USER, roles={"org": Role.OWNER})
MEMBER = Principal("t2", TokenKind.USER, roles={"org": Role.MEMBER})
STRANGER = Principal("t3", TokenKind.USER, roles={"other-org": Role.OWNER})
ORGANIZATION_ID = "11111111-2222-3333-4444-555555555555"


@dataclass
class Trust:
    """The service on a database, with one issuer of its own."""

    service: TrustService
    identity: IdentityService
    issuer: Issuer
    clock: Clock

    async def policy(
        self,
        provider: str = "github",
        project_id: str = "mine",
        grants: Grant = Grant.PROJECT,
        audience: str = "",
        claims: dict[str, str] | None = None,
        conditions: dict[str, str] | None = None,
    ) -> TrustPolicy:
        if conditions is None:
            conditions = {} if provider == "generic" else {"repository": "acme/app"}
        return await self.service.create_policy(
            OWNER if project_id == "mine" else STRANGER,
            project_id,
            "a test's",
            provider,
            conditions,
            claims=claims or {},
            issuer=self.issuer.url,
            audience=audience,
            grants=grants,
        )

    def job(self, **how: Any) -> str:
        """A token of a job in acme/app."""
        claims = {"aud": SERVER, "repository": "acme/app", "ref": "refs/heads/main"}
        return self.issuer.sign({**claims, **how.pop("claims", {})}, **how)

    async def refuse(self, token: str) -> None:
        with pytest.raises(Unauthenticated) as caught:
            await self.service.authenticate(token)
        assert str(caught.value) == str(Unauthenticated())

    async def project(self, project_id: str = "mine") -> Project:
        found = await self.identity._store.find_project(project_id)
        assert found is not None
        return found


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    with opened(tmp_path) as stores:
        yield stores


@pytest.fixture
async def trust(stores: Stores, provider: OidcProvider) -> AsyncIterator[Trust]:
    # The provider signs by the real time; what is stored is judged by the same clock.
    clock = Clock()
    clock.now = clock.now.now(clock.now.tzinfo)
    issuer = provider.issuer(secrets.token_hex(8))
    rules = OutboundRules(LOOPBACK, frozenset({provider.host_port}))
    async with outbound_client(rules) as client:
        identity = IdentityService(stores.identity, clock)
        store = SqlTrustStore(stores.database)
        service = TrustService(store, identity, HttpIssuerKeys(client), clock, SERVER)
        yield Trust(service, identity, issuer, clock)


JOBS: dict[str, tuple[str, dict[str, str], dict[str, Any], dict[str, Any]]] = {
    # provider, conditions, claims of a job that is meant, what another job has
    "github": (
        "github",
        {"repository": "acme/app", "branch": "main", "environment": "prod", "workflow": "b.yml"},
        {
            "sub": "repo:acme/app:environment:prod",
            "aud": SERVER,
            "repository": "acme/app",
            "repository_owner": "acme",
            "repository_id": "1",
            "ref": "refs/heads/main",
            "ref_type": "branch",
            "environment": "prod",
            "workflow_ref": "acme/app/.github/workflows/b.yml@refs/heads/main",
            "run_id": "12",
        },
        {
            "repository": "evil/app",
            "ref": "refs/heads/main2",
            "environment": None,
            "workflow_ref": "acme/app/.github/workflows/other.yml@refs/heads/main",
        },
    ),
    "gitlab": (
        "gitlab",
        {"project": "acme/group/*", "ref": "main", "ref-type": "branch"},
        {
            "sub": "project_path:acme/group/app:ref_type:branch:ref:main",
            "aud": SERVER,
            "project_path": "acme/group/app",
            "ref": "main",
            "ref_type": "branch",
            "ref_protected": "true",
            "runner_id": 5,
            "groups_direct": ["acme"],
        },
        {"project_path": "acme/groups/app", "ref": "dev", "ref_type": "tag"},
    ),
    "circleci": (
        "circleci",
        {"project": "p-1", "branch": "main"},
        {
            "sub": f"org/{ORGANIZATION_ID}/project/p-1/user/u",
            "aud": [SERVER],
            "oidc.circleci.com/project-id": "p-1",
            "oidc.circleci.com/context-ids": ["c"],
            "oidc.circleci.com/vcs-ref": "refs/heads/main",
        },
        {"oidc.circleci.com/project-id": "p-2", "oidc.circleci.com/vcs-ref": "refs/heads/dev"},
    ),
    "buildkite": (
        "buildkite",
        {"organization": "acme", "pipeline": "app", "branch": "main"},
        {
            "sub": "organization:acme:pipeline:app:ref:refs/heads/main:commit:9f3:step:build",
            "aud": SERVER,
            "organization_slug": "acme",
            "pipeline_slug": "app",
            "build_number": 1,
            "build_branch": "main",
            "step_key": None,
        },
        {"organization_slug": "acme2", "pipeline_slug": "app2", "build_branch": "dev"},
    ),
    "kubernetes": (
        "kubernetes",
        {"namespace": "web", "service-account": "puller"},
        {
            "sub": "system:serviceaccount:web:puller",
            "aud": [SERVER],
            "kubernetes.io": {
                "namespace": "web",
                "serviceaccount": {"name": "puller", "uid": "u"},
                "pod": {"name": "p", "uid": "u"},
            },
        },
        {"sub": "system:serviceaccount:other:puller"},
    ),
}


@pytest.mark.parametrize("system", JOBS)
async def test_a_job_of_each_system_is_known_by_its_claims(trust: Trust, system: str) -> None:
    provider, conditions, claims, others = JOBS[system]
    policy = await trust.policy(provider, conditions=conditions)
    principal = await trust.service.authenticate(trust.issuer.sign(claims))
    assert (principal.kind, principal.grants, principal.policies) == (
        TokenKind.CI,
        {"mine": Grant.PROJECT},
        {"mine": policy.id},
    )
    assert principal.name == f"{provider} {claims['sub']}"
    for name, value in others.items():
        await trust.refuse(trust.issuer.sign({**claims, name: value}))
        if name != "sub":
            await trust.refuse(trust.issuer.sign(claims, without=(name,)))


async def test_a_general_policy_is_of_any_issuer_and_its_claims(trust: Trust) -> None:
    await trust.policy("generic", claims={"team": "a-*", "/ci/stage": "prod"})
    good = {"aud": SERVER, "team": "a-1", "ci": {"stage": "prod"}}
    assert await trust.service.authenticate(trust.issuer.sign(good))
    await trust.refuse(trust.issuer.sign({**good, "team": "b"}))
    await trust.refuse(trust.issuer.sign({**good, "ci": "prod"}))


@pytest.mark.parametrize(
    "how",
    [
        {"key": "foreign"},
        {"key": "header"},
        {"algorithm": "none"},
        {"algorithm": "HS256"},
        {"algorithm": "ES256", "key": "foreign"},
        {"headers": {"jku": "http://127.0.0.1:1/jwks"}},
        {"headers": {"kid": "unknown"}},
        {"claims": {"aud": "https://other.example"}},
        {"claims": {"aud": f"{SERVER}/"}},
        {"claims": {"exp": 1_000_000_000}},
        {"claims": {"nbf": 4_000_000_000}},
        {"claims": {"iat": 4_000_000_000}},
        {"claims": {"iss": "https://other.example"}},
        {"without": ("exp",)},
        {"without": ("sub",)},
        {"without": ("aud",)},
        {"without": ("iss",)},
        {"claims": {"iss": 5}},
        {"claims": {"sub": None}},
    ],
    ids=str,
)
async def test_a_token_that_is_not_the_issuers_own_for_us_is_refused(
    trust: Trust, how: dict[str, Any]
) -> None:
    await trust.policy()
    await trust.service.authenticate(trust.job())
    await trust.refuse(trust.job(**how))


async def test_an_altered_token_is_refused(trust: Trust) -> None:
    await trust.policy()
    header, claims, signature = trust.job().split(".")
    _, others, _ = trust.job(claims={"repository": "evil/app"}).split(".")
    await trust.refuse(f"{header}.{others}.{signature}")
    await trust.refuse(f"{header}.{claims}.{signature[:-6]}AAAAAA")


async def test_an_issuer_that_nobody_trusts_is_never_asked(trust: Trust) -> None:
    await trust.refuse(trust.job())
    assert trust.issuer.asked("discovery") == 0


async def test_a_token_of_the_key_that_was_rotated_in_is_accepted(trust: Trust) -> None:
    await trust.policy()
    trust.issuer.rotate()
    assert await trust.service.authenticate(trust.job())


async def test_a_policy_that_is_deleted_trusts_nobody_any_more(trust: Trust) -> None:
    policy = await trust.policy()
    token = trust.job()
    caller = await trust.service.authenticate(token)
    traded = await trust.identity.trade(caller, await trust.project(), pull_only=False)
    assert await trust.identity.authenticate(traded.secret)
    await trust.service.delete_policy(OWNER, "mine", policy.id)
    await trust.refuse(token)
    with pytest.raises(Unauthenticated):
        await trust.identity.authenticate(traded.secret)
    # Also for whom was let in a moment before.
    with pytest.raises(Unauthenticated):
        await trust.identity.trade(caller, await trust.project(), pull_only=False)
    with pytest.raises(Unauthenticated):
        await trust.identity.create_pull_token(caller, await trust.project())


async def test_an_id_token_opens_the_projects_that_trust_it_and_no_other(trust: Trust) -> None:
    await trust.policy()
    mine = await trust.service.authenticate(trust.job())
    assert [project.id for project in await trust.identity.list_projects(mine)] == ["mine"]
    assert not may(mine, Action.SEE_PROJECT, await trust.project("foreign"))
    await trust.policy(project_id="foreign", grants=Grant.PULL)
    both = await trust.service.authenticate(trust.job())
    assert both.grants == {"mine": Grant.PROJECT, "foreign": Grant.PULL}
    assert may(both, Action.PULL, await trust.project("foreign"))
    assert not may(both, Action.PUSH, await trust.project("foreign"))
    with pytest.raises(ProjectUnknown):
        await trust.identity.authorize(mine, Action.PULL, "foreign")


async def test_of_several_policies_of_a_project_the_one_that_gives_more_counts(
    trust: Trust,
) -> None:
    await trust.policy(grants=Grant.PULL)
    more = await trust.policy()
    await trust.policy(grants=Grant.PULL)
    principal = await trust.service.authenticate(trust.job())
    assert (principal.grants, principal.policies) == ({"mine": Grant.PROJECT}, {"mine": more.id})


async def test_an_audience_of_a_policys_own_is_the_only_one_for_it(trust: Trust) -> None:
    await trust.policy(audience="ours")
    assert await trust.service.authenticate(trust.job(claims={"aud": "ours"}))
    await trust.refuse(trust.job())
    # Another policy's audience opens that one's project alone.
    await trust.policy(project_id="foreign")
    assert (await trust.service.authenticate(trust.job())).grants == {"foreign": Grant.PROJECT}


@pytest.mark.parametrize(
    ("grants", "pull_only", "kind"),
    [
        (Grant.PROJECT, False, TokenKind.PROJECT),
        (Grant.PROJECT, True, TokenKind.PULL),
        (Grant.PULL, False, TokenKind.PULL),
        (Grant.PULL, True, TokenKind.PULL),
    ],
)
async def test_an_id_token_is_traded_for_a_token_that_may_no_more_and_ends_soon(
    trust: Trust, grants: Grant, pull_only: bool, kind: TokenKind
) -> None:
    await trust.policy(grants=grants)
    caller = await trust.service.authenticate(trust.job())
    traded = await trust.identity.trade(caller, await trust.project(), pull_only=pull_only)
    principal = await trust.identity.authenticate(traded.secret)
    assert (principal.kind, principal.project_id) == (kind, "mine")
    assert principal.name == "github subject"
    assert traded.expires_at == trust.clock.now + TRADED_LIFETIME
    trust.clock.advance(TRADED_LIFETIME - timedelta(seconds=1))
    assert await trust.identity.authenticate(traded.secret)
    trust.clock.advance(timedelta(seconds=1))
    with pytest.raises(Unauthenticated):
        await trust.identity.authenticate(traded.secret)
    assert traded.secret not in repr(traded)


async def test_only_an_id_token_is_traded_and_only_where_it_is_trusted(trust: Trust) -> None:
    await trust.policy()
    caller = await trust.service.authenticate(trust.job())
    with pytest.raises(ActionDenied, match="no ID token"):
        await trust.identity.trade(caller, await trust.project("foreign"), pull_only=True)
    with pytest.raises(ActionDenied, match="no ID token"):
        await trust.identity.trade(OWNER, await trust.project(), pull_only=True)


async def test_what_an_id_token_made_itself_ends_with_its_policy(trust: Trust) -> None:
    policy = await trust.policy()
    caller = await trust.service.authenticate(trust.job())
    pull = await trust.identity.create_pull_token(caller, await trust.project())
    assert await trust.identity.authenticate(pull)
    await trust.service.delete_policy(OWNER, "mine", policy.id)
    with pytest.raises(Unauthenticated):
        await trust.identity.authenticate(pull)


async def test_what_an_id_token_made_itself_lives_for_an_hour_at_most(
    trust: Trust, stores: Stores
) -> None:
    await trust.policy()
    caller = await trust.service.authenticate(trust.job())
    project = await trust.project()
    made = Principal("", TokenKind.PULL, project.organization_id, project_id=project.id)
    for asked, got in (
        (timedelta(days=365), timedelta(hours=1)),
        (timedelta(minutes=5), timedelta(minutes=5)),
    ):
        token_id, _ = await trust.identity.issue(
            made, "a test's", asked, caller, Action.CREATE_PULL_TOKEN, project
        )
        token = await SqlTokenStore(stores.database).find_token(token_id, trust.clock.now)
        assert token is not None
        assert token.expires_at == trust.clock.now + got


async def test_a_subject_is_told_as_one_short_line(trust: Trust) -> None:
    await trust.policy()
    subject = "a\nb\x1b[31m" + "c" * 1000
    principal = await trust.service.authenticate(trust.job(claims={"sub": subject}))
    assert principal.name.startswith("github a?b?[31mccc")
    assert len(principal.name) < 250


async def test_only_an_owner_says_who_is_trusted(trust: Trust) -> None:
    policy = await trust.policy()
    caller = await trust.service.authenticate(trust.job())
    for principal, error in (
        (MEMBER, ActionDenied),
        (caller, ActionDenied),
        (STRANGER, ProjectUnknown),
    ):
        with pytest.raises(error):
            await trust.service.list_policies(principal, "mine")
        with pytest.raises(error):
            await trust.service.delete_policy(principal, "mine", policy.id)
        with pytest.raises(error):
            await trust.service.create_policy(
                principal,
                "mine",
                "evil",
                "github",
                {"repository": "evil/app"},
                claims={},
                issuer="",
                audience="",
                grants=Grant.PROJECT,
            )
    assert [each.id for each in await trust.service.list_policies(OWNER, "mine")] == [policy.id]


async def test_another_projects_policy_is_no_policy(trust: Trust) -> None:
    other = await trust.policy(project_id="foreign")
    with pytest.raises(TrustPolicyUnknown):
        await trust.service.delete_policy(OWNER, "mine", other.id)
    assert await trust.service.list_policies(STRANGER, "foreign") == [other]


async def test_an_issuer_without_keys_is_told_to_whoever_trusts_it(trust: Trust) -> None:
    trust.issuer.answer_with("discovery", status=404)
    policy = await trust.policy()
    assert "status 404" in await trust.service.problem(policy)


async def test_an_issuer_with_keys_is_no_problem(trust: Trust) -> None:
    assert await trust.service.problem(await trust.policy()) == ""


@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 101])
async def test_a_policy_has_a_name(trust: Trust, name: str) -> None:
    with pytest.raises(InvalidTrustPolicy, match="name"):
        await trust.service.create_policy(
            OWNER,
            "mine",
            name,
            "github",
            {"repository": "acme/app"},
            claims={},
            issuer="",
            audience="",
            grants=Grant.PROJECT,
        )


async def test_a_project_has_a_bounded_number_of_policies(trust: Trust) -> None:
    for _ in range(MAX_POLICIES):
        await trust.policy()
    with pytest.raises(InvalidTrustPolicy, match="at most"):
        await trust.policy()
