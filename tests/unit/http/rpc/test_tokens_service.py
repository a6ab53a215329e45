"""What the messages say; who is answered what is in tests/access."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from protobuf.wkt import Duration

from layover.builds.address import PublicAddress
from layover.builds.errors import BuildUnknown, ProjectNotGiven
from layover.builds.life import BuildService
from layover.builds.models import Build, BuildOptions, BuildStatus
from layover.builds.pulls import PullService
from layover.http.rpc import authentication
from layover.http.rpc.convert import to_timestamp
from layover.http.rpc.tokens_service import TokensRpc
from layover.identity.management import InvalidChange, InvalidPlace
from layover.identity.models import Principal, ProjectPolicy, TokenKind
from layover.rpc.layover.v1 import tokens_pb as pb
from tests.unit.builds.memory import MemoryBuildStore, MemoryImages
from tests.unit.identity.tenancy import Tenancy, tenancy_in

pytestmark = pytest.mark.anyio

CTX = cast("Any", None)
HOUR = timedelta(hours=1)


@pytest.fixture
async def tenancy(tmp_path: Path) -> AsyncIterator[Tenancy]:
    async with tenancy_in(tmp_path) as tenancy:
        yield tenancy


async def rpc_of(tenancy: Tenancy, who: str, *builds: Build) -> TokensRpc:
    store = MemoryBuildStore()
    for build in builds:
        await store.add(build)
    address = PublicAddress("https://layover.example")
    service = BuildService(store, tenancy.identity, address, tenancy.clock)
    pulls = PullService(service, MemoryImages(), tenancy.identity, address)
    authentication._caller.set(await tenancy.caller(who))
    return TokensRpc(tenancy.tokens, tenancy.identity, service, pulls)


def build_of(tenancy: Tenancy, project_id: str = "mine") -> Build:
    """A build that finished, and lives for two hours more."""
    now = tenancy.clock.now
    return Build(
        id="bbbbbbbbbb",
        project_id=project_id,
        status=BuildStatus.FINISHED,
        options=(BuildOptions(save=True),),
        created_at=now,
        seen_at=now,
        finished_at=now,
        retention=2 * HOUR,
        expires_at=now + 2 * HOUR,
    )


async def test_a_caller_is_told_who_it_is(tenancy: Tenancy) -> None:
    told = await (await rpc_of(tenancy, "owner")).get_caller(pb.GetCallerRequest(), CTX)
    assert told.token is not None
    assert (told.token.kind, told.user_id, told.user_name) == (pb.TokenKind.USER, "owner", "owner")
    assert told.is_admin
    assert [each.id for each in told.organizations] == ["org"]
    told = await (await rpc_of(tenancy, "project")).get_caller(pb.GetCallerRequest(), CTX)
    assert told.token is not None
    assert (told.token.project_id, told.user_id, told.user_name) == ("mine", "", "")
    rpc = await rpc_of(tenancy, "owner")
    authentication._caller.set(Principal("policy", TokenKind.CI, name="github a job"))
    told = await rpc.get_caller(pb.GetCallerRequest(), CTX)
    assert told.token == pb.Token(id="policy", kind=pb.TokenKind.CI, description="github a job")


async def test_a_secret_is_in_the_answer_and_in_no_listing(tenancy: Tenancy) -> None:
    rpc = await rpc_of(tenancy, "owner")
    made = await rpc.create_token(
        pb.CreateTokenRequest(
            kind=pb.TokenKind.PROJECT, description="CI", lifetime=Duration(seconds=3600)
        ),
        CTX,
    )
    assert made.token is not None
    assert (made.token.project_id, made.token.description) == ("mine", "CI")
    assert made.token.expires_at == to_timestamp(tenancy.clock.now + HOUR)
    assert (await tenancy.identity.authenticate(made.secret)).token_id == made.token.id
    listed = await rpc.list_tokens(pb.ListTokensRequest(project_id="mine"), CTX)
    assert made.token in listed.tokens
    assert made.secret not in repr(listed)
    revoked = await rpc.revoke_token(pb.RevokeTokenRequest(token_id=made.token.id), CTX)
    assert revoked.revoked_tokens == 1


async def test_a_builds_pull_token_ends_with_it(tenancy: Tenancy) -> None:
    rpc = await rpc_of(tenancy, "viewer", build_of(tenancy))
    request = pb.CreateTokenRequest(
        kind=pb.TokenKind.PULL, build_id="bbbbbbbbbb", lifetime=Duration(seconds=30 * 86400)
    )
    made = await rpc.create_token(request, CTX)
    assert made.token is not None
    assert (made.token.project_id, made.token.build_id) == ("mine", "bbbbbbbbbb")
    assert made.token.expires_at == to_timestamp(tenancy.clock.now + 2 * HOUR)
    # One of another project reads as one that is not there.
    rpc = await rpc_of(tenancy, "viewer", build_of(tenancy, "foreign"))
    with pytest.raises(BuildUnknown):
        await rpc.create_token(request, CTX)


@pytest.mark.parametrize(
    "request_",
    [
        pb.CreateTokenRequest(),
        pb.CreateTokenRequest(kind=pb.TokenKind.BUILD, project_id="mine", build_id="b"),
        pb.CreateTokenRequest(kind=pb.TokenKind.CI),
        pb.CreateTokenRequest(kind=pb.TokenKind.USER, organization_id="org"),
        pb.CreateTokenRequest(kind=pb.TokenKind.USER, project_id="mine"),
        pb.CreateTokenRequest(kind=pb.TokenKind.ORGANIZATION, project_id="mine"),
        pb.CreateTokenRequest(kind=pb.TokenKind.PROJECT, project_id="mine", build_id="b"),
        pb.CreateTokenRequest(kind=pb.TokenKind.PULL, organization_id="org"),
        pb.CreateTokenRequest(kind=pb.TokenKind.USER, lifetime=Duration(seconds=1 << 62)),
    ],
    ids=str,
)
async def test_what_does_not_go_with_a_kind_is_refused_and_not_ignored(
    request_: pb.CreateTokenRequest, tenancy: Tenancy
) -> None:
    rpc = await rpc_of(tenancy, "owner")
    with pytest.raises(InvalidChange):
        await rpc.create_token(request_, CTX)


async def test_pages_lead_to_each_other(tenancy: Tenancy) -> None:
    rpc = await rpc_of(tenancy, "owner")
    request = pb.ListTokensRequest(organization_id="org", page_size=2)
    first = await rpc.list_tokens(request, CTX)
    assert len(first.tokens) == 2
    request.page_token = first.next_page_token
    second = await rpc.list_tokens(request, CTX)
    assert len(second.tokens) == 1
    assert second.next_page_token == ""
    request.page_token = "nothing"
    with pytest.raises(InvalidPlace):
        await rpc.list_tokens(request, CTX)
    with pytest.raises(InvalidChange):
        await rpc.list_tokens(pb.ListTokensRequest(page_size=-1), CTX)


async def test_a_project_has_to_be_named_where_there_are_several(tenancy: Tenancy) -> None:
    await tenancy.projects.create(await tenancy.caller("owner"), None, "two", ProjectPolicy())
    rpc = await rpc_of(tenancy, "owner")
    with pytest.raises(ProjectNotGiven):
        await rpc.create_token(pb.CreateTokenRequest(kind=pb.TokenKind.PULL), CTX)
