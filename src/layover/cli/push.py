"""`layover push`: a saved build from the server straight to other registries."""

from collections.abc import Sequence

import click

from layover.cli.errors import WRONG_USAGE, WrongUsage
from layover.cli.options import PROJECT, environment, find_server, run, server_options
from layover.cli.output import printable
from layover.cli.saved_builds import choose_saved
from layover.client.references import is_id
from layover.oci.references import Destination, InvalidDestination
from layover.rpc.layover.v1.pushes_pb import CreatePushRequest


@click.command("push", epilog="Example: layover push BUILD_ID -t ghcr.io/acme/app:v1")
@click.argument("build_id", metavar="[BUILD_ID]", required=False)
@click.option(
    "--tag",
    "-t",
    "tags",
    multiple=True,
    metavar="NAME:TAG",
    help="Where to: REGISTRY/REPOSITORY:TAG; without a registry Docker Hub's. Repeatable.",
)
@click.option("--target", metavar="TARGET", default="", help="Of a bake: which target.")
@click.option(
    "--platform",
    "platforms",
    multiple=True,
    metavar="OS/ARCH",
    help="Of an image for several platforms these alone. Repeatable.",
)
@click.option(
    "--referrers", is_flag=True, help="Signatures and SBOMs that refer to the image as well."
)
@click.option("--detach", "-d", is_flag=True, help="Print the push's ID and leave it alone.")
@click.option(
    "--progress",
    type=click.Choice(["auto", "plain", "tty", "quiet", "json"]),
    default="auto",
    show_default=True,
    help="How progress is shown; json is a line a change on standard output.",
)
@PROJECT
@server_options
def command(
    build_id: str | None,
    tags: tuple[str, ...],
    target: str,
    platforms: tuple[str, ...],
    referrers: bool,
    detach: bool,
    progress: str,
    project: str | None,
    url: str | None,
    token: str | None,
) -> int:
    """Push a saved build on to other registries, straight from the server.

    Without a build ID it lets you choose from a list. Docker's own logins are used: the server
    gets a token for that repository alone, which is renewed while this command waits. Ctrl-C asks
    the server to stop. With --detach the push goes on by itself, for as long as that token lasts.
    """
    destinations = _destinations(tags)
    if build_id is not None and not is_id(build_id):
        raise WrongUsage(
            f"{printable(build_id[:300])!r} is not a build's ID: `layover list builds` shows them"
        )
    server = find_server(url, token, project)
    if build_id is None:
        build_id = choose_saved(server, project)
    if build_id is None:
        return WRONG_USAGE
    request = CreatePushRequest(
        build_id=build_id,
        target=target,
        destinations=[str(one) for one in destinations],
        # As Docker has it: an empty variable in a script asks for none.
        platforms=[platform for platform in platforms if platform],
        with_referrers=referrers,
    )
    places = list(dict.fromkeys(one.place for one in destinations))
    # Asking registries loads an HTTP client more: wrong usage is told before.
    from layover.cli.push_session import push

    work = push(server, environment(), request, places, is_detached=detach, progress=progress)
    return run(work)


def _destinations(tags: Sequence[str]) -> tuple[Destination, ...]:
    if not tags:
        raise WrongUsage("say where to push with -t, as -t ghcr.io/acme/app:v1")
    try:
        return tuple(dict.fromkeys(Destination.parse(tag) for tag in tags))
    except InvalidDestination as error:
        raise WrongUsage(f"-t: {error}") from error
