"""`layover logout`: forget a server's token, and end it if a login made it."""

import click

from layover.cli.errors import say
from layover.cli.options import URL, environment, run
from layover.client import choices, login_file
from layover.client.address import Server
from layover.client.errors import ClientError, TokenRefused
from layover.client.tokens import TokensClient


@click.command("logout", epilog="Example: layover logout --url https://layover.example.com")
@URL
@click.option("--keep", is_flag=True, help="Forget the token here, and let it stay valid.")
def command(url: str | None, keep: bool) -> None:
    """Forget the token that is kept for a server.

    One that `layover login` had made in the browser is revoked on the server too: nobody else has
    it. One that was given with --token stays valid.
    """
    env = environment()
    address = choices.find_url(url, env)
    path = login_file.login_path(env)
    login = login_file.read(path)
    if address not in login.tokens:
        say(f"There is no login for {address}.")
        return
    if address in login.made and not keep:
        _revoke(Server(address, login.tokens[address]))
    login_file.write(path, login.without(address))
    say(f"Logged out of {address}.")


def _revoke(server: Server) -> None:
    try:
        run(_give_up(server))
    except TokenRefused:
        # It is over already.
        return
    except ClientError as error:
        say(f"warning: the token was not revoked, and stays valid until it ends: {error}")


async def _give_up(server: Server) -> None:
    async with TokensClient(server) as client:
        caller = await client.get_caller()
        if caller.token is None:
            raise ClientError("the server answered without the token")
        await client.revoke_token(caller.token.id)
