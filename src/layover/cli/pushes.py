"""`layover pushes`: what the server pushes, or pushed, to other registries."""

import json
from datetime import UTC, datetime
from pathlib import Path

import click

from layover.cli.build_rows import moment
from layover.cli.errors import DONE, FAILED, say
from layover.cli.options import OUTPUT, PROJECT, find_project, find_server, run, server_options
from layover.cli.output import Column, print_rows, printable, rfc3339, size
from layover.cli.push_rows import (
    COLUMNS,
    push_row,
    short_digest,
    shown_push,
    state_words,
    status_name,
    whole_row,
)
from layover.client.address import Server
from layover.client.errors import ClientError
from layover.client.pushes import PushesClient, has_ended
from layover.rpc.layover.v1.pushes_pb import Push, PushStatus

_TRANSFER_COLUMNS = (
    Column("LAYER", "digest"),
    Column("STATE", "state"),
    Column("SENT", "sent", is_number=True),
    Column("SIZE", "size", is_number=True),
    Column("TO", "place"),
)


@click.group("pushes", epilog="Example: layover pushes show PUSH_ID")
def command() -> None:
    """List, show and cancel pushes to other registries."""


@command.command("list", epilog="Example: layover pushes list --project PROJECT_ID -o json")
@PROJECT
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="How many pushes, the newest first.",
)
@OUTPUT
@server_options
def list_pushes(
    project: str | None, limit: int, form: str, url: str | None, token: str | None
) -> None:
    """List a project's pushes, newest first."""
    pushes = run(_list(find_server(url, token, project), project, limit))
    now = datetime.now(UTC)
    print_rows(
        [push_row(push) for push in pushes],
        [shown_push(push, now) for push in pushes],
        COLUMNS,
        form,
    )


@command.command("show", epilog="Example: layover pushes show PUSH_ID --output json")
@click.argument("push_id", metavar="PUSH_ID")
@click.option(
    "--output",
    "-o",
    "form",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="The form of what is printed.",
)
@server_options
def show(push_id: str, form: str, url: str | None, token: str | None) -> None:
    """Show a push: where it goes, how far each layer is, and why it failed if it did."""
    push = run(_get(find_server(url, token), push_id))
    if form == "json":
        click.echo(json.dumps([whole_row(push, push.transfers)], indent=2))
    else:
        _print(push)


@command.command("cancel", epilog="Example: layover pushes cancel PUSH_ID PUSH_ID")
@click.argument("push_ids", metavar="PUSH_ID...", nargs=-1, required=True)
@server_options
def cancel(push_ids: tuple[str, ...], url: str | None, token: str | None) -> int:
    """Ask pushes to stop. What arrived by then stays at its registry.

    A push that has ended stays as it is, and is told as an error.
    """
    return run(_cancel(find_server(url, token), push_ids))


async def _list(server: Server, project: str | None, limit: int) -> list[Push]:
    async with PushesClient(server) as client:
        project_id = await find_project(client, project, Path())
        return await client.list_pushes(project_id, limit)


async def _get(server: Server, push_id: str) -> Push:
    async with PushesClient(server) as client:
        return await client.get_push(push_id)


async def _cancel(server: Server, push_ids: tuple[str, ...]) -> int:
    """Ask each; one that cannot be stopped does not keep the others from it."""
    status = DONE
    async with PushesClient(server) as client:
        for push_id in dict.fromkeys(push_ids):
            try:
                push = await client.cancel_push(push_id)
            except ClientError as error:
                say(f"error: {printable(push_id)}: {error}")
                status = FAILED
                continue
            if push.status in (PushStatus.DONE, PushStatus.FAILED):
                say(f"error: {push_id}: it has ended: it is {status_name(push)}")
                status = FAILED
            else:
                click.echo(push_id)
    return status


def _print(push: Push) -> None:
    shown = shown_push(push, datetime.now(UTC))
    sent = f"{size(push.sent_bytes)} of {size(push.size_bytes)}" if push.size_bytes else ""
    facts = [
        ("Push", push.id),
        ("Status", status_name(push)),
        ("Build", shown["build"]),
        ("Project", push.project_id),
        *_lines("To", push.destinations),
        ("Platforms", ", ".join(push.platforms)),
        ("Referrers", "go along" if push.with_referrers else ""),
        ("Created", f"{rfc3339(moment(push.created_at)) or ''} by {push.created_by}"),
        ("Duration", shown["duration"]),
        ("Sent", sent),
        ("Digest", push.digest),
        ("Error", push.error),
    ]
    if not has_ended(push):
        facts += _lines("Waits for", [f"a login at {place}" for place in push.waits_for])
    for name, value in facts:
        if value:
            click.echo(f"{name:<11}{printable(value)}")
    rows = [
        {
            "digest": short_digest(transfer),
            "state": state_words(transfer),
            "sent": size(transfer.sent_bytes),
            "size": size(transfer.size_bytes),
            "place": transfer.place,
        }
        for transfer in push.transfers
    ]
    if rows:
        click.echo()
        shown_rows = [{key: printable(text) for key, text in row.items()} for row in rows]
        print_rows([], shown_rows, _TRANSFER_COLUMNS, "table")


def _lines(name: str, values: list[str]) -> list[tuple[str, str]]:
    """A fact with a line for each of its values, named once."""
    return [(name if number == 0 else "", value) for number, value in enumerate(values)]
