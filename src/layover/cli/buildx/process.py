"""Running buildx beside everything else that a build does.

buildx shares the terminal, so that it draws its own progress. Off a terminal its messages pass
through here unchanged, to know the last one: the server keeps why a build failed.
"""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from layover.cli.errors import BuildxFailed
from layover.cli.interruption import SIGNALS, heed

_TAIL_BYTES = 16 * 1024
_PIECE_BYTES = 64 * 1024

# How long buildx may take to cancel a build that the server stopped.
_STOP_SECONDS = 10.0

# One signal asks, a second kills buildx; more than these end the recording of it too.
_PATIENCE = 2


# Runs in the new process before buildx does: the kernel is to send it a Ctrl-C when this process
# is killed, or else it would go on building for nobody. Done this way, and not by a function
# between fork and exec, because this process has threads.
_LAUNCHER = (
    "import ctypes, os, signal, sys\n"
    f"ctypes.CDLL(None).prctl(1, {int(signal.SIGINT)})\n"  # PR_SET_PDEATHSIG
    "if os.getppid() != int(sys.argv[1]): sys.exit(1)\n"
    "signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
    f"signal.pthread_sigmask(signal.SIG_UNBLOCK, {[int(number) for number in SIGNALS]})\n"
    "os.execv(sys.argv[2], sys.argv[2:])\n"
)


class Interruption:
    """Ctrl-C, SIGTERM and a closed terminal while a build runs.

    Use it as a context manager, in the event loop. The first signal is passed on to buildx,
    which cancels the build on the builder; with no buildx running it cancels the task that
    entered. The second kills buildx. A terminal sends Ctrl-C to buildx as well; buildx takes
    two for one wish, and only a third for impatience.
    """

    def __init__(self) -> None:
        self._count = 0
        self._is_stopped = False
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[object] | None = None
        self._heed_no_more: Callable[[], None] | None = None

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        self._heed_no_more = heed(self.request)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._heed_no_more is not None:
            self._heed_no_more()

    @property
    def is_requested(self) -> bool:
        return self._count > 0

    @property
    def is_impatient(self) -> bool:
        """Whether the user wants out, whatever is left to do."""
        return self._count > _PATIENCE

    def request(self) -> None:
        """What a signal does."""
        self._count += 1
        if self._process is not None:
            _signal(self._process, signal.SIGINT if self._count == 1 else signal.SIGKILL)
        elif self._task is not None and (self._count == 1 or self.is_impatient):
            self._task.cancel()

    def stop(self) -> None:
        """End the build for another reason than the user's, whatever buildx makes of it."""
        self._is_stopped = True
        if self._process is not None:
            self._end(self._process)
        elif self._task is not None:
            self._task.cancel()

    def watch(self, process: asyncio.subprocess.Process | None) -> None:
        """Name the process that signals are passed on to."""
        self._process = process
        if process is not None and self._is_stopped:
            # The stop came while the process was being started.
            self._end(process)

    def _end(self, process: asyncio.subprocess.Process) -> None:
        _signal(process, signal.SIGINT)
        # Nobody is there to ask a second time.
        asyncio.get_running_loop().call_later(_STOP_SECONDS, _signal, process, signal.SIGKILL)


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except ProcessLookupError:
        return  # It ended by itself in this moment.


async def run(
    buildx: Path,
    arguments: Sequence[str],
    env: dict[str, str],
    *,
    interruption: Interruption,
    stdin: BinaryIO | None = None,
) -> tuple[int, str]:
    """Run buildx to its end; returns its status and, off a terminal, its last messages."""
    is_terminal = sys.stderr.isatty()
    launcher = _launcher()
    # A signal that comes while buildx is being started waits for it; the launcher lets it come.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS if launcher else ())
    try:
        process = await asyncio.create_subprocess_exec(
            *launcher,
            buildx,
            *arguments,
            env=env,
            stdin=_rewound(stdin),
            stderr=None if is_terminal else asyncio.subprocess.PIPE,
        )
        interruption.watch(process)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        tail = await _pass_on(process.stderr)
        status = await process.wait()
    finally:
        interruption.watch(None)
        if process.returncode is None:
            _signal(process, signal.SIGKILL)
            await process.wait()
    # A process ended by a signal has the shell's status for it.
    return (128 - status if status < 0 else status), tail


def _launcher() -> list[str]:
    if sys.platform != "linux" or not sys.executable:
        return []
    return [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid())]


async def _pass_on(stream: asyncio.StreamReader | None) -> str:
    if stream is None:
        return ""
    tail = b""
    while piece := await stream.read(_PIECE_BYTES):
        sys.stderr.buffer.write(piece)
        sys.stderr.buffer.flush()
        tail = (tail + piece)[-_TAIL_BYTES:]
    return tail.decode(errors="replace")


def spool_stdin() -> BinaryIO:
    """Keep standard input in a file without a name: it is read more than once."""
    file = tempfile.TemporaryFile()  # noqa: SIM115  # it lives as long as the command
    shutil.copyfileobj(sys.stdin.buffer, file)
    return file


def _rewound(file: BinaryIO | None) -> BinaryIO | None:
    if file is not None:
        # The file is read through its descriptor, by another process.
        file.flush()
        os.lseek(file.fileno(), 0, os.SEEK_SET)
    return file


async def capture(
    buildx: Path,
    arguments: Sequence[str],
    env: dict[str, str],
    *,
    what: str,
    stdin: BinaryIO | None,
) -> str:
    """Run buildx for what it prints. Raises BuildxFailed with its own words."""
    process = await asyncio.create_subprocess_exec(
        buildx,
        *arguments,
        env=env,
        stdin=_rewound(stdin) or asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, messages = await process.communicate()
    if process.returncode:
        raise BuildxFailed(what, last_error(messages.decode(errors="replace")))
    return output.decode(errors="replace")


def replace_process(buildx: Path, arguments: Sequence[str], env: dict[str, str]) -> None:
    """Become buildx, for what needs no server. Never returns."""
    sys.stdout.flush()
    os.execve(buildx, [str(buildx), *arguments], env)  # noqa: S606


def last_error(messages: str) -> str:
    """The error that buildx ended with: from its last `ERROR:` line on, else all of it."""
    before, mark, after = messages.rpartition("ERROR: ")
    return (after if mark else before or messages).strip()
