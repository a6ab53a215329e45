"""What a user is told when a command cannot do its work, and the status it ends with.

A message says what failed, why, and what to try next, on standard error. Statuses: 0 done,
1 the work failed, 2 wrong usage, 130 interrupted; a build ends with buildx's own.
"""

import sys
import traceback
from collections.abc import Mapping

from layover.cli.output import printable_lines
from layover.client.address import InvalidAddress, InvalidToken
from layover.client.choices import NoProject, NoServer, NoToken
from layover.client.errors import (
    AccessRefused,
    NotFound,
    NotLayover,
    NotTrusted,
    ServerFailed,
    ServerUnreachable,
)
from layover.client.push_errors import RealmRefused, RegistryUnreachable
from layover.client.registries import RegistryInvalid
from layover.errors import LayoverError
from layover.redaction import redact

DONE = 0
FAILED = 1
WRONG_USAGE = 2
INTERRUPTED = 130


class CliError(LayoverError):
    """A command could not do its work."""


class WrongUsage(CliError):
    """What was typed cannot be done; the message says what can."""


class BuildxMissing(CliError):
    """There is no buildx on this machine."""

    def __init__(self) -> None:
        super().__init__(
            "buildx is not installed, and builds go through it. Put its release for this system"
            " (https://github.com/docker/buildx/releases) on the PATH as `buildx`, or install"
            " your distribution's docker-buildx package. It needs no Docker daemon."
        )


class BuildxFailed(CliError):
    """buildx could not do something that Layover asked of it."""

    def __init__(self, what: str, output: str) -> None:
        super().__init__(f"buildx could not {what}: {output.strip() or 'it said nothing'}")


class LoginRefused(CliError):
    """The login in the browser came to nothing."""


class Interrupted(CliError):
    """The user stopped the command."""

    def __init__(self, what: str = "interrupted") -> None:
        super().__init__(what)


EXIT_CODES: Mapping[type[LayoverError], int] = {
    InvalidAddress: WRONG_USAGE,
    InvalidToken: WRONG_USAGE,
    Interrupted: INTERRUPTED,
    NoProject: WRONG_USAGE,
    NoServer: WRONG_USAGE,
    NoToken: WRONG_USAGE,
    RegistryInvalid: WRONG_USAGE,
    WrongUsage: WRONG_USAGE,
}

# What to try next, where the error's own words do not say it.
HINTS: Mapping[type[LayoverError], str] = {
    AccessRefused: "Ask for a token that may, and log in with `layover login`.",
    NotFound: "`layover list builds` and `layover list projects` show what there is.",
    NotLayover: "Check the address, and that the server's version is not older than this client's.",
    NotTrusted: "Name who signed it in SSL_CERT_FILE, or use the name that it is for.",
    RealmRefused: "Check the registry's name; whoever runs it says where its clients sign in.",
    RegistryUnreachable: "Check the registry's name, and that it can be reached from here.",
    ServerFailed: "Try again; the server's log says more.",
    ServerUnreachable: "Check the address, and that the server is running.",
}


def exit_code(error: LayoverError) -> int:
    """The status that a command ends with for this error."""
    return next((EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES), FAILED)


def explain(error: LayoverError) -> str:
    """The error and what to try next, for a terminal."""
    hint = next((HINTS[kind] for kind in type(error).__mro__ if kind in HINTS), "")
    # Servers and registries wrote a part of it.
    told = printable_lines(redact(str(error)))
    return f"error: {told}" + (f"\n{hint}" if hint else "")


def explain_bug(error: BaseException, *, debug: bool) -> str:
    """One line for an error that nobody foresaw, or all of it when asked for.

    What is shown may be pasted anywhere, and so holds no secrets.
    """
    if debug:
        return redact("".join(traceback.format_exception(error)).rstrip())
    reason = " ".join(redact(str(error)).split())[:300]
    return (
        f"error: unexpected {type(error).__name__}{': ' + reason if reason else ''}"
        " (LAYOVER_DEBUG=1 shows more)"
    )


def say(message: str) -> None:
    """Tell the user something beside the command's result."""
    print(message, file=sys.stderr, flush=True)
