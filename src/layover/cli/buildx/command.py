"""A command that keeps a few flags for itself and gives the rest to buildx."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import click

from layover.cli.buildx import metadata
from layover.cli.buildx.arguments import CommandLine, scan
from layover.cli.errors import WrongUsage, say
from layover.cli.options import find_project, find_server, read_retention, run
from layover.client.address import Server
from layover.client.api import Client

# Layover's flags of `build` and `bake`, for the help page; `arguments` reads them.
OWN_OPTIONS: Sequence[tuple[str, str]] = (
    ("--save", "Save the build in the registry, under its build ID."),
    ("--save-tag TAG", "Save it under this tag of the project as well; may be repeated."),
    ("--retention TIME", "Keep what is saved for so long, as 36h or 7d [default: the project's]."),
    ("--metadata-file FILE", "Write what buildx knows, and the build's ID, as JSON."),
    ("--project ID", "The project [env: LAYOVER_PROJECT_ID; else depot.json]."),
    ("--token TOKEN", "The token [env: LAYOVER_TOKEN]."),
    ("--url URL", "The server's address [env: LAYOVER_URL]."),
    ("--build-platform PLATFORM", "Build on linux/amd64, linux/arm64, or dynamic (default)."),
    ("-h, --help", "Show this message and exit."),
)

OWN_SWITCHES = frozenset({"--save"})


@dataclass(frozen=True, slots=True)
class OwnFlags:
    """The flags of `build` and `bake` that are Layover's."""

    url: str
    token: str = field(repr=False)
    project: str
    build_platform: str
    save: bool
    save_tags: list[str]
    retention: timedelta | None
    metadata_file: Path | None

    @classmethod
    def take(cls, line: CommandLine) -> Self:
        """Take them out of a command line. Raises WrongUsage."""
        if line.take("--builder"):
            raise WrongUsage("--builder cannot be chosen here: the server chooses the builder")
        save_tags = line.take("--save-tag")
        is_saved = line.take_switch("--save") or bool(save_tags)
        retention = _retention(line.take("--retention"))
        if retention is not None and not is_saved:
            raise WrongUsage("--retention is for what is saved: add --save")
        metadata_file = line.take_last("--metadata-file")
        return cls(
            url=line.take_last("--url"),
            token=line.take_last("--token"),
            project=line.take_last("--project"),
            build_platform=line.take_last("--build-platform"),
            save=is_saved,
            save_tags=save_tags,
            retention=retention,
            metadata_file=Path(metadata_file) if metadata_file else None,
        )

    def find(self, folder: Path) -> tuple[Server, str]:
        """The server and the project's ID; sees as well that the metadata can be written.

        Raises a ClientError for what is missing, before anything is begun.
        """
        if self.metadata_file is not None:
            metadata.check_writable(self.metadata_file)
        server = find_server(self.url or None, self.token or None, self.project or None, folder)
        return server, run(_project_of(server, self.project, folder))


def without_save(own: OwnFlags, call: str) -> OwnFlags:
    """The flags of a command that builds nothing: what buildx tells makes no image to save.

    buildx would push an empty one, and a tag that is saved under would move to it.
    """
    if not own.save:
        return own
    say(f"Nothing is saved: buildx was asked for `{call}`, which builds no image.")
    return replace(own, save=False, save_tags=[], retention=None)


def _retention(values: Sequence[str]) -> timedelta | None:
    if not values:
        return None
    try:
        return read_retention(values[-1])
    except ValueError as error:
        raise WrongUsage(f"--retention: {error}") from None


async def _project_of(server: Server, flag: str, folder: Path) -> str:
    async with Client(server) as client:
        return await find_project(client, flag or None, folder)


class BuildxCommand(click.Command):
    """Takes every argument as it is: Click would stop at the first flag that it doesn't know."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "add_help_option": False})

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.params["arguments"] = tuple(args)
        return []

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return ["[OPTIONS]", "[BUILDX OPTIONS]", *super().collect_usage_pieces(ctx)[1:]]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Options"):
            formatter.write_dl(OWN_OPTIONS)


def show_help(ctx: click.Context, arguments: Sequence[str], switches: frozenset[str]) -> None:
    """Show the command's help and exit, if it was asked for."""
    line = CommandLine(scan(arguments, switches, OWN_SWITCHES), {"-h": "--help"})
    if line.switch("--help"):
        click.echo(ctx.get_help())
        ctx.exit(0)


def existing_folder(context: str) -> Path:
    """The folder to look for depot.json from: the context if it is one, else the current."""
    path = Path(context)
    return path if context not in ("", "-") and path.is_dir() else Path()
