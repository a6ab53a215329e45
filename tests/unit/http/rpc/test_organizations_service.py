"""What the messages say; who is answered what is in tests/access."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from protobuf.wkt import Duration

from layover.builds.address import PublicAddress
from layover.http.rpc import authentication
from layover.http.rpc.convert import to_timestamp
from layover.http.rpc.organizations_service import DepotOrganizationsRpc, OrganizationsRpc
from layover.identity.management import InvalidChange, InvalidLifetime
from layover.rpc.depot.core.v1 import organization_pb as depot
from layover.rpc.layover.v1 import organizations_pb as pb
from tests.unit.identity.tenancy import Tenancy, tenancy_in

pytestmark = pytest.mark.anyio

CTX = cast("Any", None)


@pytest.fixture
async def tenancy(tmp_path: Path) -> AsyncIterator[Tenancy]:
    async with tenancy_in(tmp_path) as tenancy:
        yield tenancy


async def rpc_of(tenancy: Tenancy, who: str) -> OrganizationsRpc:
    authentication._caller.set(await tenancy.caller(who))
    return OrganizationsRpc(tenancy.organizations, PublicAddress("https://layover.example/"))


async def test_a_listing_says_the_callers_own_role(tenancy: Tenancy) -> None:
    for who, role in (("viewer", pb.Role.VIEWER), ("organization", pb.Role.UNSPECIFIED)):
        rpc = await rpc_of(tenancy, who)
        listed = await rpc.list_organizations(pb.ListOrganizationsRequest(), CTX)
        assert [(each.id, each.role) for each in listed.organizations] == [("org", role)]
        public = await DepotOrganizationsRpc(tenancy.organizations).list_organizations(
            depot.ListOrganizationsRequest(), CTX
        )
        assert [(each.org_id, each.name) for each in public.organizations] == [("org", "org")]


async def test_whoever_makes_an_organization_is_told_to_own_it(tenancy: Tenancy) -> None:
    rpc = await rpc_of(tenancy, "owner")
    made = await rpc.create_organization(pb.CreateOrganizationRequest(name="new"), CTX)
    assert made.organization is not None
    assert (made.organization.name, made.organization.role) == ("new", pb.Role.OWNER)


async def test_an_invitation_is_a_link_to_a_page_of_this_server(tenancy: Tenancy) -> None:
    rpc = await rpc_of(tenancy, "owner")
    made = await rpc.invite_member(
        pb.InviteMemberRequest(role=pb.Role.MEMBER, note="Ann", lifetime=Duration(seconds=3600)),
        CTX,
    )
    assert made.url.startswith("https://layover.example/join/")
    assert made.invitation is not None
    assert (made.invitation.role, made.invitation.note) == (pb.Role.MEMBER, "Ann")
    assert made.invitation.created_by == "owner"
    assert made.invitation.expires_at == to_timestamp(tenancy.clock.now + timedelta(hours=1))
    listed = await rpc.list_invitations(pb.ListInvitationsRequest(), CTX)
    assert list(listed.invitations) == [made.invitation]
    secret = made.url.rpartition("/")[2]
    assert (await tenancy.organizations.accept("stranger", secret)).id == "org"
    members = await rpc.list_members(pb.ListMembersRequest(), CTX)
    joined = {member.user_id: member.role for member in members.members}
    assert joined["stranger"] is pb.Role.MEMBER


async def test_a_request_says_a_role_and_a_time_that_can_be(tenancy: Tenancy) -> None:
    rpc = await rpc_of(tenancy, "owner")
    with pytest.raises(InvalidChange, match="a role is needed"):
        await rpc.invite_member(pb.InviteMemberRequest(), CTX)
    with pytest.raises(InvalidChange, match="a role is needed"):
        await rpc.update_member(pb.UpdateMemberRequest(user_id="member"), CTX)
    for seconds, refusal in ((0, InvalidLifetime), (-1, InvalidLifetime), (1 << 62, InvalidChange)):
        request = pb.InviteMemberRequest(role=pb.Role.MEMBER, lifetime=Duration(seconds=seconds))
        with pytest.raises(refusal):
            await rpc.invite_member(request, CTX)


async def test_it_is_told_how_many_tokens_ended_with_a_members_rights(tenancy: Tenancy) -> None:
    second = await tenancy.caller("second")
    await tenancy.tokens.create_organization_token(second, "org", "", None)
    await tenancy.tokens.create_pull_token(second, await tenancy.mine(), None, None, "", None)
    rpc = await rpc_of(tenancy, "owner")
    changed = await rpc.update_member(
        pb.UpdateMemberRequest(user_id="second", role=pb.Role.MEMBER), CTX
    )
    assert changed.member is not None
    assert (changed.member.role, changed.revoked_tokens) == (pb.Role.MEMBER, 1)
    removed = await rpc.remove_member(pb.RemoveMemberRequest(user_id="second"), CTX)
    assert removed.revoked_tokens == 1
