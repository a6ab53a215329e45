"""What a program was started with, its environment and standard streams, and its end."""

import contextlib
import os
import sys
import threading
from typing import NoReturn


def environment() -> dict[str, str]:
    """The environment, read in this one place."""
    return dict(os.environ)


def open_closed_streams() -> None:
    """Give each standard stream that we were started without (`2>&-`) an end that is nowhere.

    Python leaves it None, `print` then takes standard output for it, and the next file that is
    opened would be taken for it by buildx.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # The lowest number that is free is this one.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123


def leave(status: int) -> NoReturn:
    """End the process once all that was said is out and every thread of ours is done."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    # The HTTP client's own threads (pyqwest 0.12) may still be letting go of a connection, and
    # abort the process when the interpreter is gone by then. Everything of ours is done.
    os._exit(status)
