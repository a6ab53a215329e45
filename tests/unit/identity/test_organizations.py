from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from layover.identity.access import Action
from layover.identity.management import (
    AlreadyMember,
    InvalidLifetime,
    InvitationUnknown,
    LastOwner,
    MemberUnknown,
    OrganizationNotEmpty,
    OrganizationNotGiven,
)
from layover.identity.models import (
    ActionDenied,
    OrganizationUnknown,
    Principal,
    ProjectUnknown,
    Role,
    TokenKind,
    Unauthenticated,
)
from layover.identity.names import InvalidName
from tests.unit.identity.tenancy import Tenancy

pytestmark = pytest.mark.anyio

Call = Callable[[Tenancy, Principal, str], Awaitable[object]]

# Each thing that can be done in an organization, and what it takes.
CALLS: dict[str, tuple[Action, Call]] = {
    "rename": (
        Action.UPDATE_ORGANIZATION,
        lambda tenancy, caller, org: tenancy.organizations.rename(caller, org, "Renamed"),
    ),
    "delete": (
        Action.UPDATE_ORGANIZATION,
        lambda tenancy, caller, org: tenancy.organizations.delete(caller, org),
    ),
    "list members": (
        Action.SEE_MEMBERS,
        lambda tenancy, caller, org: tenancy.organizations.list_members(caller, org),
    ),
    "update a member": (
        Action.MANAGE_MEMBERS,
        lambda tenancy, caller, org: tenancy.organizations.update_member(
            caller, org, "member", Role.OWNER
        ),
    ),
    "remove a member": (
        Action.MANAGE_MEMBERS,
        lambda tenancy, caller, org: tenancy.organizations.remove_member(caller, org, "member"),
    ),
    "invite": (
        Action.MANAGE_MEMBERS,
        lambda tenancy, caller, org: tenancy.organizations.invite(caller, org, Role.OWNER),
    ),
    "list invitations": (
        Action.MANAGE_MEMBERS,
        lambda tenancy, caller, org: tenancy.organizations.list_invitations(caller, org),
    ),
    "delete an invitation": (
        Action.MANAGE_MEMBERS,
        lambda tenancy, caller, org: tenancy.organizations.delete_invitation(caller, org, "x"),
    ),
}


@pytest.mark.parametrize("name", CALLS)
async def test_what_a_caller_may_not_do_in_its_own_organization_is_denied_by_name(
    name: str, tenancy: Tenancy
) -> None:
    action, call = CALLS[name]
    for who in ("member", "viewer", "organization"):
        if who == "member" and action is Action.SEE_MEMBERS:
            continue
        with pytest.raises(ActionDenied) as caught:
            await call(tenancy, await tenancy.caller(who), "org")
        assert str(caught.value) == f"this token may not {action}"


@pytest.mark.parametrize("name", CALLS)
async def test_another_organization_reads_as_one_that_does_not_exist(
    name: str, tenancy: Tenancy
) -> None:
    _, call = CALLS[name]
    for who in ("owner", "organization", "project", "pull"):
        told = set()
        for organization_id in ("other-org", "nosuchorga"):
            with pytest.raises(OrganizationUnknown) as caught:
                await call(tenancy, await tenancy.caller(who), organization_id)
            told.add(str(caught.value).replace(organization_id, "ID"))
        assert len(told) == 1


async def test_a_caller_sees_the_organizations_that_it_is_in(tenancy: Tenancy) -> None:
    async def seen(who: str) -> list[str]:
        listed = await tenancy.organizations.list_organizations(await tenancy.caller(who))
        return [organization.id for organization in listed]

    assert await seen("owner") == await seen("viewer") == await seen("organization") == ["org"]
    assert await seen("stranger") == ["other-org"]
    # Of a token of one project its organization's name is what the project tells.
    assert await seen("project") == await seen("pull") == []
    tenancy.join("viewer", "other-org", Role.MEMBER)
    assert await seen("viewer") == ["org", "other-org"]


async def test_an_organization_need_not_be_named_where_there_is_one(tenancy: Tenancy) -> None:
    viewer = await tenancy.caller("viewer")
    found = await tenancy.organizations.find(viewer, Action.SEE_ORGANIZATION, None)
    assert found.id == "org"
    tenancy.join("viewer", "other-org", Role.MEMBER)
    with pytest.raises(OrganizationNotGiven, match="org, other-org"):
        await tenancy.organizations.find(
            await tenancy.caller("viewer"), Action.SEE_ORGANIZATION, ""
        )
    with pytest.raises(OrganizationNotGiven, match="none"):
        await tenancy.organizations.find(
            await tenancy.caller("project"), Action.SEE_ORGANIZATION, ""
        )


async def test_administrators_make_organizations_and_own_them(tenancy: Tenancy) -> None:
    owner = await tenancy.caller("owner")
    made = await tenancy.organizations.create(owner, "  Acme  ")
    assert made.name == "Acme"
    assert (await tenancy.caller("owner")).roles[made.id] is Role.OWNER
    with pytest.raises(InvalidName):
        await tenancy.organizations.create(owner, "a\u202eb")
    for who in ("second", "organization", "project"):
        with pytest.raises(ActionDenied):
            await tenancy.organizations.create(await tenancy.caller(who), "Mine")
    tenancy.make_admin("owner", is_admin=False)
    with pytest.raises(ActionDenied):
        await tenancy.organizations.create(await tenancy.caller("owner"), "Mine")


async def test_an_organization_is_deleted_when_nothing_is_in_it(tenancy: Tenancy) -> None:
    owner = await tenancy.caller("owner")
    with pytest.raises(OrganizationNotEmpty, match="1 project:"):
        await tenancy.organizations.delete(owner, "org")
    await tenancy.projects.delete(owner, "mine")
    await tenancy.organizations.delete(owner, "org")
    with pytest.raises(OrganizationUnknown):
        await tenancy.organizations.delete(owner, "org")
    with pytest.raises(Unauthenticated):
        await tenancy.caller("organization")
    assert (await tenancy.caller("owner")).roles == {}


async def test_a_removed_member_has_lost_everything_with_its_next_request(
    tenancy: Tenancy,
) -> None:
    mine = await tenancy.mine()
    pull = await tenancy.tokens.create_pull_token(
        await tenancy.caller("member"), mine, None, None, "", None
    )
    before = await tenancy.caller("member")
    owner = await tenancy.caller("owner")
    assert await tenancy.organizations.remove_member(owner, "org", "member") == 1
    assert (await tenancy.caller("member")).roles == {}
    with pytest.raises(Unauthenticated):
        await tenancy.identity.authenticate(pull.secret)
    # Also with a request that was authorized before, and makes something now.
    with pytest.raises(ProjectUnknown):
        await tenancy.identity.create_pull_token(before, mine)
    with pytest.raises(MemberUnknown):
        await tenancy.organizations.remove_member(owner, "org", "member")


async def test_an_owner_who_becomes_a_viewer_keeps_what_viewers_make(tenancy: Tenancy) -> None:
    mine = await tenancy.mine()
    second, owner = await tenancy.caller("second"), await tenancy.caller("owner")
    project = await tenancy.tokens.create_project_token(second, mine, "", None)
    pull = await tenancy.tokens.create_pull_token(second, mine, None, None, "", None)
    build = await tenancy.identity.create_build_token(second, mine, "build", frozenset())
    invitation = await tenancy.organizations.invite(second, "org", Role.OWNER)
    member, ended = await tenancy.organizations.update_member(owner, "org", "second", Role.VIEWER)
    assert (member.role, ended) == (Role.VIEWER, 2)
    for secret in (project.secret, build):
        with pytest.raises(Unauthenticated):
            await tenancy.identity.authenticate(secret)
    assert await tenancy.identity.authenticate(pull.secret)
    with pytest.raises(InvitationUnknown):
        await tenancy.organizations.accept("stranger", invitation.secret)


async def test_the_last_owner_can_neither_go_nor_become_less(tenancy: Tenancy) -> None:
    owner = await tenancy.caller("owner")
    await tenancy.organizations.remove_member(owner, "org", "second")
    with pytest.raises(LastOwner):
        await tenancy.organizations.remove_member(owner, "org", "owner")
    with pytest.raises(LastOwner):
        await tenancy.organizations.update_member(owner, "org", "owner", Role.MEMBER)
    with pytest.raises(MemberUnknown):
        await tenancy.organizations.update_member(owner, "org", "stranger", Role.OWNER)


async def test_an_invitation_is_a_secret_that_works_once_and_for_a_while(
    tenancy: Tenancy,
) -> None:
    owner = await tenancy.caller("owner")
    made = await tenancy.organizations.invite(owner, None, Role.VIEWER, " for Ann ")
    assert made.secret not in repr(made)
    assert len(made.secret) >= 32
    invitation, organization = await tenancy.organizations.find_invitation(made.secret)
    assert (invitation, organization.id) == (made.invitation, "org")
    assert (invitation.note, invitation.created_by_name) == ("for Ann", "owner")
    assert invitation.expires_at == tenancy.clock.now + timedelta(days=7)
    assert await tenancy.organizations.list_invitations(owner, "org") == [invitation]
    with pytest.raises(AlreadyMember):
        await tenancy.organizations.accept("member", made.secret)
    assert (await tenancy.organizations.accept("stranger", made.secret)).id == "org"
    assert (await tenancy.caller("stranger")).roles["org"] is Role.VIEWER
    for secret in (made.secret, "", "nothing", "nothing\x00"):
        with pytest.raises(InvitationUnknown):
            await tenancy.organizations.accept("stranger", secret)
        with pytest.raises(InvitationUnknown):
            await tenancy.organizations.find_invitation(secret)


async def test_invitations_end_by_their_time_or_when_they_are_deleted(tenancy: Tenancy) -> None:
    owner = await tenancy.caller("owner")
    hour = timedelta(hours=1)
    over = await tenancy.organizations.invite(owner, "org", Role.VIEWER, lifetime=hour)
    deleted = await tenancy.organizations.invite(owner, "org", Role.VIEWER)
    await tenancy.organizations.delete_invitation(owner, "org", deleted.invitation.id)
    with pytest.raises(InvitationUnknown):
        await tenancy.organizations.delete_invitation(owner, "org", deleted.invitation.id)
    tenancy.clock.advance(hour)
    for made in (over, deleted):
        with pytest.raises(InvitationUnknown):
            await tenancy.organizations.accept("stranger", made.secret)
    assert await tenancy.organizations.list_invitations(owner, "org") == []
    assert await tenancy.organizations.forget_over_invitations() == 1
    for lifetime in (timedelta(0), timedelta(days=-1), timedelta(days=91)):
        with pytest.raises(InvalidLifetime):
            await tenancy.organizations.invite(owner, "org", Role.VIEWER, lifetime=lifetime)


async def test_an_id_token_sees_no_organization(tenancy: Tenancy) -> None:
    ci = Principal("ci", TokenKind.CI)
    assert await tenancy.organizations.list_organizations(ci) == []
