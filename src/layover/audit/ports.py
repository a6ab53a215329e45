"""What the audit log needs of a database. Every method is one transaction."""

from collections.abc import Sequence
from datetime import datetime
from enum import Enum, auto
from typing import Protocol

from layover.audit.models import AuditEvent, AuditQuery, PageKey
from layover.identity.models import Organization, Principal, Project


class AuditStore(Protocol):
    """Keeps events; nothing changes one."""

    async def add(self, events: Sequence[AuditEvent]) -> None:
        """Keep all of them durably, or none and raise StorageError."""
        ...

    async def list_page(
        self, query: AuditQuery, after: PageKey | None, limit: int
    ) -> list[AuditEvent]:
        """Up to `limit` events behind `after`, the newest first."""
        ...

    async def delete_before(self, time: datetime, limit: int) -> int:
        """Forget up to `limit` events from before `time`, the oldest first; return how many."""
        ...


class Named(Enum):
    """What an ID is of."""

    ORGANIZATION = auto()
    PROJECT = auto()
    BUILD = auto()
    PUSH = auto()
    TOKEN = auto()


class AuditPlaces(Protocol):
    """Tells whose log an event belongs in. It authorizes nothing."""

    async def find_place(self, named: Named, key: str) -> Project | Organization | None:
        """The project, or else the organization, of what has this ID; None for what is not there,
        and for a user's token, which is of none."""
        ...

    async def find_holder(self, secret_hash: bytes) -> Principal | None:
        """Whose token it is or was: also one that is over, as long as its row stays."""
        ...
