"""Trust policies over the API, and what an ID token that they trust may do there."""

from typing import Any

import pytest
from connectrpc.code import Code

from layover.identity.trust_providers import GITHUB_ISSUER
from layover.rpc.depot.cli.v1 import build_pb as depot
from layover.rpc.layover.v1 import projects_pb, tokens_pb, trust_pb
from tests.oidc_provider.keys import sign
from tests.unit.builds.world import FOREIGN_PROJECT, PROJECT, SISTER_PROJECT
from tests.unit.http.rpc.api import HOST, Api, bearer, make_api, refusal

pytestmark = pytest.mark.anyio


@pytest.fixture
async def api() -> Api:
    api = await make_api()
    api.keys.add(GITHUB_ISSUER)
    return api


def request(**changes: Any) -> trust_pb.CreateTrustPolicyRequest:
    facts: dict[str, Any] = {
        "project_id": PROJECT,
        "name": "main",
        "provider": "github",
        "conditions": {"repository": "acme/app", "branch": "main"},
    }
    return trust_pb.CreateTrustPolicyRequest(**{**facts, **changes})


async def trusted(api: Api, **changes: Any) -> trust_pb.TrustPolicy:
    answer = await api.trust.create_trust_policy(request(**changes), headers=api.user)
    assert answer.policy is not None
    return answer.policy


def job(api: Api, **changes: Any) -> dict[str, str]:
    """The headers of a job on main in acme/app."""
    now = int(api.world.clock().timestamp())
    claims = {
        "iss": GITHUB_ISSUER,
        "aud": f"https://{HOST}",
        "sub": "repo:acme/app:ref:refs/heads/main",
        "iat": now,
        "exp": now + 300,
        "repository": "acme/app",
        "ref": "refs/heads/main",
        **changes,
    }
    return bearer(sign(api.keys.issuers[GITHUB_ISSUER], claims, "RS256", "current", {}))


async def test_a_policy_is_made_listed_and_deleted(api: Api) -> None:
    answer = await api.trust.create_trust_policy(request(), headers=api.user)
    assert answer.warning == ""
    policy = answer.policy
    assert policy is not None
    assert (policy.name, policy.provider, policy.issuer, policy.audience) == (
        "main",
        "github",
        GITHUB_ISSUER,
        "",
    )
    assert policy.claims == {"repository": "acme/app", "ref": "refs/heads/main"}
    assert policy.grants is trust_pb.Grant.PROJECT
    listed = await api.trust.list_trust_policies(
        trust_pb.ListTrustPoliciesRequest(project_id=PROJECT), headers=api.user
    )
    assert [each.id for each in listed.policies] == [policy.id]
    deletion = trust_pb.DeleteTrustPolicyRequest(project_id=PROJECT, policy_id=policy.id)
    await api.trust.delete_trust_policy(deletion, headers=api.user)
    assert await refusal(api.trust.delete_trust_policy(deletion, headers=api.user)) == (
        Code.NOT_FOUND,
        f"unknown trust policy {policy.id!r}",
    )


async def test_an_issuer_whose_keys_cannot_be_read_is_warned_of(api: Api) -> None:
    answer = await api.trust.create_trust_policy(
        request(issuer="https://ghe.example/_services/token"), headers=api.user
    )
    assert "there is no such host" in answer.warning
    assert answer.policy is not None


async def test_what_would_trust_strangers_is_refused_with_the_reason(api: Api) -> None:
    code, message = await refusal(
        api.trust.create_trust_policy(request(conditions={"repository": "*/app"}), headers=api.user)
    )
    assert (code, "owner" in message) == (Code.INVALID_ARGUMENT, True)


async def test_another_organizations_project_is_unknown(api: Api) -> None:
    for call in (
        api.trust.create_trust_policy(request(), headers=api.foreigner),
        api.trust.list_trust_policies(
            trust_pb.ListTrustPoliciesRequest(project_id=PROJECT), headers=api.foreigner
        ),
        api.trust.delete_trust_policy(
            trust_pb.DeleteTrustPolicyRequest(project_id=PROJECT, policy_id="a"),
            headers=api.foreigner,
        ),
    ):
        assert (await refusal(call))[0] is Code.NOT_FOUND


async def test_a_trusted_id_token_builds_in_the_project(api: Api) -> None:
    await trusted(api)
    headers = job(api)
    projects = await api.own_projects.list_projects(
        projects_pb.ListProjectsRequest(), headers=headers
    )
    assert [project.id for project in projects.projects] == [PROJECT]
    created = await api.builds.create_build(
        depot.CreateBuildRequest(options=[depot.BuildOptions(save=True)]), headers=headers
    )
    assert created.project_id == PROJECT
    pull = await api.builds.get_pull_token(
        depot.GetPullTokenRequest(project_id=PROJECT), headers=headers
    )
    assert pull.token.startswith("layover_")
    for project_id in (SISTER_PROJECT, FOREIGN_PROJECT):
        foreign = depot.CreateBuildRequest(project_id=project_id)
        assert (await refusal(api.builds.create_build(foreign, headers=headers)))[0] is (
            Code.NOT_FOUND
        )


async def test_an_id_token_that_may_pull_only_builds_nothing(api: Api) -> None:
    await trusted(api, grants=trust_pb.Grant.PULL)
    headers = job(api)
    await api.builds.get_pull_token(depot.GetPullTokenRequest(project_id=PROJECT), headers=headers)
    code, _ = await refusal(
        api.builds.create_build(depot.CreateBuildRequest(project_id=PROJECT), headers=headers)
    )
    assert code is Code.PERMISSION_DENIED


async def test_a_token_that_nobody_trusts_reads_as_any_that_is_not_valid(api: Api) -> None:
    await trusted(api)
    refusals = []
    for headers in (
        job(api, repository="evil/app"),
        job(api, exp=1),
        job(api, iss="https://unknown.example"),
        bearer("ey.ey.ey"),
        bearer("layover_unknown"),
        {},
    ):
        refusals.append(
            await refusal(
                api.own_projects.list_projects(projects_pb.ListProjectsRequest(), headers=headers)
            )
        )
    assert len(set(refusals)) == 1
    assert refusals[0][0] is Code.UNAUTHENTICATED
    assert api.keys.asked.count("https://unknown.example") == 0


async def test_an_id_token_is_traded_for_a_token_of_the_project(api: Api) -> None:
    await trusted(api)
    answer = await api.tokens.exchange_token(
        tokens_pb.ExchangeTokenRequest(project_id=PROJECT), headers=job(api)
    )
    assert answer.project_id == PROJECT
    assert answer.expires_at is not None
    traded = bearer(answer.token)
    await api.builds.create_build(depot.CreateBuildRequest(project_id=PROJECT), headers=traded)
    # And is traded no further.
    code, message = await refusal(
        api.tokens.exchange_token(
            tokens_pb.ExchangeTokenRequest(project_id=PROJECT), headers=traded
        )
    )
    assert (code, "no ID token" in message) == (Code.PERMISSION_DENIED, True)


async def test_without_a_project_the_only_one_that_trusts_it_is_meant(api: Api) -> None:
    await trusted(api)
    answer = await api.tokens.exchange_token(tokens_pb.ExchangeTokenRequest(), headers=job(api))
    assert answer.project_id == PROJECT
    await trusted(api, project_id=SISTER_PROJECT)
    code, _ = await refusal(
        api.tokens.exchange_token(tokens_pb.ExchangeTokenRequest(), headers=job(api))
    )
    assert code is Code.INVALID_ARGUMENT
    foreign = tokens_pb.ExchangeTokenRequest(project_id=FOREIGN_PROJECT)
    code, _ = await refusal(api.tokens.exchange_token(foreign, headers=job(api)))
    assert code is Code.NOT_FOUND


async def test_a_token_traded_for_pulls_alone_when_no_more_is_asked_for(api: Api) -> None:
    await trusted(api)
    answer = await api.tokens.exchange_token(
        tokens_pb.ExchangeTokenRequest(project_id=PROJECT, pull_only=True), headers=job(api)
    )
    code, _ = await refusal(
        api.builds.create_build(
            depot.CreateBuildRequest(project_id=PROJECT), headers=bearer(answer.token)
        )
    )
    assert code is Code.PERMISSION_DENIED
