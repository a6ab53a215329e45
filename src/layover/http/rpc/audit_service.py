"""layover.v1.AuditService: who did what."""

from datetime import datetime
from typing import Any

from connectrpc.request import RequestContext
from protobuf.wkt import Timestamp

from layover.audit.listing import AuditListing, Scope
from layover.audit.models import AuditEvent, AuditQuery, InvalidAuditQuery
from layover.http.rpc.authentication import caller
from layover.http.rpc.convert import to_datetime, to_timestamp
from layover.rpc.layover.v1 import audit_connect
from layover.rpc.layover.v1 import audit_pb as pb


class AuditRpc(audit_connect.AuditService):
    """Lists what the caller may see of the log."""

    def __init__(self, listing: AuditListing) -> None:
        self._listing = listing

    async def list_audit_events(
        self, request: pb.ListAuditEventsRequest, ctx: RequestContext[Any, Any]
    ) -> pb.ListAuditEventsResponse:
        page = await self._listing.list_page(
            caller(),
            Scope(request.organization_id, request.project_id, request.server),
            AuditQuery(
                since=_time(request.since, "since"),
                until=_time(request.until, "until"),
                action=request.action,
                actor_id=request.actor_id,
            ),
            request.page_size,
            request.page_token,
        )
        return pb.ListAuditEventsResponse(
            events=[_event(event) for event in page.events],
            next_page_token=page.next_token or "",
        )


def _time(timestamp: Timestamp | None, name: str) -> datetime | None:
    time = to_datetime(timestamp)
    if timestamp is not None and time is None:
        raise InvalidAuditQuery(f"{name} is no time that a calendar has")
    return time


def _event(event: AuditEvent) -> pb.AuditEvent:
    return pb.AuditEvent(
        id=event.id,
        at=to_timestamp(event.at),
        organization_id=event.organization_id or "",
        project_id=event.project_id or "",
        actor_kind=event.actor_kind,
        actor_id=event.actor_id or "",
        actor_name=event.actor_name,
        action=event.action,
        subject=event.subject,
        result=event.result.value,
        address=event.address,
        request_id=event.request_id,
        details=dict(event.details),
    )
