"""The program: finds the command, and turns every error into a message and a status."""

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from layover.cli.errors import (
    FAILED,
    INTERRUPTED,
    exit_code,
    explain,
    explain_bug,
    say,
)
from layover.cli.process import leave, open_closed_streams
from layover.errors import LayoverError

# Each command with the line that the list of commands shows, so that showing it loads none.
COMMANDS = {
    "admin": "Look after a server's data, on its own machine.",
    "audit": "Show who did what, from where, and how it ended.",
    "bake": "Build the targets of a bake file on a remote builder.",
    "build": "Build an image on a remote builder, and save it.",
    "builds": "Show, keep and remove builds.",
    "completion": "Print a shell's completion script.",
    "configure-docker": "Let Docker find the token for a server by itself.",
    "init": "Choose this folder's project.",
    "kube-secret": "Print a Kubernetes secret that pulls what was saved.",
    "kubelet-credential-provider": "Answer a kubelet that asks how to pull an image.",
    "list": "List builds and projects.",
    "login": "Log in to a server.",
    "logout": "Log out of a server.",
    "members": "Show, invite, change and remove an organization's members.",
    "orgs": "Show, create, rename and delete organizations.",
    "passwd": "Set the password that you sign in to the server's pages with.",
    "projects": "Create, show, change and delete projects.",
    "pull": "Pull a saved build into Docker.",
    "pull-token": "Print a token that pulls and does nothing else.",
    "push": "Push a saved build on to another registry.",
    "pushes": "List, show and cancel pushes to other registries.",
    "serve": "Run the server.",
    "tokens": "Show, create and revoke tokens.",
    "version": "Print the version.",
}

# Modules whose names cannot be their command's.
_MODULES = {"list": "lists"}


def _module(name: str) -> str:
    return _MODULES.get(name, name.replace("-", "_"))


class LazyGroup(click.Group):
    """A group whose commands are modules of this package, loaded when called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"layover.cli.{_module(cmd_name)}")
        command = module.command
        if not isinstance(command, click.Command):
            raise TypeError(f"{module.__name__}.command is no command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: layover build --save . && layover pull BUILD_ID -t app:latest",
)
@click.version_option(
    None, "-V", "--version", package_name="layover", message="%(prog)s %(version)s"
)
def cli() -> None:
    """Build container images remotely, save them for a while, and pull them anywhere."""


def program_name(argv0: str) -> str:
    """The name that the user called us by: `layover`, or `depot` in existing scripts."""
    name = Path(argv0).name
    return "layover" if name in ("", "__main__.py", "-c", "main.py") else name.removesuffix(".exe")


def run(arguments: Sequence[str], *, prog_name: str) -> int:
    """Run a command and return its status. Never raises for what a user can do."""
    debug = os.environ.get("LAYOVER_DEBUG", "") not in ("", "0")
    try:
        result = cli.main(list(arguments), prog_name=prog_name, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        say("interrupted")
        return INTERRUPTED
    except LayoverError as error:
        if debug and error.__cause__ is not None:
            say(explain_bug(error, debug=True))
        say(explain(error))
        return exit_code(error)
    except BrokenPipeError:
        # The reader of our output left, as `head` does. Nobody is there to be told.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
        return FAILED
    except Exception as error:
        say(explain_bug(error, debug=debug))
        return FAILED
    return result if isinstance(result, int) else 0


def main() -> None:
    """The entry point of `layover` and `depot`."""
    open_closed_streams()
    leave(run(sys.argv[1:], prog_name=program_name(sys.argv[0])))
