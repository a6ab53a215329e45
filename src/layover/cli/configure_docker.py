"""`layover configure-docker`: make Docker ask Layover for the token of a server."""

import shutil
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import click

from layover.cli.errors import say
from layover.cli.options import URL, environment
from layover.client import choices, docker_config, registry_logins
from layover.client.docker_config import PROGRAM
from layover.client.errors import ClientError
from layover.client.registries import Registry, parse_registry


@click.command(
    "configure-docker",
    epilog="Example: layover configure-docker && docker pull layover.example.com/PROJECT:BUILD",
)
@click.option(
    "--registry", metavar="HOST", help="The registry's host; without it, the server's own."
)
@click.option("--uninstall", is_flag=True, help="Undo it.")
@URL
def command(registry: str | None, uninstall: bool, url: str | None) -> None:
    """Let Docker find the token for a server by itself, so that it needs no `docker login`.

    Names `layover` in Docker's config.json as the credential helper of the server's registry; for
    other registries nothing changes. Docker then runs `docker-credential-layover`, which is
    installed beside `layover` and finds the token as every command does: LAYOVER_TOKEN, a CI job's
    own identity, or what `layover login` keeps. podman and skopeo ask it as well.
    """
    env = environment()
    named = registry or choices.find_url(url, env)
    asked = parse_registry(named)
    host = asked.host_in_names
    config = docker_config.read(docker_config.config_path(env))
    if uninstall:
        if docker_config.uninstall(config, host):
            say(f"Docker no longer asks Layover for {host}: {config.path}")
        else:
            say(f"Docker does not ask Layover for {host}: {config.path} was left as it is.")
        return
    if docker_config.install(config, host):
        say(f"Docker asks Layover for the token of {host} from now on: {config.path}")
    else:
        say(f"Docker asks Layover for the token of {host} already: {config.path}")
    for warning in docker_config.warnings(config, asked, env):
        say(f"warning: {warning}.")
    _check_program(env)
    _check_token(asked, host, env)


def _check_program(env: Mapping[str, str]) -> None:
    """Say what to do when Docker would not find the helper."""
    if shutil.which(PROGRAM, path=env.get("PATH", "")) is not None:
        return
    scripts = Path(sysconfig.get_path("scripts"))
    say(
        f"warning: Docker looks for {PROGRAM} on the PATH, and it is not there. Either add the"
        f' folder that it is in, `export PATH="{scripts}:$PATH"`, or link it into one that is'
        f" there, `sudo ln -s {scripts / PROGRAM} /usr/local/bin/`."
    )


def _check_token(registry: Registry, host: str, env: Mapping[str, str]) -> None:
    try:
        found = registry_logins.has_token(registry, env)
    except ClientError as error:
        say(f"warning: {error}.")
        return
    if not found:
        say(f"There is no token for {host} yet: `layover login` gets one, or set LAYOVER_TOKEN.")
