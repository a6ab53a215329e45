"""What looking after organizations, projects and tokens needs of a database.

Every method is one transaction. Where an `Actor` changes something, it is asked in that very
transaction whether it may.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Protocol

from layover.identity.management import (
    Actor,
    Invitation,
    Member,
    Place,
    Token,
    TokenFilter,
    TokenPage,
)
from layover.identity.models import Organization, Project, Role, TokenKind


class OrganizationStore(Protocol):
    """Organizations that are not deleted, their members and invitations."""

    async def find_organization(self, organization_id: str) -> Organization | None: ...

    async def list_organizations(self, organization_ids: Sequence[str]) -> list[Organization]:
        """Those of these that there are, by name."""
        ...

    async def add_organization(self, organization: Organization, owner_id: str) -> None: ...

    async def rename_organization(self, organization_id: str, name: str, actor: Actor) -> bool:
        """False when there is no such organization."""
        ...

    async def delete_organization(self, organization_id: str, actor: Actor, now: datetime) -> bool:
        """Let nobody be a member, and its tokens and invitations end. False if there is none.

        Raises OrganizationNotEmpty.
        """
        ...

    async def list_members(self, organization_id: str) -> list[Member]:
        """The organization's members, by name."""
        ...

    async def change_member(
        self,
        organization_id: str,
        user_id: str,
        role: Role | None,
        actor: Actor,
        now: datetime,
        *,
        ended_kinds: Collection[TokenKind],
        ends_invitations: bool,
    ) -> int:
        """Give a member another role, or none; return how many tokens ended with it.

        Those are the ones of `ended_kinds` that the user made for the organization or what is in
        it, and what those made. Raises MemberUnknown, LastOwner.
        """
        ...

    async def add_invitation(
        self, invitation: Invitation, secret_hash: bytes, actor: Actor, limit: int
    ) -> None:
        """Raises TooMany when the organization has `limit` invitations that are not over."""
        ...

    async def list_invitations(self, organization_id: str, now: datetime) -> list[Invitation]:
        """Those that are not over, the newest first."""
        ...

    async def delete_invitation(self, organization_id: str, invitation_id: str) -> bool:
        """False when the organization has no such invitation."""
        ...

    async def find_invitation(self, secret_hash: bytes, now: datetime) -> Invitation | None:
        """The invitation behind a secret's hash, None when unknown, used or over at `now`."""
        ...

    async def accept_invitation(
        self, secret_hash: bytes, user_id: str, now: datetime
    ) -> Organization | None:
        """Make the user a member by the invitation, which is used by that.

        None when there is no such invitation. Raises AlreadyMember, and leaves the invitation.
        """
        ...

    async def delete_over_invitations(self, now: datetime) -> int:
        """Forget the invitations that are over; return how many."""
        ...


class ProjectStore(Protocol):
    """Projects that come and go."""

    async def count_projects(self, organization_id: str) -> int: ...

    async def add_project(self, project: Project) -> None:
        """Raises OrganizationUnknown when the organization was deleted."""
        ...

    async def delete_project(self, project_id: str, now: datetime) -> bool:
        """Let the project be gone: its builds are canceled, its tokens and trust policies end.

        False when there is no such project. `clear_project` lets go of what is in it.
        """
        ...

    async def deleted_projects(self) -> list[tuple[str, datetime]]:
        """The ID of each deleted project, and since when it is."""
        ...

    async def clear_project(self, project_id: str, now: datetime, limit: int) -> int:
        """Let up to `limit` builds, pushes and uploads of a deleted project be over.

        Returns how many that were: 0 when nothing is left for the collector to wait for.
        """
        ...


class TokenStore(Protocol):
    """Tokens as they are looked after."""

    async def find_token(self, token_id: str, now: datetime) -> Token | None:
        """The token, None when it is unknown, revoked or expired at `now`."""
        ...

    async def list_tokens(
        self, wanted: TokenFilter, after: Place | None, limit: int, now: datetime
    ) -> TokenPage:
        """A page of those that are valid at `now`, the newest first, from behind `after` on.

        Those of builds are left out: they come and go with them.
        """
        ...

    async def revoke_token(self, token_id: str, now: datetime) -> int:
        """Revoke the token and those that it made; return how many that were."""
        ...
