"""`layover builds`: one build's facts and log, and removing builds."""

import json
import sys
from datetime import UTC, datetime
from typing import Any

import click

from layover.cli.build_rows import build_row, moment, shown_row, status_name
from layover.cli.errors import FAILED, WrongUsage, say
from layover.cli.lists import list_builds
from layover.cli.options import OUTPUT, find_server, run, server_options
from layover.cli.output import as_csv, rfc3339, size, span
from layover.client.address import Server
from layover.client.api import Client
from layover.client.errors import ClientError
from layover.rpc.layover.v1.builds_pb import GetBuildResponse, Step


@click.group("builds", epilog="Example: layover builds show BUILD_ID --log")
def command() -> None:
    """Show and remove builds."""


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


@command.command("rm", epilog="Example: layover builds rm --yes BUILD_ID BUILD_ID")
@click.argument("build_ids", metavar="BUILD_ID...", nargs=-1, required=True)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@server_options
def remove(build_ids: tuple[str, ...], yes: bool, url: str | None, token: str | None) -> int:
    """Delete builds and what they saved. A running build is canceled first."""
    server = find_server(url, token)
    if not yes:
        if not sys.stdin.isatty():
            raise WrongUsage("deleting asks first, and there is no terminal to ask on: add --yes")
        what = build_ids[0] if len(build_ids) == 1 else f"{len(build_ids)} builds"
        click.confirm(f"Delete {what}, and what is saved of it?", abort=True, err=True)
    return run(_remove(server, build_ids))


async def _details(server: Server, build_id: str) -> GetBuildResponse:
    async with Client(server) as client:
        return await client.get_build(build_id)


async def _remove(server: Server, build_ids: tuple[str, ...]) -> int:
    """Delete each; one that fails does not keep the others."""
    status = 0
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
                click.echo(click.style(f"=> {names.get(part.step_digest, 'step')}", bold=True))
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
    return {**build_row(details.build), "images": images}


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
            click.echo(f"{name:<10}{value}")
    if details.steps:
        click.echo("\nSteps:")
        for step in details.steps:
            click.echo(_step_line(step))
    for dockerfile in details.dockerfiles:
        title = " ".join(part for part in (dockerfile.target, dockerfile.filename) if part)
        click.echo(f"\n{title or 'Dockerfile'}:\n{_indented(dockerfile.contents)}")


def _step_line(step: Step) -> str:
    started, completed = moment(step.started_at), moment(step.completed_at)
    if step.cached:
        mark = "cached"
    elif started and completed:
        mark = span(completed - started)
    else:
        mark = "-"
    line = f"  {mark:>8}  {step.name}"
    return f"{line}\n            {step.error}" if step.error else line


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
