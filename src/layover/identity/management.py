"""What owners look after: members, invitations, tokens; and why a change of them is refused."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from layover.identity.models import ManagementError, Role, TokenKind
from layover.units import told_duration

# Asked in the transaction that changes something, with the role that whoever changes it has in
# the organization at that moment. Raises where that role no longer may.
RoleCheck = Callable[[Role | None], None]


@dataclass(frozen=True, slots=True)
class Actor:
    """The user who changes something, and whether it still may when that happens.

    Between the question and the change a member may have been removed. What is made then would
    outlive that.
    """

    user_id: str
    check: RoleCheck


@dataclass(frozen=True, slots=True)
class Member:
    """A user in an organization."""

    user_id: str
    name: str
    role: Role
    joined_at: datetime


@dataclass(frozen=True, slots=True)
class Invitation:
    """What lets whoever holds its secret join an organization, once."""

    id: str
    organization_id: str
    role: Role
    note: str
    created_by: str
    """The ID of the user who made it."""
    created_by_name: str
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it is listed: all but its secret."""

    id: str
    kind: TokenKind
    description: str
    organization_id: str | None
    user_id: str | None
    """Of a user's token: whose."""
    project_id: str | None
    build_id: str | None
    created_by: str | None
    """The ID of the user who made it."""
    parent_id: str | None
    """The ID of the token that made it."""
    maker: str
    """Who or what made it, for people."""
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class TokenFilter:
    """Which tokens are listed: those that each field names."""

    organization_id: str | None = None
    project_id: str | None = None
    created_by: str | None = None
    parent_id: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page of a listing begins: behind what was made then and has this ID."""

    created_at: datetime
    id: str


@dataclass(frozen=True, slots=True)
class TokenPage:
    """Tokens, the newest first, and where the next page begins, None on the last."""

    tokens: tuple[Token, ...]
    next_place: Place | None


class OrganizationNotGiven(ManagementError):
    """The request names no organization and the caller does not see exactly one."""

    def __init__(self, organization_ids: Sequence[str]) -> None:
        seen = ", ".join(organization_ids[:10]) if organization_ids else "none"
        super().__init__(
            f"an organization is needed: pass --org ID (organizations that this token sees: {seen})"
        )
        self.organization_ids = tuple(organization_ids)


class OrganizationNotEmpty(ManagementError):
    """The organization has projects, which somebody may need."""

    def __init__(self, organization_id: str, projects: int) -> None:
        super().__init__(
            f"organization {organization_id} has {projects} project{'' if projects == 1 else 's'}:"
            " delete them first, with `layover projects delete`"
        )
        self.organization_id, self.projects = organization_id, projects


class TooMany(ManagementError):
    """There are as many of something as there may be."""

    def __init__(self, what: str, limit: int, way_out: str) -> None:
        super().__init__(f"there are {limit} {what} already, which is the most: {way_out}")
        self.limit = limit


class MemberUnknown(ManagementError):
    """No user with this ID is a member; whether there is such a user is not told."""

    def __init__(self, user_id: str) -> None:
        super().__init__(f"no member {user_id[:100]!r} in this organization")
        self.user_id = user_id


class AlreadyMember(ManagementError):
    """Who accepts the invitation is a member already; the invitation stays for somebody else."""

    def __init__(self, role: Role) -> None:
        super().__init__(f"you are in this organization already, as {role}")
        self.role = role


class LastOwner(ManagementError):
    """Without this owner nobody could manage the organization any more."""

    def __init__(self) -> None:
        super().__init__("this is the organization's last owner: make another member owner first")


class InvitationUnknown(ManagementError):
    """No such invitation: it never was, was used or deleted, or its time is over."""

    def __init__(self) -> None:
        super().__init__(
            "there is no such invitation, or it was used or deleted, or it is over:"
            " ask for a new one"
        )


class TokenUnknown(ManagementError):
    """No token with this ID that the caller may revoke."""

    def __init__(self, token_id: str) -> None:
        super().__init__(f"unknown token {token_id[:100]!r}")
        self.token_id = token_id


class InvalidLifetime(ManagementError):
    """A lifetime that is none, or longer than anybody can mean."""

    def __init__(self, what: str, shortest: timedelta, longest: timedelta) -> None:
        super().__init__(
            f"{what} lives for {told_duration(shortest)} to {told_duration(longest)}: ask for that"
        )


class InvalidChange(ManagementError):
    """The request's values are missing, or contradict each other."""


class InvalidPlace(ManagementError):
    """The page token is none that a listing gave out."""

    def __init__(self) -> None:
        super().__init__("invalid page_token: pass the next_page_token of the page before it")
