"""`layover list`: builds and projects."""

from datetime import UTC, datetime
from pathlib import Path

import click

from layover.cli.build_rows import COLUMNS, build_row, shown_row
from layover.cli.options import OUTPUT, PROJECT, find_project, find_server, run, server_options
from layover.cli.output import Column, print_rows
from layover.client.address import Server
from layover.client.api import Client
from layover.rpc.depot.cli.v1beta1.projects_pb import ListProjectsResponse
from layover.rpc.layover.v1.builds_pb import Build

_PROJECT_COLUMNS = (
    Column("ID", "id"),
    Column("NAME", "name"),
    Column("ORGANIZATION", "organizationName"),
)


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
    builds = run(_builds(find_server(url, token), project, limit))
    now = datetime.now(UTC)
    print_rows([build_row(b) for b in builds], [shown_row(b, now) for b in builds], COLUMNS, form)


@command.command("projects", epilog="Example: layover list projects --output json")
@OUTPUT
@server_options
def list_projects(form: str, url: str | None, token: str | None) -> None:
    """List the projects that the token sees."""
    rows = [
        {
            "id": project.id,
            "name": project.name,
            "organizationId": project.org_id,
            "organizationName": project.org_name,
        }
        for project in run(_projects(find_server(url, token)))
    ]
    print_rows(rows, rows, _PROJECT_COLUMNS, form)


async def _builds(server: Server, project: str | None, limit: int) -> list[Build]:
    async with Client(server) as client:
        project_id = await find_project(client, project, Path())
        return await client.list_builds(project_id, limit)


async def _projects(server: Server) -> list[ListProjectsResponse.Project]:
    async with Client(server) as client:
        return await client.list_projects()
