"""The audit log in SQL."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, delete, insert, or_, select, tuple_

from layover.adapters.sql.database import Database
from layover.adapters.sql.schema import audit_events
from layover.audit.models import AuditEvent, AuditQuery, PageKey, Result

_COLUMNS = audit_events.c


class SqlAuditStore:
    """The AuditStore of a metadata database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, events: Sequence[AuditEvent]) -> None:
        rows = [_row(event) for event in events]
        await self._database.write(
            lambda connection: connection.execute(insert(audit_events), rows)
        )

    async def list_page(
        self, query: AuditQuery, after: PageKey | None, limit: int
    ) -> list[AuditEvent]:
        found = select(audit_events).order_by(_COLUMNS.at.desc(), _COLUMNS.id.desc()).limit(limit)
        if query.project_id is not None:
            found = found.where(_COLUMNS.project_id == query.project_id)
        else:
            # NULL too: what is in no organization's log.
            found = found.where(
                _COLUMNS.organization_id.is_(None)
                if query.organization_id is None
                else _COLUMNS.organization_id == query.organization_id
            )
        if query.since is not None:
            found = found.where(_COLUMNS.at >= query.since)
        if query.until is not None:
            found = found.where(_COLUMNS.at < query.until)
        if query.action:
            found = found.where(
                or_(
                    _COLUMNS.action == query.action,
                    _COLUMNS.action.startswith(f"{query.action}.", autoescape=True),
                )
            )
        if query.actor_id:
            found = found.where(_COLUMNS.actor_id == query.actor_id)
        if after is not None:
            found = found.where(tuple_(_COLUMNS.at, _COLUMNS.id) < (after.at, after.id))
        rows = await self._database.read(lambda connection: connection.execute(found).all())
        return [_event(row) for row in rows]

    async def delete_before(self, time: datetime, limit: int) -> int:
        oldest = select(_COLUMNS.id).where(_COLUMNS.at < time).order_by(_COLUMNS.at).limit(limit)
        statement = delete(audit_events).where(_COLUMNS.id.in_(oldest))
        return await self._database.write(lambda connection: connection.execute(statement).rowcount)


def _row(event: AuditEvent) -> dict[str, object]:
    return {
        "at": event.at,
        "organization_id": event.organization_id,
        "project_id": event.project_id,
        "actor_kind": event.actor_kind,
        "actor_id": event.actor_id,
        "actor_name": event.actor_name,
        "action": event.action,
        "subject": event.subject,
        "result": event.result.value,
        "address": event.address,
        "request_id": event.request_id,
        "details": json.dumps(dict(event.details), sort_keys=True),
    }


def _event(row: Row[Any]) -> AuditEvent:
    return AuditEvent(
        id=row.id,
        at=row.at,
        organization_id=row.organization_id,
        project_id=row.project_id,
        actor_kind=row.actor_kind,
        actor_id=row.actor_id,
        actor_name=row.actor_name,
        action=row.action,
        subject=row.subject,
        result=Result(row.result),
        address=row.address,
        request_id=row.request_id,
        details=json.loads(row.details),
    )
