"""What every OrganizationStore does, on every database."""

import asyncio
from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta

import pytest

from layover.identity.management import (
    Actor,
    AlreadyMember,
    Invitation,
    LastOwner,
    MemberUnknown,
    OrganizationNotEmpty,
    TooMany,
)
from layover.identity.models import Organization, Role, TokenKind
from tests.contract.tenants import Refused, Tenants, anybody, owner
from tests.stores import NOW, Stores

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)
EVERY_KIND = (TokenKind.ORGANIZATION, TokenKind.PROJECT, TokenKind.PULL, TokenKind.BUILD)
INVITATION = Invitation(
    id="invitation",
    organization_id="org",
    role=Role.MEMBER,
    note="for the new one",
    created_by="owner",
    created_by_name="name of owner",
    created_at=NOW,
    expires_at=NOW + HOUR,
)


@pytest.fixture
async def tenants(stores: Stores) -> Tenants:
    tenants = Tenants(stores)
    await tenants.add_users()
    return tenants


async def change(
    tenants: Tenants,
    user_id: str,
    role: Role | None,
    actor: Actor | None = None,
    kinds: Collection[TokenKind] = EVERY_KIND,
    *,
    ends_invitations: bool = True,
) -> int:
    return await tenants.organizations.change_member(
        "org",
        user_id,
        role,
        actor or owner(),
        NOW,
        ended_kinds=kinds,
        ends_invitations=ends_invitations,
    )


async def invite(
    tenants: Tenants, invitation: Invitation = INVITATION, secret: bytes = b"secret", limit: int = 9
) -> None:
    await tenants.organizations.add_invitation(
        invitation, secret, owner(invitation.created_by), limit
    )


async def roles(tenants: Tenants) -> dict[str, Role]:
    return {
        member.user_id: member.role for member in await tenants.organizations.list_members("org")
    }


async def test_organizations_are_made_with_their_owner_found_and_renamed(tenants: Tenants) -> None:
    store = tenants.organizations
    new = Organization("new", "A new one", NOW)
    await store.add_organization(new, "nobody")
    assert await store.find_organization("new") == new
    assert await store.find_organization("unknown") is None
    assert [each.id for each in await store.list_organizations(["org", "new", "unknown"])] == [
        "new",
        "org",
    ]
    assert await store.list_organizations([]) == []
    (member,) = await store.list_members("new")
    assert (member.user_id, member.name, member.role) == ("nobody", "name of nobody", Role.OWNER)
    assert await store.rename_organization("new", "Renamed", owner("nobody"))
    assert await store.find_organization("new") == replace(new, name="Renamed")
    assert not await store.rename_organization("unknown", "Renamed", anybody())
    with pytest.raises(Refused):
        await store.rename_organization("new", "Mine", owner("outsider"))


async def test_an_organization_with_projects_stays(tenants: Tenants) -> None:
    with pytest.raises(OrganizationNotEmpty) as caught:
        await tenants.organizations.delete_organization("org", owner(), NOW)
    assert caught.value.projects == 1
    assert await tenants.organizations.find_organization("org")
    assert len(await roles(tenants)) == 4


async def test_a_deleted_organization_is_gone_with_its_members_tokens_and_invitations(
    tenants: Tenants,
) -> None:
    await tenants.token("of-org", TokenKind.ORGANIZATION, created_by="owner")
    await tenants.token("of-owner", TokenKind.USER, created_by="owner")
    await invite(tenants)
    await tenants.projects.delete_project("mine", NOW)
    store = tenants.organizations
    with pytest.raises(Refused):
        await store.delete_organization("org", owner("member"), NOW)
    assert await store.delete_organization("org", owner(), NOW)
    assert await store.find_organization("org") is None
    assert await store.list_organizations(["org"]) == []
    assert await store.list_members("org") == []
    assert await store.find_invitation(b"secret", NOW) is None
    assert not await tenants.lives("of-org")
    found = await tenants.stores.identity.find_principal(b"of-owner", NOW)
    assert found is not None
    assert found.roles == {}
    with pytest.raises(Refused):
        await store.delete_organization("org", owner(), NOW)
    assert not await store.delete_organization("org", anybody(), NOW)
    assert await store.find_organization("other-org")


async def test_members_are_listed_by_name(tenants: Tenants) -> None:
    assert await roles(tenants) == {
        "member": Role.MEMBER,
        "owner": Role.OWNER,
        "second": Role.OWNER,
        "viewer": Role.VIEWER,
    }
    assert await tenants.organizations.list_members("unknown") == []


async def test_a_role_holds_from_the_next_request_on(tenants: Tenants) -> None:
    await tenants.token("t", TokenKind.USER, created_by="member")
    for role in (Role.VIEWER, Role.OWNER, None):
        await change(tenants, "member", role)
        found = await tenants.stores.identity.find_principal(b"t", NOW)
        assert found is not None
        assert found.roles.get("org") is role


async def test_a_member_who_goes_takes_along_what_it_made_and_nothing_else(
    tenants: Tenants,
) -> None:
    for token_id, kind, project_id in (
        ("project", TokenKind.PROJECT, "mine"),
        ("organization", TokenKind.ORGANIZATION, None),
        ("pull", TokenKind.PULL, "mine"),
        ("build", TokenKind.BUILD, "mine"),
    ):
        await tenants.token(token_id, kind, project_id=project_id, created_by="member")
    await tenants.token("child", TokenKind.PULL, project_id="mine", parent_id="project")
    await tenants.token("users-own", TokenKind.USER, created_by="member")
    await tenants.token("owners", TokenKind.PROJECT, project_id="mine", created_by="owner")
    await tenants.token(
        "elsewhere", TokenKind.ORGANIZATION, organization_id="other-org", created_by="member"
    )
    assert await change(tenants, "member", None) == 5
    assert "member" not in await roles(tenants)
    for gone in ("project", "organization", "pull", "build", "child"):
        assert not await tenants.lives(gone), gone
    for kept in ("users-own", "owners", "elsewhere"):
        assert await tenants.lives(kept), kept
    with pytest.raises(MemberUnknown):
        await change(tenants, "member", None)


async def test_an_owner_who_becomes_less_keeps_the_kinds_that_are_left_to_it(
    tenants: Tenants,
) -> None:
    await tenants.token("project", TokenKind.PROJECT, project_id="mine", created_by="second")
    await tenants.token("pull", TokenKind.PULL, project_id="mine", created_by="second")
    await invite(tenants, replace(INVITATION, created_by="second"))
    await invite(tenants, replace(INVITATION, id="kept"), b"kept")
    assert await change(tenants, "second", Role.MEMBER, kinds=[TokenKind.PROJECT]) == 1
    assert not await tenants.lives("project")
    assert await tenants.lives("pull")
    assert await tenants.organizations.find_invitation(b"secret", NOW) is None
    assert await tenants.organizations.find_invitation(b"kept", NOW)
    await change(tenants, "owner", Role.OWNER, kinds=(), ends_invitations=False)
    assert await tenants.organizations.find_invitation(b"kept", NOW)


async def test_the_last_owner_stays_one(tenants: Tenants) -> None:
    await change(tenants, "second", Role.MEMBER)
    for role in (None, Role.MEMBER, Role.VIEWER):
        with pytest.raises(LastOwner):
            await change(tenants, "owner", role)
    await change(tenants, "owner", Role.OWNER)
    assert (await roles(tenants))["owner"] is Role.OWNER


async def test_of_two_owners_who_remove_each_other_one_is_left(tenants: Tenants) -> None:
    with tenants.stores.replica() as replica:
        done = await asyncio.gather(
            change(tenants, "owner", None, owner("second")),
            change(Tenants(replica), "second", None, owner("owner")),
            return_exceptions=True,
        )
    assert {type(outcome) for outcome in done} == {int, Refused}
    left = await roles(tenants)
    assert len({"owner", "second"} & left.keys()) == 1


async def test_who_was_removed_a_moment_ago_changes_nothing_any_more(tenants: Tenants) -> None:
    await change(tenants, "second", None)
    for attempt in (
        lambda: change(tenants, "member", Role.OWNER, owner("second")),
        lambda: invite(tenants, replace(INVITATION, created_by="second")),
        lambda: tenants.organizations.rename_organization("org", "x", owner("second")),
    ):
        with pytest.raises(Refused):
            await attempt()
    assert (await roles(tenants))["member"] is Role.MEMBER


async def test_another_organizations_user_is_no_member(tenants: Tenants) -> None:
    for user_id in ("outsider", "unknown"):
        with pytest.raises(MemberUnknown):
            await change(tenants, user_id, Role.OWNER)


async def test_an_invitation_is_found_by_its_secret_until_it_is_over(tenants: Tenants) -> None:
    store = tenants.organizations
    await invite(tenants)
    await invite(
        tenants,
        replace(INVITATION, id="later", created_at=NOW + HOUR, expires_at=NOW + 2 * HOUR),
        b"later",
    )
    assert await store.find_invitation(b"secret", NOW) == INVITATION
    assert await store.find_invitation(b"another", NOW) is None
    assert await store.find_invitation(b"secret", NOW + HOUR) is None
    assert [each.id for each in await store.list_invitations("org", NOW)] == ["later", "invitation"]
    assert await store.list_invitations("other-org", NOW) == []
    assert [each.id for each in await store.list_invitations("org", NOW + HOUR)] == ["later"]
    assert await store.accept_invitation(b"secret", "nobody", NOW + HOUR) is None
    assert await store.delete_over_invitations(NOW + HOUR) == 1
    assert await store.delete_over_invitations(NOW + HOUR) == 0
    assert not await store.delete_invitation("org", "invitation")
    assert not await store.delete_invitation("other-org", "later")
    assert await store.delete_invitation("org", "later")
    assert await store.find_invitation(b"later", NOW) is None


async def test_an_invitation_makes_one_member(tenants: Tenants) -> None:
    await invite(tenants)
    await tenants.add_members("", {"friend": None})
    with tenants.stores.replica() as replica:
        joined = await asyncio.gather(
            tenants.organizations.accept_invitation(b"secret", "nobody", NOW),
            Tenants(replica).organizations.accept_invitation(b"secret", "friend", NOW),
        )
    assert sorted(each is not None for each in joined) == [False, True]
    found = await roles(tenants)
    assert len({"nobody", "friend"} & found.keys()) == 1
    assert found.get("nobody", found.get("friend")) is Role.MEMBER
    assert await tenants.organizations.accept_invitation(b"secret", "nobody", NOW) is None


async def test_an_invitation_that_a_member_tries_stays_for_whom_it_was_made(
    tenants: Tenants,
) -> None:
    await invite(tenants)
    with pytest.raises(AlreadyMember):
        await tenants.organizations.accept_invitation(b"secret", "viewer", NOW)
    assert (await roles(tenants))["viewer"] is Role.VIEWER
    assert await tenants.organizations.accept_invitation(b"secret", "nobody", NOW)


async def test_there_are_so_many_invitations_and_no_more(tenants: Tenants) -> None:
    await invite(tenants, limit=1)
    with pytest.raises(TooMany):
        await invite(tenants, replace(INVITATION, id="two"), b"two", limit=1)
    # What is over does not count.
    later = replace(INVITATION, id="three", created_at=NOW + HOUR, expires_at=NOW + 2 * HOUR)
    await invite(tenants, later, b"three", limit=1)
