"""Options that several commands share, and how a command finds its server."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click

from layover.cli.errors import say
from layover.client import choices, login_file
from layover.client.address import Server
from layover.client.api import Client

Command = TypeVar("Command", bound=Callable[..., Any])
Value = TypeVar("Value")

URL = click.option("--url", metavar="URL", help="The server's address [env: LAYOVER_URL].")
TOKEN = click.option("--token", metavar="TOKEN", help="The token [env: LAYOVER_TOKEN].")
PROJECT = click.option(
    "--project", metavar="ID", help="The project [env: LAYOVER_PROJECT_ID; else depot.json]."
)
OUTPUT = click.option(
    "--output",
    "-o",
    "form",
    type=click.Choice(["table", "json", "csv"]),
    default="table",
    show_default=True,
    help="The form of what is printed.",
)


def server_options(command: Command) -> Command:
    """Add --url and --token."""
    return URL(TOKEN(command))


def environment() -> dict[str, str]:
    """The environment, read in this one place."""
    return dict(os.environ)


def find_server(url: str | None, token: str | None) -> Server:
    """The server that a command means; warns when others can read the token kept for it."""
    env = environment()
    server = choices.find_server(url, token, env)
    path = login_file.login_path(env)
    if login_file.is_readable_by_others(path):
        say(f"warning: others can read {path}, which holds tokens: run `chmod 600 {path}`")
    return server


async def find_project(client: Client, flag: str | None, folder: Path) -> str:
    """The project that a command means, or the only one that the token sees."""
    found = choices.find_project(flag, environment(), folder)
    if found:
        return found
    projects = await client.list_projects()
    return choices.only_project([(project.id, project.name) for project in projects])


def run(work: Coroutine[Any, Any, Value]) -> Value:
    """Run a command's asynchronous part."""
    return asyncio.run(work)
