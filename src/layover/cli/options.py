"""Options that several commands share, and how a command finds its server."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import click

from layover.cli.errors import say
from layover.cli.job_login import token_of_job
from layover.cli.process import environment as environment  # commands take it from here
from layover.client import choices, login_file
from layover.client.address import Server
from layover.client.api import Client
from layover.units import read_duration

Command = TypeVar("Command", bound=Callable[..., Any])
Value = TypeVar("Value")

_HERE = Path()


class DurationType(click.ParamType[timedelta]):
    """A length of time above zero, as settings take it: 90s, 36h, 7d."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        if isinstance(value, timedelta):
            return value
        try:
            return read_retention(value)
        except ValueError as error:
            self.fail(f"{error}", param, ctx)


def read_retention(text: str) -> timedelta:
    """How long something is to be kept. Raises ValueError; the server knows the maximum."""
    retention = read_duration(text)
    if not retention:
        raise ValueError(f"expected at least 1s, not {text!r}")
    return retention


DURATION = DurationType()

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


YES = click.option("--yes", "-y", is_flag=True, help="Do not ask on a terminal.")


def confirm(question: str, yes: bool) -> None:
    """Ask on a terminal, unless the user said --yes; a script says what it means by its arguments.

    Raises click.Abort for a no.
    """
    if not yes and sys.stdin.isatty():
        click.confirm(question, abort=True, err=True)


def server_options(command: Command) -> Command:
    """Add --url and --token."""
    return URL(TOKEN(command))


def find_server(
    url: str | None, token: str | None, project: str | None = None, folder: Path = _HERE
) -> Server:
    """The server that a command means; warns when others can read the token kept for it.

    In a CI job the token may be one for the project, which is found as `find_project` does.
    """
    env = environment()

    def job_token(address: str, has_login: bool) -> str:
        return run(token_of_job(address, project, folder, env, has_login=has_login))

    server = choices.find_server(url, token, env, job_token)
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
