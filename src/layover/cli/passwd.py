"""`layover passwd`: set one's own password for the server's pages."""

import sys

import click

from layover.cli.errors import WrongUsage, say
from layover.cli.options import find_server, run, server_options
from layover.client.address import Server
from layover.client.users import UsersClient
from layover.rpc.layover.v1.users_pb import SetPasswordResponse


@click.command(
    "passwd", epilog="Example: layover passwd --password-stdin < password  # for scripts"
)
@server_options
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
def command(url: str | None, token: str | None, password_stdin: bool) -> None:
    """Set the password that you sign in to the server's pages with.

    It takes a token of your own. Browsers that you are signed in with are signed out; tokens
    stay what they are. At least 12 characters.
    """
    server = find_server(url, token)
    answer = run(_set_password(server, _read(from_stdin=password_stdin)))
    say(f"The password of {answer.user_name} is set. Sign in at {answer.sign_in_url}")


def _read(*, from_stdin: bool) -> str:
    if from_stdin:
        # As `echo` and files end it.
        password = sys.stdin.read().removesuffix("\n").removesuffix("\r")
    elif sys.stdin.isatty():
        password = click.prompt("New password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        raise WrongUsage("no terminal to ask on: use --password-stdin")
    if not password:
        raise WrongUsage("the password is empty")
    return str(password)


async def _set_password(server: Server, password: str) -> SetPasswordResponse:
    async with UsersClient(server) as client:
        return await client.set_password(password)
