"""`layover pull`: a saved build into Docker."""

from collections.abc import Sequence

import click

from layover.cli.errors import WRONG_USAGE, CliError, WrongUsage, say
from layover.cli.layer_progress import drawn
from layover.cli.options import PROJECT, environment, find_server, run, server_options
from layover.cli.pullable import Pullable, check_platform, find
from layover.cli.saved_builds import choose_saved
from layover.client.address import Server
from layover.client.api import Client
from layover.client.references import Image
from layover.errors import LayoverError


@click.command("pull", epilog="Example: layover pull BUILD_ID -t app:latest")
@click.argument("what", metavar="[BUILD_ID | PROJECT:TAG | REFERENCE]", required=False)
@click.option("--tag", "-t", "tags", multiple=True, metavar="NAME", help="Name it so in Docker.")
@click.option("--platform", metavar="OS/ARCH", help="The platform of an image for several.")
@click.option("--target", "targets", multiple=True, metavar="TARGET", help="A bake's target.")
@click.option(
    "--progress",
    type=click.Choice(["auto", "plain", "tty", "quiet"]),
    default="auto",
    show_default=True,
    help="How progress is shown.",
)
@PROJECT
@server_options
def command(
    what: str | None,
    tags: tuple[str, ...],
    platform: str | None,
    targets: tuple[str, ...],
    progress: str,
    project: str | None,
    url: str | None,
    token: str | None,
) -> int:
    """Pull a saved build into Docker.

    Without a build ID it lets you choose from a list. Without -t the image gets the names that
    it was built with; without any it keeps the registry's. Of a bake every target is pulled.
    """
    names = [_parse_name(tag) for tag in tags]
    # As Docker has it: an empty variable in a script asks for none.
    platform = platform or None
    server = find_server(url, token, project)
    if what is None:
        what = choose_saved(server, project)
    if what is None:
        return WRONG_USAGE
    items = run(_find(server, what, targets))
    if names and len(items) > 1:
        raise WrongUsage(
            f"-t names one image, and {what} has {len(items)}: choose one with --target"
            f" ({', '.join(item.target for item in items)})"
        )
    for item in items:
        check_platform(str(item.image), item.platforms, platform)
    for name in _pull(items, names, platform, progress):
        click.echo(name)
    return 0


def _parse_name(text: str) -> Image:
    try:
        return Image.parse_name(text)
    except LayoverError as error:
        raise WrongUsage(f"-t {text}: {error}") from error


async def _find(server: Server, what: str, targets: Sequence[str]) -> list[Pullable]:
    async with Client(server) as client:
        return await find(client, what, targets)


def _pull(
    items: Sequence[Pullable], names: Sequence[Image], platform: str | None, progress: str
) -> list[str]:
    """Pull each, name it, and leave none of the registry's names behind that nobody wants."""
    # Docker's client costs a quarter of a second to load: a wrong build ID is told before.
    from layover.client.engine import Engine, PullFailed

    told: list[str] = []
    with Engine.connect(environment()) as engine:
        for item in items:
            wanted = names or [Image.parse(name) for name in item.names]
            was_there = engine.has(item.image)
            if progress != "quiet":
                say(f"Pulling {item.image}")
            try:
                with drawn(progress) as report:
                    engine.pull(
                        item.image,
                        username=item.username,
                        password=item.password,
                        platform=platform,
                        report=report,
                    )
            except PullFailed as error:
                if item.platforms and "no matching manifest" in str(error):
                    known = ", ".join(item.platforms)
                    raise CliError(
                        f"{error}\nIt is built for {known}: choose one with --platform"
                    ) from error
                raise
            for name in wanted:
                engine.tag(item.image, name)
            if wanted and not was_there and item.image not in wanted:
                engine.untag(item.image)
            told += [_shown(name) for name in wanted] or [str(item.image)]
    return told


def _shown(name: Image) -> str:
    return str(name) if name.tag else f"{name}:latest"
