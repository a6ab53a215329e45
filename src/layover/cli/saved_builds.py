"""Which saved build a command without an ID means: the user chooses from a list."""

from datetime import UTC, datetime
from pathlib import Path

import click

from layover.cli import picker
from layover.cli.build_rows import builds_csv, is_saved
from layover.cli.errors import CliError
from layover.cli.options import find_project, run
from layover.client.address import Server
from layover.client.api import Client
from layover.rpc.layover.v1.builds_pb import Build

# How many builds the list to choose from has.
_LISTED = 100


def choose_saved(server: Server, project: str | None) -> str | None:
    """Let the user choose; return the build's ID.

    Off a terminal the list is told as CSV, and None says that an ID is to be given. Raises
    CliError when there is nothing to choose, Interrupted when the user leaves without choosing.
    """
    builds = run(_saved_builds(server, project))
    now = datetime.now(UTC)
    if not picker.can_ask():
        click.echo(builds_csv(builds, now), nl=False, err=True)
        return None
    if not builds:
        raise CliError("there is no saved build in this project: `layover build --save .`")
    return picker.pick(builds, "Which build?", now).id


async def _saved_builds(server: Server, project: str | None) -> list[Build]:
    async with Client(server) as client:
        project_id = await find_project(client, project, Path())
        builds = await client.list_builds(project_id, _LISTED)
    return [build for build in builds if is_saved(build)]
