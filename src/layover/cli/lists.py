"""`layover list`: builds and projects."""

from datetime import UTC, datetime
from pathlib import Path

import click

from layover.cli.build_rows import COLUMNS, build_row, shown_row
from layover.cli.options import OUTPUT, PROJECT, find_project, find_server, run, server_options
from layover.cli.output import print_rows
from layover.cli.project_rows import COLUMNS as PROJECT_COLUMNS
from layover.cli.project_rows import project_row, shown_project
from layover.client.address import Server
from layover.client.api import Client
from layover.rpc.layover.v1.builds_pb import Build
from layover.rpc.layover.v1.projects_pb import Project


@click.group(
    "list",
    epilog="Example: layover list builds --output json",
)
def command() -> None:
    """List builds and projects."""


@command.command("builds", epilog="Example: layover list builds --project PROJECT_ID -o csv")
@PROJECT
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="How many builds, the newest first.",
)
@OUTPUT
@server_options
def list_builds(
    project: str | None, limit: int, form: str, url: str | None, token: str | None
) -> None:
    """List a project's builds, newest first."""
    builds = run(_builds(find_server(url, token, project), project, limit))
    now = datetime.now(UTC)
    print_rows(
        [build_row(b, now) for b in builds], [shown_row(b, now) for b in builds], COLUMNS, form
    )


@command.command("projects", epilog="Example: layover list projects --output json")
@OUTPUT
@server_options
def list_projects(form: str, url: str | None, token: str | None) -> None:
    """List the projects that the token sees, and how long each keeps what is saved."""
    projects = run(_projects(find_server(url, token)))
    print_rows(
        [project_row(p) for p in projects],
        [shown_project(p) for p in projects],
        PROJECT_COLUMNS,
        form,
    )


async def _builds(server: Server, project: str | None, limit: int) -> list[Build]:
    async with Client(server) as client:
        project_id = await find_project(client, project, Path())
        return await client.list_builds(project_id, limit)


async def _projects(server: Server) -> list[Project]:
    async with Client(server) as client:
        return await client.list_projects()
