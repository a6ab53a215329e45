"""Organizations, who is a member of them, and how one becomes one."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from layover.identity.access import Action, check, may, role_check, sees
from layover.identity.ids import new_id, secret_hash
from layover.identity.management import (
    Actor,
    InvalidLifetime,
    Invitation,
    InvitationUnknown,
    Member,
    MemberUnknown,
    OrganizationNotGiven,
)
from layover.identity.management_ports import OrganizationStore
from layover.identity.models import (
    Organization,
    OrganizationUnknown,
    Principal,
    Role,
    TokenKind,
)
from layover.identity.names import checked_description, checked_name

INVITATION_LIFETIME = timedelta(days=7)
_SHORTEST_INVITATION = timedelta(minutes=1)
_LONGEST_INVITATION = timedelta(days=90)

# As many as a person can keep an eye on.
_MAX_INVITATIONS = 1_000

_NAME = "an organization's name"

# What it takes to make a token of each kind that belongs to an organization.
MAKING = {
    TokenKind.ORGANIZATION: Action.MANAGE_TOKENS,
    TokenKind.PROJECT: Action.MANAGE_TOKENS,
    TokenKind.PULL: Action.CREATE_PULL_TOKEN,
    TokenKind.BUILD: Action.CREATE_BUILD,
}


@dataclass(frozen=True, slots=True)
class NewInvitation:
    """An invitation and the secret of its link, shown this once."""

    invitation: Invitation
    secret: str = field(repr=False)


class OrganizationService:
    """Looks after organizations for those who may. Every call but `accept` is authorized."""

    def __init__(self, store: OrganizationStore, now: Callable[[], datetime]) -> None:
        self._store = store
        self._now = now

    # --- organizations -------------------------------------------------------------------------

    async def list_organizations(self, principal: Principal) -> list[Organization]:
        """The organizations that the caller may see, by name."""
        if principal.kind is TokenKind.USER:
            found = await self._store.list_organizations(sorted(principal.roles))
        else:
            found = await self._store.list_organizations([principal.organization_id or ""])
        return [organization for organization in found if sees(principal, organization)]

    async def find(
        self, principal: Principal, action: Action, organization_id: str | None
    ) -> Organization:
        """The organization of that ID, or the caller's only one, if it may do `action` there.

        Raises OrganizationNotGiven, OrganizationUnknown, ActionDenied.
        """
        if not organization_id:
            seen = await self.list_organizations(principal)
            if len(seen) != 1:
                raise OrganizationNotGiven([organization.id for organization in seen])
            organization_id = seen[0].id
        organization = await self._store.find_organization(organization_id)
        if organization is None:
            raise OrganizationUnknown(organization_id)
        check(principal, action, organization)
        return organization

    async def create(self, principal: Principal, name: str) -> Organization:
        """Make an organization that the caller owns. Raises ActionDenied, InvalidName."""
        check(principal, Action.CREATE_ORGANIZATION, None)
        assert principal.user_id is not None
        organization = Organization(new_id(), checked_name(name, _NAME), self._now())
        await self._store.add_organization(organization, principal.user_id)
        return organization

    async def rename(
        self, principal: Principal, organization_id: str | None, name: str
    ) -> Organization:
        """Raises as `find` does; InvalidName."""
        action = Action.UPDATE_ORGANIZATION
        organization = await self.find(principal, action, organization_id)
        renamed = replace(organization, name=checked_name(name, _NAME))
        actor = acting(principal, action, organization)
        if not await self._store.rename_organization(organization.id, renamed.name, actor):
            raise OrganizationUnknown(organization.id)
        return renamed

    async def delete(self, principal: Principal, organization_id: str) -> None:
        """Let an organization without projects be gone, with its tokens and invitations.

        Raises as `find` does; OrganizationNotEmpty.
        """
        action = Action.UPDATE_ORGANIZATION
        organization = await self.find(principal, action, organization_id)
        actor = acting(principal, action, organization)
        if not await self._store.delete_organization(organization.id, actor, self._now()):
            raise OrganizationUnknown(organization.id)

    # --- members -------------------------------------------------------------------------------

    async def list_members(self, principal: Principal, organization_id: str | None) -> list[Member]:
        """The organization's members, by name. Raises as `find` does."""
        organization = await self.find(principal, Action.SEE_MEMBERS, organization_id)
        return await self._store.list_members(organization.id)

    async def update_member(
        self, principal: Principal, organization_id: str | None, user_id: str, role: Role
    ) -> tuple[Member, int]:
        """Give a member another role; return the member, and how many tokens ended with it.

        Those are the ones that this member made and could not make any more. Raises as `find`
        does; MemberUnknown, LastOwner.
        """
        organization, ended = await self._change(principal, organization_id, user_id, role)
        for member in await self._store.list_members(organization.id):
            if member.user_id == user_id:
                return member, ended
        raise MemberUnknown(user_id)

    async def remove_member(
        self, principal: Principal, organization_id: str | None, user_id: str
    ) -> int:
        """Take from a user all that it may do there; return how many tokens ended with it.

        Those are the ones that the user made for the organization or its projects, and what those
        made. Raises as `find` does; MemberUnknown, LastOwner.
        """
        _, ended = await self._change(principal, organization_id, user_id, None)
        return ended

    async def _change(
        self, principal: Principal, organization_id: str | None, user_id: str, role: Role | None
    ) -> tuple[Organization, int]:
        action = Action.MANAGE_MEMBERS
        organization = await self.find(principal, action, organization_id)
        actor = acting(principal, action, organization)
        # Whoever made something may still know it: what the new role could not make ends.
        roles = {organization.id: role} if role is not None else {}
        after = replace(principal, roles=roles)
        ended = await self._store.change_member(
            organization.id,
            user_id,
            role,
            actor,
            self._now(),
            ended_kinds=[
                kind for kind, needed in MAKING.items() if not may(after, needed, organization)
            ],
            ends_invitations=not may(after, Action.MANAGE_MEMBERS, organization),
        )
        return organization, ended

    # --- invitations ---------------------------------------------------------------------------

    async def invite(
        self,
        principal: Principal,
        organization_id: str | None,
        role: Role,
        note: str = "",
        lifetime: timedelta | None = None,
    ) -> NewInvitation:
        """Make a secret with which somebody can join, once.

        Raises as `find` does; InvalidName for the note, InvalidLifetime, TooMany.
        """
        action = Action.MANAGE_MEMBERS
        organization = await self.find(principal, action, organization_id)
        lifetime = INVITATION_LIFETIME if lifetime is None else lifetime
        if not _SHORTEST_INVITATION <= lifetime <= _LONGEST_INVITATION:
            raise InvalidLifetime("an invitation", _SHORTEST_INVITATION, _LONGEST_INVITATION)
        actor = acting(principal, action, organization)
        now = self._now()
        invitation = Invitation(
            id=new_id(),
            organization_id=organization.id,
            role=role,
            note=checked_description(note, "an invitation's note"),
            created_by=actor.user_id,
            created_by_name=principal.name,
            created_at=now,
            expires_at=now + lifetime,
        )
        # No token, and nothing that a scanner for tokens should find: it opens a page.
        secret = secrets.token_urlsafe(24)
        await self._store.add_invitation(invitation, secret_hash(secret), actor, _MAX_INVITATIONS)
        return NewInvitation(invitation, secret)

    async def list_invitations(
        self, principal: Principal, organization_id: str | None
    ) -> list[Invitation]:
        """Those that can still be used, the newest first. Raises as `find` does."""
        organization = await self.find(principal, Action.MANAGE_MEMBERS, organization_id)
        return await self._store.list_invitations(organization.id, self._now())

    async def delete_invitation(
        self, principal: Principal, organization_id: str | None, invitation_id: str
    ) -> None:
        """Raises as `find` does; InvitationUnknown."""
        organization = await self.find(principal, Action.MANAGE_MEMBERS, organization_id)
        if not await self._store.delete_invitation(organization.id, invitation_id):
            raise InvitationUnknown

    async def find_invitation(self, secret: str) -> tuple[Invitation, Organization]:
        """What whoever has a link is asked to join. Raises InvitationUnknown."""
        invitation = await self._store.find_invitation(secret_hash(secret), self._now())
        if invitation is not None:
            organization = await self._store.find_organization(invitation.organization_id)
            if organization is not None:
                return invitation, organization
        raise InvitationUnknown

    async def accept(self, user_id: str, secret: str) -> Organization:
        """Make the user a member by a link, which is used by that.

        For whoever knows that it is this user who asks. Raises InvitationUnknown, AlreadyMember.
        """
        organization = await self._store.accept_invitation(
            secret_hash(secret), user_id, self._now()
        )
        if organization is None:
            raise InvitationUnknown
        return organization

    async def forget_over_invitations(self) -> int:
        """Delete those that are over; return how many. They open nothing without it too."""
        return await self._store.delete_over_invitations(self._now())


def acting(principal: Principal, action: Action, organization: Organization) -> Actor:
    """The caller, a user, as whoever does what was authorized."""
    assert principal.user_id is not None
    return Actor(principal.user_id, role_check(principal, action, organization))
