"""Writes events together: what gathers while a transaction is under way is the next one."""

import asyncio
import contextvars
from collections.abc import Sequence
from dataclasses import asdict

import structlog

from layover.audit.models import AuditEvent
from layover.audit.ports import AuditStore
from layover.errors import StorageError

# Of one transaction.
MAX_EVENTS = 500

_log = structlog.get_logger(__name__)


class Writer:
    """Keeps events durably, or logs them: what they tell of has happened all the same."""

    def __init__(self, store: AuditStore) -> None:
        self._store = store
        self._gathered: list[tuple[AuditEvent, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def write(self, events: Sequence[AuditEvent]) -> None:
        """Return when they are kept, or logged. One who stops waiting does not take them back."""
        written = self.put(events)
        if written is not None:
            await asyncio.shield(written)

    def put(self, events: Sequence[AuditEvent]) -> asyncio.Future[None] | None:
        """Have them written without waiting; return what tells when the last of them is."""
        written: asyncio.Future[None] | None = None
        for event in events:
            written = asyncio.get_running_loop().create_future()
            self._gathered.append((event, written))
        if self._gathered and (self._writing is None or self._writing.done()):
            # In a context of its own: what it logs is of no single request.
            self._writing = asyncio.create_task(
                self._write_gathered(), context=contextvars.Context()
            )
        return written

    async def close(self) -> None:
        """Return when all that was put is written."""
        while self._writing is not None and not self._writing.done():
            await asyncio.wait({self._writing})

    async def _write_gathered(self) -> None:
        while self._gathered:
            batch, self._gathered = self._gathered[:MAX_EVENTS], self._gathered[MAX_EVENTS:]
            try:
                await self._store.add([event for event, _ in batch])
            except StorageError as error:
                for event, _ in batch:
                    _log.error("audit_event_lost", reason=str(error), **_facts(event))
            except Exception:
                # A bug. What it cost is told, and whoever waits is answered.
                for event, _ in batch:
                    _log.exception("audit_event_lost", **_facts(event))
            finally:
                for _, written in batch:
                    if not written.done():
                        written.set_result(None)


def _facts(event: AuditEvent) -> dict[str, object]:
    """All of it, to be found again in the server's log."""
    return {f"event_{name}": value for name, value in asdict(event).items() if name != "id"} | {
        "event_at": event.at.isoformat()
    }
