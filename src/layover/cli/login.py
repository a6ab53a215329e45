"""`layover login`: log in to a server in the browser, or keep a token for it."""

import sys
from pathlib import Path

import click
from rich.console import Console

from layover.cli.browser import open_page
from layover.cli.errors import LoginRefused, WrongUsage, say
from layover.cli.options import URL, environment, run
from layover.client import choices, login_file
from layover.client.address import Server, parse_token
from layover.client.api import Client
from layover.client.errors import AccessRefused, NotFound
from layover.client.login_flow import Login, StartedLogin


@click.command(
    "login",
    epilog="Example: layover login --url https://layover.example.com",
)
@URL
@click.option("--token", metavar="TOKEN", help="A token to keep, instead of asking in a browser.")
@click.option("--token-stdin", is_flag=True, help="Read the token from standard input.")
@click.option("--no-browser", is_flag=True, help="Print the page to open, and open none.")
def command(url: str | None, token: str | None, token_stdin: bool, no_browser: bool) -> None:
    """Log in to a server, and use that server from now on.

    Without a token, a page of the server asks you, signed in there, whether this command line may
    act as you; it shows the same code as your terminal, and it may be opened on any machine. The
    token that comes of it ends after 90 days, or with `layover logout`.

    A token is tried, and then kept in the configuration folder, readable by you alone.
    """
    env = environment()
    address = choices.find_url(url, env)
    if token is not None and token_stdin:
        raise WrongUsage("--token and --token-stdin exclude each other")
    if token_stdin:
        token = sys.stdin.read()
    is_ours = token is None
    if token is None:
        token = run(_in_browser(address, None if no_browser else env))
    token = parse_token(token)
    if not token:
        raise WrongUsage("the token is empty")
    server, path = Server(address, token), login_file.login_path(env)
    if is_ours:
        # Kept first: nobody gets it a second time.
        login_file.write(path, _kept(path).with_token(address, token, is_ours=True))
        projects = run(_count_projects(server))
    else:
        # Tried first: one that is refused changes nothing.
        projects = run(_count_projects(server))
        login_file.write(path, _kept(path).with_token(address, token))
    say(f"Logged in to {address} ({projects} project{'' if projects == 1 else 's'}).")


async def _in_browser(address: str, env: dict[str, str] | None) -> str:
    """The token of a login that the user approved; `env` None opens no browser."""
    async with Login(address) as login:
        started = await login.start()
        _show(started, is_opened=env is not None and open_page(started.approve_url, env))
        console = Console(stderr=True)
        try:
            if not console.is_terminal:
                return await login.finish(started)
            with console.status("Waiting for you to approve it (Ctrl-C to stop)"):
                return await login.finish(started)
        except AccessRefused as error:
            raise LoginRefused(str(error)) from error
        except (NotFound, TimeoutError) as error:
            raise LoginRefused(
                "nobody approved the login in time: run `layover login` again"
            ) from error


def _show(started: StartedLogin, *, is_opened: bool) -> None:
    what = "Your browser shows a page; should it not, open" if is_opened else "Open"
    say(f"{what} this page, on any machine, to log in:\n\n  {started.approve_url}\n")
    if started.user_code:
        say(f"It has to show this code:  {started.user_code}\n")


def _kept(path: Path) -> login_file.Login:
    try:
        return login_file.read(path)
    except login_file.LoginFileInvalid as error:
        say(f"warning: {error}: other servers' tokens are no longer in it")
        return login_file.Login()


async def _count_projects(server: Server) -> int:
    async with Client(server) as client:
        return len(await client.list_projects())
