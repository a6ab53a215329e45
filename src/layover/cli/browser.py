"""The user's browser, where there is one to open."""

import contextlib
import os
import subprocess
import sys
import webbrowser
from collections.abc import Iterator, Mapping


def open_page(url: str, env: Mapping[str, str]) -> bool:
    """Show a page in the user's browser; False where there is none that opens a window.

    What the browser says stays off the terminal. A browser in the terminal itself, as Python would
    find on a server, is none: it would take the place of what the user has to read.
    """
    if not _has_windows(env):
        return False
    with contextlib.suppress(webbrowser.Error, OSError, subprocess.SubprocessError), _silently():
        return webbrowser.open(url)
    return False


def _has_windows(env: Mapping[str, str]) -> bool:
    if env.get("BROWSER"):
        return True
    # The far end of an SSH connection is not where the user sits.
    if env.get("SSH_CONNECTION") or env.get("SSH_TTY"):
        return False
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(env.get("DISPLAY") or env.get("WAYLAND_DISPLAY"))


@contextlib.contextmanager
def _silently() -> Iterator[None]:
    """Let children that are started meanwhile write nowhere."""
    kept = os.dup(1), os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept[0], 1)
        os.dup2(kept[1], 2)
        for descriptor in (*kept, nowhere):
            os.close(descriptor)
