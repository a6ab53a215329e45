"""Who calls, and what belongs to whom."""

from dataclasses import dataclass
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


class ActionDenied(IdentityError):
    """The caller may see the project, but its token does not allow the action."""

    def __init__(self, action: str) -> None:
        super().__init__(f"this token may not {action}")
        self.action = action


class TokenKind(StrEnum):
    """What a token stands for, which decides what it may do."""

    USER = "user"
    ORGANIZATION = "organization"
    PROJECT = "project"
    PULL = "pull"
    BUILD = "build"


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
class Principal:
    """An authenticated caller: a valid token and what it is bound to."""

    token_id: str
    kind: TokenKind
    organization_id: str
    user_id: str | None = None
    project_id: str | None = None
    build_id: str | None = None
    tags: frozenset[str] = frozenset()
    """Of a build's token: what it may write, as NAME:TAG, also with `-TARGET` behind it."""


@dataclass(frozen=True, slots=True)
class FirstTenant:
    """What the first start on an empty database creates."""

    project_id: str
    project_name: str
    organization_name: str
    user_name: str
    admin: Principal
    """The token's holder: a user of the organization."""
    created_at: datetime
