"""What the audit log holds, and what can be asked of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from layover.errors import LayoverError

NOBODY = "nobody"
"""The kind of an actor who is not known."""


class InvalidAuditQuery(LayoverError):
    """What is asked of the audit log makes no sense."""


class Result(StrEnum):
    """How what was tried ended."""

    DONE = "done"
    DENIED = "denied"
    """The caller may not, or what it named is not there for it."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """Something that somebody did or tried; its texts are short, printable, and no secrets."""

    at: datetime
    organization_id: str | None
    """Whose log it is in; with none, the server's own."""
    project_id: str | None
    actor_kind: str
    """A TokenKind's value, or NOBODY."""
    actor_id: str | None
    """The user's ID, or the token's where no user called."""
    actor_name: str
    action: str
    """As "tokens.create" or "manifests.push"."""
    subject: str
    """What it was done to."""
    result: Result
    address: str
    request_id: str
    details: Mapping[str, str] = field(default_factory=dict)
    id: int = 0
    """The store's own; 0 for one that it does not have yet."""


@dataclass(frozen=True, slots=True)
class PageKey:
    """Where a page of events ends: the last one's time and ID."""

    at: datetime
    id: int


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """Whose events are asked for, and which of them."""

    organization_id: str | None = None
    """With neither this nor a project: the events that are in no organization's log."""
    project_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    """Up to this time, and not at it."""
    action: str = ""
    """An action, or what it begins with up to a dot."""
    actor_id: str = ""


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Events, the newest first, and where the next page begins; None on the last."""

    events: tuple[AuditEvent, ...]
    next_token: str | None = None
