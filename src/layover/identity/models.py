"""Who calls, and what belongs to whom."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from layover.errors import LayoverError


class IdentityError(LayoverError):
    """Why a caller may not do what it asked for."""


class Unauthenticated(IdentityError):
    """No token, or none that is valid: unknown, expired and revoked read alike."""

    def __init__(self) -> None:
        super().__init__("a valid token is needed: run `layover login`, or pass a token")


class ProjectUnknown(IdentityError):
    """No project with this ID that the caller may see."""

    def __init__(self, project_id: str) -> None:
        super().__init__(f"unknown project {project_id!r}")
        self.project_id = project_id


class ManagementError(IdentityError):
    """Why something about organizations, tokens or policies is refused. The registry, which knows
    none of these, never says it."""


class OrganizationUnknown(ManagementError):
    """No organization with this ID that the caller may see."""

    def __init__(self, organization_id: str) -> None:
        super().__init__(f"unknown organization {organization_id[:100]!r}")
        self.organization_id = organization_id


class ActionDenied(IdentityError):
    """The caller may see the project or organization, but its token does not allow the action."""

    def __init__(self, action: str) -> None:
        super().__init__(f"this token may not {action}")
        self.action = action


class TokenKind(StrEnum):
    """What a caller came with, which decides what it may do; CI is an ID token of somebody
    else's, and never one of ours."""

    USER = "user"
    ORGANIZATION = "organization"
    PROJECT = "project"
    PULL = "pull"
    BUILD = "build"
    CI = "ci"


class Role(StrEnum):
    """What a user is in an organization."""

    OWNER = "owner"
    MEMBER = "member"
    VIEWER = "viewer"


class Grant(StrEnum):
    """What a trust policy gives to whoever brings an ID token that it trusts."""

    PROJECT = "project"
    """What a project's token may do."""
    PULL = "pull"


@dataclass(frozen=True, slots=True)
class ProjectPolicy:
    """How long a project keeps what is saved or pushed, and how much of it."""

    retention: timedelta = timedelta(days=7)
    """How long it lives, unless it is said with it; of what is saved from now on."""
    max_retention: timedelta = timedelta(days=90)
    """The longest that can be said."""
    extends_on_pull: bool = False
    """Whether what is pulled lives for `retention` from then on."""
    quota_bytes: int | None = None
    """The most that its blobs may take, uploads under way included."""


@dataclass(frozen=True, slots=True)
class Project:
    """What builds and repositories belong to."""

    id: str
    name: str
    organization_id: str
    organization_name: str
    created_at: datetime
    policy: ProjectPolicy = ProjectPolicy()


@dataclass(frozen=True, slots=True)
class Organization:
    """What projects belong to, and what users are members of."""

    id: str
    name: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller: a valid token and what it is bound to."""

    token_id: str
    kind: TokenKind
    organization_id: str | None = None
    """None for a user's token, which acts in every organization of `roles`, and for CI."""
    user_id: str | None = None
    project_id: str | None = None
    build_id: str | None = None
    tags: frozenset[str] = frozenset()
    """Of a build's token: what it may write, as NAME:TAG, also with `-TARGET` behind it."""
    name: str = ""
    """The user's name, or what the token was described as: for the audit log."""
    roles: Mapping[str, Role] = field(default_factory=dict)
    """Of a user's token: the user's role in each organization, as it is now."""
    grants: Mapping[str, Grant] = field(default_factory=dict)
    """Of an ID token: what the trust policies of each project give to it."""
    policies: Mapping[str, str] = field(default_factory=dict)
    """Of an ID token: the ID of the trust policy by which each project does."""
    is_admin: bool = False
    """Of a user's token: whether its user may create organizations."""


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token to keep; of its secret only the hash."""

    principal: Principal
    """Its ID, kind and bindings."""
    secret_hash: bytes
    description: str
    created_at: datetime
    expires_at: datetime | None
    created_by: str | None = None
    """The ID of the user who made it."""
    parent_id: str | None = None
    """The token, of no user, that made it: it ends with that one."""
    trust_policy_id: str | None = None
    """The policy by which an ID token was traded for it: it ends with that one."""


@dataclass(frozen=True, slots=True)
class TradedToken:
    """What an ID token was traded for."""

    secret: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class FirstTenant:
    """What the first start on an empty database creates."""

    project_id: str
    project_name: str
    organization_name: str
    user_name: str
    admin: Principal
    """The token's holder: the organization's owner, and the server's administrator."""
    organization_id: str
    created_at: datetime
