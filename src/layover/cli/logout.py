"""`layover logout`: forget a server's token."""

import click

from layover.cli.errors import say
from layover.cli.options import URL, environment
from layover.client import choices, login_file


@click.command("logout", epilog="Example: layover logout --url https://layover.example.com")
@URL
def command(url: str | None) -> None:
    """Forget the token that is kept for a server."""
    env = environment()
    address = choices.find_url(url, env)
    path = login_file.login_path(env)
    login = login_file.read(path)
    if address not in login.tokens:
        say(f"There is no login for {address}.")
        return
    login_file.write(path, login.without(address))
    say(f"Logged out of {address}.")
