"""`layover builds`: one build's facts and log; keeping and removing builds, and their receipts."""

import json
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from layover.cli.build_rows import build_row, moment, shown_row, status_name
from layover.cli.errors import DONE, FAILED, say
from layover.cli.lists import list_builds
from layover.cli.options import (
    DURATION,
    OUTPUT,
    YES,
    confirm,
    find_server,
    run,
    server_options,
)
from layover.cli.output import (
    Column,
    Row,
    as_csv,
    left,
    print_rows,
    printable,
    printable_lines,
    rfc3339,
    size,
    span,
)
from layover.client.address import Server
from layover.client.api import Client
from layover.client.errors import ClientError
from layover.client.receipts import Receipt, checked
from layover.rpc.layover.v1.builds_pb import Build, GetBuildResponse, Step
from layover.units import told_duration

_KEPT_COLUMNS = (Column("ID", "id"), Column("EXPIRES", "expiresIn"), Column("AT", "expiresAt"))
_RECEIPT_COLUMNS = (
    Column("DIGEST", "digest"),
    Column("KIND", "kind"),
    Column("SIZE", "size", is_number=True),
    Column("STATE", "state"),
    Column("NEEDED BY", "by"),
)

_BUILD_IDS = click.argument("build_ids", metavar="BUILD_ID...", nargs=-1, required=True)


@click.group("builds", epilog="Example: layover builds show BUILD_ID --log")
def command() -> None:
    """Show, keep and remove builds."""


command.add_command(list_builds, "list")


@command.command("show", epilog="Example: layover builds show BUILD_ID --log")
@click.argument("build_id", metavar="BUILD_ID")
@click.option("--log", "wants_log", is_flag=True, help="Print the build's log instead.")
@OUTPUT
@server_options
def show(build_id: str, wants_log: bool, form: str, url: str | None, token: str | None) -> None:
    """Show a build: its facts, its steps and its Dockerfile, or its log.

    With --output csv it is the steps that are printed.
    """
    server = find_server(url, token)
    if wants_log:
        run(_print_log(server, build_id))
        return
    details = run(_details(server, build_id))
    steps = [_step_row(step) for step in details.steps]
    if form == "json":
        dockerfiles = [
            {"target": d.target, "filename": d.filename, "contents": d.contents}
            for d in details.dockerfiles
        ]
        click.echo(
            json.dumps([{**_facts(details), "steps": steps, "dockerfiles": dockerfiles}], indent=2)
        )
    elif form == "csv":
        click.echo(as_csv(steps), nl=False)
    else:
        _print(details)


@command.command("keep", epilog="Example: layover builds keep BUILD_ID --for 14d")
@_BUILD_IDS
@click.option(
    "--for",
    "retention",
    type=DURATION,
    required=True,
    metavar="TIME",
    help="How long from now on, as 36h or 14d.",
)
@OUTPUT
@server_options
def keep(
    build_ids: tuple[str, ...],
    retention: timedelta,
    form: str,
    url: str | None,
    token: str | None,
) -> int:
    """Keep builds that have ended for longer, and all that they saved.

    The time counts from now; a build that would live longer anyway keeps its time. What belongs
    to the build follows it: tags, targets, platforms, attestations and signatures.
    """
    kept, status = run(_keep(find_server(url, token), build_ids, retention))
    now = datetime.now(UTC)
    rows: list[Row] = [
        {"id": build_id, "expiresAt": rfc3339(until), "expiresIn": left(until, now)}
        for build_id, until in kept
    ]
    shown = [{name: str(value) for name, value in row.items()} for row in rows]
    if rows or form == "json":
        print_rows(rows, shown, _KEPT_COLUMNS, form)
    return status


@command.command("rm", epilog="Example: layover builds rm BUILD_ID BUILD_ID")
@_BUILD_IDS
@YES
@server_options
def remove(build_ids: tuple[str, ...], yes: bool, url: str | None, token: str | None) -> int:
    """Delete builds and what they saved. A running build is canceled first.

    On a terminal it asks; a script says what it means by naming the builds.
    """
    server = find_server(url, token)
    what = build_ids[0] if len(build_ids) == 1 else f"{len(build_ids)} builds"
    confirm(f"Delete {what}, and what is saved of it?", yes)
    return run(_remove(server, build_ids))


@command.command("receipt", epilog="Example: layover builds receipt BUILD_ID --output json")
@click.argument("build_id", metavar="BUILD_ID")
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
def receipt(build_id: str, form: str, url: str | None, token: str | None) -> None:
    """Show what became of a build that is gone: what was freed, and what another one needs still.

    The server signs it, and its signature is checked here. With --output json the signed document
    and the keys are there too, to be checked by others.
    """
    found = run(_receipt(find_server(url, token), build_id))
    if form == "json":
        click.echo(json.dumps(_receipt_row(found), indent=2))
    else:
        _print_receipt(found)


async def _details(server: Server, build_id: str) -> GetBuildResponse:
    async with Client(server) as client:
        return await client.get_build(build_id)


async def _keep(
    server: Server, build_ids: tuple[str, ...], retention: timedelta
) -> tuple[list[tuple[str, datetime]], int]:
    """Keep each; one that fails does not keep the others from it."""
    kept, status = [], DONE
    async with Client(server) as client:
        for build_id in dict.fromkeys(build_ids):
            try:
                kept.append((build_id, await client.keep_build(build_id, retention)))
            except ClientError as error:
                say(f"error: {build_id}: {error}")
                status = FAILED
    return kept, status


async def _receipt(server: Server, build_id: str) -> Receipt:
    async with Client(server) as client:
        answer = await client.get_receipt(build_id)
    return checked(build_id, answer.document, answer.signature, answer.public_key)


async def _remove(server: Server, build_ids: tuple[str, ...]) -> int:
    """Delete each; one that fails does not keep the others."""
    status = DONE
    async with Client(server) as client:
        for build_id in dict.fromkeys(build_ids):
            try:
                await client.delete_build(build_id)
            except ClientError as error:
                say(f"error: {build_id}: {error}")
                status = FAILED
            else:
                click.echo(build_id)
    return status


async def _print_log(server: Server, build_id: str) -> None:
    """Print each step's name where its output begins, then its output as it was written."""
    async with Client(server) as client:
        details = await client.get_build(build_id)
        names = {step.digest: step.name for step in details.steps}
        last = None
        at_line_start = True
        async for part in client.get_build_log(build_id):
            if part.step_digest != last:
                if not at_line_start:
                    click.echo()
                name = printable(names.get(part.step_digest, "step"))
                click.echo(click.style(f"=> {name}", bold=True))
                last = part.step_digest
            click.echo(part.message.decode(errors="replace"), nl=False)
            at_line_start = part.message.endswith(b"\n")
        if not at_line_start:
            click.echo()


def _facts(details: GetBuildResponse) -> dict[str, Any]:
    if details.build is None:
        raise ClientError("the server answered without the build")
    images = [
        {
            "target": image.target,
            "reference": image.reference,
            "digest": image.digest,
            "platforms": list(image.platforms),
            "sizeBytes": image.size_bytes,
        }
        for image in details.build.images
    ]
    return {**build_row(details.build, datetime.now(UTC)), "images": images}


def _step_row(step: Step) -> dict[str, str | float | bool | None]:
    started, completed = moment(step.started_at), moment(step.completed_at)
    lasted = (completed - started).total_seconds() if started and completed else None
    return {
        "name": step.name,
        "startedAt": rfc3339(started),
        "durationSeconds": None if lasted is None else round(lasted, 3),
        "cached": step.cached,
        "error": step.error or None,
        "digest": step.digest,
    }


def _print(details: GetBuildResponse) -> None:
    build = details.build
    if build is None:
        raise ClientError("the server answered without the build")
    shown = shown_row(build, datetime.now(UTC))
    facts = [
        ("Build", build.id),
        ("Status", status_name(build.status)),
        ("Project", build.project_id),
        ("Command", build.command),
        ("Created", rfc3339(moment(build.created_at)) or ""),
        ("Duration", shown["duration"]),
        ("Size", shown["size"]),
        ("Expires", _expiry(build, shown["expires"])),
        ("Tags", shown["tags"]),
        ("Error", build.error),
    ]
    for image in build.images:
        target = f"{image.target}: " if image.target else ""
        platforms = ", ".join(image.platforms)
        facts.append(
            ("Saved", f"{target}{image.reference} ({platforms}, {size(image.size_bytes)})")
        )
        facts.append(("", image.digest))
    for name, value in facts:
        if value:
            click.echo(f"{name:<10}{printable_lines(value)}")
    if details.steps:
        click.echo("\nSteps:")
        for step in details.steps:
            click.echo(_step_line(step))
    for dockerfile in details.dockerfiles:
        title = " ".join(part for part in (dockerfile.target, dockerfile.filename) if part)
        click.echo(f"\n{printable(title) or 'Dockerfile'}:\n{_indented(dockerfile.contents)}")


def _expiry(build: Build, shown: str) -> str:
    if build.expires_at is not None:
        return f"{rfc3339(moment(build.expires_at))} ({shown})"
    if build.retention is not None:
        return f"{told_duration(build.retention.to_timedelta())} after its end"
    return ""


def _receipt_row(found: Receipt) -> dict[str, Any]:
    return {
        **found.facts,
        "document": b64encode(found.document).decode(),
        "signature": b64encode(found.signature).decode(),
        "public_key": b64encode(found.public_key).decode(),
        "public_key_pem": found.public_key_pem,
    }


def _print_receipt(found: Receipt) -> None:
    facts = found.facts
    freed, kept = facts["freed"], facts["kept"]
    for name, value in (
        ("Build", facts["build"]),
        ("Project", facts["project"]),
        ("Ended", f"{facts['ended_at']} ({facts['reason']})"),
        ("Collected", facts["collected_at"]),
        ("Freed", f"{size(facts['freed_bytes'])} in {len(freed)}"),
        ("Kept", f"{size(facts['kept_bytes'])} in {len(kept)}, which others need"),
        ("Signature", f"good, by the key {b64encode(found.public_key).decode()}"),
    ):
        click.echo(f"{name:<11}{printable_lines(value)}")
    rows = [
        {**item, "size": size(item["size_bytes"]), "state": state, "by": item.get("by", "")}
        for state, items in (("freed", freed), ("kept", kept))
        for item in items
    ]
    if rows:
        click.echo()
        print_rows([], rows, _RECEIPT_COLUMNS, "table")


def _step_line(step: Step) -> str:
    started, completed = moment(step.started_at), moment(step.completed_at)
    if step.cached:
        mark = "cached"
    elif started and completed:
        mark = span(completed - started)
    else:
        mark = "-"
    line = f"  {mark:>8}  {printable(step.name)}"
    return f"{line}\n            {printable_lines(step.error)}" if step.error else line


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in printable_lines(text).splitlines())
