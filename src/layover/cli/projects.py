"""`layover projects`: projects and their policies."""

from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import click
from protobuf import Oneof
from protobuf.wkt import Duration

from layover.cli import trust
from layover.cli.errors import WrongUsage
from layover.cli.lists import list_projects
from layover.cli.options import (
    DURATION,
    OUTPUT,
    PROJECT,
    YES,
    confirm,
    find_project,
    find_server,
    run,
    server_options,
)
from layover.cli.organization_options import ORGANIZATION
from layover.cli.output import print_rows
from layover.cli.project_rows import DETAILED_COLUMNS, detailed_row, shown_project
from layover.client.address import Server
from layover.client.api import Client
from layover.rpc.layover.v1.projects_pb import (
    CreateProjectRequest,
    NoQuota,
    Project,
    UpdateProjectRequest,
)
from layover.units import read_size

# What the API can carry.
_LARGEST_QUOTA = 2**63 - 1

Quota = Oneof[Literal["quota_bytes"], int] | Oneof[Literal["no_quota"], NoQuota]


class QuotaType(click.ParamType[Quota]):
    """A size above zero, as settings take it, or `none`."""

    name = "quota"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Quota:
        if not isinstance(value, str):
            return value  # type: ignore[no-any-return]  # converted before
        if value.strip().lower() == "none":
            return Oneof[Literal["no_quota"], NoQuota]("no_quota", NoQuota())
        try:
            size_bytes = read_size(value)
        except ValueError as error:
            self.fail(f"{error}, or none for no limit", param, ctx)
        if not 0 < size_bytes <= _LARGEST_QUOTA:
            self.fail(f"expected 1B to 8388607TiB, or none for no limit, not {value!r}", param, ctx)
        return Oneof[Literal["quota_bytes"], int]("quota_bytes", size_bytes)


@click.group("projects", epilog="Example: layover projects update --retention 72h")
def command() -> None:
    """Create, show, change and delete projects, and say who is trusted in them."""


command.add_command(list_projects, "list")
command.add_command(trust.command, "trust")

_RETENTION = click.option(
    "--retention", type=DURATION, metavar="TIME", help="How long what is saved or pushed is kept."
)
_MAX_RETENTION = click.option(
    "--max-retention",
    type=DURATION,
    metavar="TIME",
    help="The longest that can be asked for with --retention or --for.",
)
_QUOTA = click.option(
    "--quota",
    type=QuotaType(),
    metavar="SIZE|none",
    help="The most that the project's blobs may take.",
)

_PROJECT_ID = click.argument("project_id", metavar="[PROJECT_ID]", required=False)


@command.command("get", epilog="Example: layover projects get --output json")
@_PROJECT_ID
@PROJECT
@OUTPUT
@server_options
def get(
    project_id: str | None, project: str | None, form: str, url: str | None, token: str | None
) -> None:
    """Show a project, its policy, and how much of its quota is used."""
    named = _named(project_id, project)
    _print(run(_get(find_server(url, token, named), named)), form)


@command.command("create", epilog="Example: layover projects create web --retention 72h")
@click.argument("name")
@ORGANIZATION
@_RETENTION
@_MAX_RETENTION
@click.option(
    "--extend-on-pull",
    "extends_on_pull",
    is_flag=True,
    help="Keep what is pulled for the project's retention from then on.",
)
@_QUOTA
@OUTPUT
@server_options
def create(
    name: str,
    organization: str | None,
    retention: timedelta | None,
    max_retention: timedelta | None,
    extends_on_pull: bool,
    quota: Quota | None,
    form: str,
    url: str | None,
    token: str | None,
) -> None:
    """Create a project in an organization.

    Where only one of the times is given, the other fits it.
    """
    request = CreateProjectRequest(
        organization_id=organization or "",
        name=name,
        retention=_duration(retention),
        max_retention=_duration(max_retention),
        extends_on_pull=extends_on_pull,
        quota_bytes=quota.value if quota is not None and isinstance(quota.value, int) else None,
    )
    _print(run(_create(find_server(url, token), request)), form)


@command.command("update", epilog="Example: layover projects update --retention 72h --quota 50GiB")
@_PROJECT_ID
@PROJECT
@click.option("--name", metavar="TEXT", help="What it is called from now on.")
@_RETENTION
@_MAX_RETENTION
@click.option(
    "--extend-on-pull/--no-extend-on-pull",
    "extends_on_pull",
    default=None,
    help="Whether what is pulled is kept for the project's retention from then on.",
)
@_QUOTA
@OUTPUT
@server_options
def update(
    project_id: str | None,
    project: str | None,
    name: str | None,
    retention: timedelta | None,
    max_retention: timedelta | None,
    extends_on_pull: bool | None,
    quota: Quota | None,
    form: str,
    url: str | None,
    token: str | None,
) -> None:
    """Change a project's name or policy; what is not named stays as it is.

    A policy holds for what is saved or pushed from now on. What is there keeps the time that it
    has, also where that is beyond a lower maximum: `layover builds rm` removes it sooner.
    """
    named = _named(project_id, project)
    request = UpdateProjectRequest(
        name=name,
        retention=_duration(retention),
        max_retention=_duration(max_retention),
        extends_on_pull=extends_on_pull,
        quota=quota,
    )
    if all(change is None for change in (name, retention, max_retention, extends_on_pull, quota)):
        raise WrongUsage(
            "nothing to change: give --name, --retention, --max-retention, --extend-on-pull,"
            " --no-extend-on-pull or --quota"
        )
    _print(run(_update(find_server(url, token, named), named, request)), form)


@command.command("delete", epilog="Example: layover projects delete PROJECT_ID")
@click.argument("project_id", metavar="PROJECT_ID")
@YES
@server_options
def delete(project_id: str, yes: bool, url: str | None, token: str | None) -> None:
    """Delete a project with all that is in it, at once and for everybody.

    Its builds are canceled, its images are gone, its tokens and trust policies end. On a terminal
    it asks; a script says what it means by naming the project.
    """
    server = find_server(url, token)
    confirm(f"Delete project {project_id}, with every build, image and token of it?", yes)
    run(_delete(server, project_id))
    click.echo(project_id)


def _duration(length: timedelta | None) -> Duration | None:
    return None if length is None else Duration.from_timedelta(length)


def _named(argument: str | None, option: str | None) -> str | None:
    if argument and option and argument != option:
        raise WrongUsage(f"two projects are named, {argument} and {option}: give one")
    return argument or option


def _print(project: Project, form: str) -> None:
    print_rows([detailed_row(project)], [shown_project(project)], DETAILED_COLUMNS, form)


async def _get(server: Server, named: str | None) -> Project:
    async with Client(server) as client:
        return await client.get_project(await find_project(client, named, Path()))


async def _update(server: Server, named: str | None, request: UpdateProjectRequest) -> Project:
    async with Client(server) as client:
        request.project_id = await find_project(client, named, Path())
        return await client.update_project(request)


async def _create(server: Server, request: CreateProjectRequest) -> Project:
    async with Client(server) as client:
        return await client.create_project(request)


async def _delete(server: Server, project_id: str) -> None:
    async with Client(server) as client:
        await client.delete_project(project_id)
