"""`layover login`: keep a token for a server."""

import sys
from pathlib import Path

import click

from layover.cli.errors import WrongUsage, say
from layover.cli.options import URL, environment, run
from layover.client import choices, login_file
from layover.client.address import Server, parse_token
from layover.client.api import Client


@click.command(
    "login",
    epilog="Example: layover login --url https://layover.example.com --token-stdin < token",
)
@URL
@click.option("--token", metavar="TOKEN", help="The token; asked for when not given.")
@click.option("--token-stdin", is_flag=True, help="Read the token from standard input.")
def command(url: str | None, token: str | None, token_stdin: bool) -> None:
    """Keep a token for a server, and use that server from now on.

    The token is tried first. It is kept in the configuration folder, readable by you alone.
    """
    env = environment()
    address = choices.find_url(url, env)
    if token and token_stdin:
        raise WrongUsage("--token and --token-stdin exclude each other")
    if token_stdin:
        token = sys.stdin.read()
    elif not token:
        if not sys.stdin.isatty():
            raise WrongUsage("no token given: use --token or --token-stdin")
        token = click.prompt("Token", hide_input=True, err=True)
    token = parse_token(token)
    if not token:
        raise WrongUsage("the token is empty")
    projects = run(_count_projects(Server(address, token)))
    path = login_file.login_path(env)
    login_file.write(path, _kept(path).with_token(address, token))
    say(f"Logged in to {address} ({projects} project{'' if projects == 1 else 's'}).")


def _kept(path: Path) -> login_file.Login:
    try:
        return login_file.read(path)
    except login_file.LoginFileInvalid as error:
        say(f"warning: {error}: other servers' tokens are no longer in it")
        return login_file.Login()


async def _count_projects(server: Server) -> int:
    async with Client(server) as client:
        return len(await client.list_projects())
