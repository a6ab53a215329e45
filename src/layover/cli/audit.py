"""`layover audit`: who did what, to what, from where, and how it ended."""

from datetime import UTC, datetime, timedelta
from typing import Any

import click
from protobuf.wkt import Timestamp

from layover.cli.build_rows import moment
from layover.cli.errors import WrongUsage
from layover.cli.options import OUTPUT, find_server, run, server_options
from layover.cli.output import Column, Row, print_rows, printable, rfc3339
from layover.client.address import Server
from layover.client.api import Client
from layover.rpc.layover.v1.audit_pb import AuditEvent, ListAuditEventsRequest
from layover.units import read_duration

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_COLUMNS = (
    Column("AT", "at"),
    Column("ACTOR", "actor"),
    Column("ACTION", "action"),
    Column("SUBJECT", "subject"),
    Column("RESULT", "result"),
    Column("FROM", "address"),
    Column("DETAILS", "details"),
)


class MomentType(click.ParamType[datetime]):
    """A time: as RFC 3339 has it, or how long ago."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            return read_moment(value, datetime.now(UTC))
        except ValueError as error:
            self.fail(f"{error}", param, ctx)


def read_moment(text: str, now: datetime) -> datetime:
    """`24h` ago, or `2026-01-31T12:00:00Z`. Raises ValueError."""
    try:
        return now - read_duration(text)
    except (ValueError, OverflowError):
        pass
    try:
        when = datetime.fromisoformat(text.strip())
    except ValueError:
        when = None
    if when is None or when.tzinfo is None:
        raise ValueError(
            f"expected how long ago, as 24h or 7d, or a time as 2026-01-31T12:00:00Z, not {text!r}"
        )
    return when


_MOMENT = MomentType()


@click.group("audit", epilog="Example: layover audit list --since 24h")
def command() -> None:
    """Show who did what, from where, and how it ended."""


@command.command(
    "list", epilog="Example: layover audit list --project PROJECT_ID --since 24h --action tokens"
)
@click.option("--project", metavar="ID", help="What happened in this project.")
@click.option("--org", metavar="ID", help="What happened in this organization and its projects.")
@click.option(
    "--server",
    "is_server",
    is_flag=True,
    help="What is in no organization's log, as strangers' refused logins; for administrators.",
)
@click.option(
    "--since", type=_MOMENT, metavar="TIME", help="From then on: 24h ago, or 2026-01-31T12:00:00Z."
)
@click.option("--until", type=_MOMENT, metavar="TIME", help="Before then, in the same forms.")
@click.option(
    "--action",
    metavar="ACTION",
    default="",
    help="An action, as tokens.create, or all that begin so, as tokens.",
)
@click.option("--actor", metavar="ID", default="", help="What this user, or this token, did.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="How many events, the newest first.",
)
@OUTPUT
@server_options
def list_events(
    project: str | None,
    org: str | None,
    is_server: bool,
    since: datetime | None,
    until: datetime | None,
    action: str,
    actor: str,
    limit: int,
    form: str,
    url: str | None,
    token: str | None,
) -> None:
    """List what happened, newest first: of a project, of an organization, or of the server.

    Without any of them it is the only organization that the token sees. Owners see it.
    """
    if bool(project) + bool(org) + is_server > 1:
        raise WrongUsage("pass one of --project, --org and --server")
    request = ListAuditEventsRequest(
        organization_id=org or "",
        project_id=project or "",
        server=is_server,
        since=_timestamp(since),
        until=_timestamp(until),
        action=action,
        actor_id=actor,
    )
    events = run(_list(find_server(url, token), request, limit))
    print_rows([_row(event) for event in events], [_shown(each) for each in events], _COLUMNS, form)


async def _list(server: Server, request: ListAuditEventsRequest, limit: int) -> list[AuditEvent]:
    async with Client(server) as client:
        return await client.list_audit_events(request, limit)


def _timestamp(when: datetime | None) -> Timestamp | None:
    if when is None:
        return None
    seconds, rest = divmod(when - _EPOCH, timedelta(seconds=1))
    return Timestamp(seconds=seconds, nanos=rest.microseconds * 1000)


def _row(event: AuditEvent) -> Row:
    """An event as JSON and CSV have it."""
    return {
        "id": event.id,
        "at": rfc3339(moment(event.at)),
        "action": event.action,
        "subject": event.subject,
        "result": event.result,
        "actorKind": event.actor_kind,
        "actorId": event.actor_id or None,
        "actorName": event.actor_name,
        "organizationId": event.organization_id or None,
        "projectId": event.project_id or None,
        "address": event.address,
        "requestId": event.request_id,
        "details": dict(sorted(event.details.items())),
    }


def _shown(event: AuditEvent) -> dict[str, str]:
    actor = " ".join(part for part in (event.actor_kind, event.actor_name, event.actor_id) if part)
    facts = {
        "at": rfc3339(moment(event.at)) or "",
        "actor": actor,
        "action": event.action,
        "subject": event.subject,
        "result": event.result,
        "address": event.address,
        "details": ", ".join(f"{name}={value}" for name, value in sorted(event.details.items())),
    }
    return {name: printable(text) for name, text in facts.items()}
