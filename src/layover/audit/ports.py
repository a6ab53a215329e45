"""What the audit log needs of a database. Every method is one transaction."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from layover.audit.models import AuditEvent, AuditQuery, PageKey


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
