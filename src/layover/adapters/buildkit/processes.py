"""Processes of this machine: who they are, whom they started, and how to end them for sure.

Reads /proc, so it knows Linux alone, as buildkitd does.
"""

import asyncio
import os
import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

STOP_TIMEOUT_SECONDS = 10.0

_PROC = Path("/proc")
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process, told apart from a later one with the same ID by when it started."""

    pid: int
    started_at: int
    """In clock ticks since the machine's start (proc(5), `starttime`)."""

    @classmethod
    def of(cls, pid: int) -> "ProcessIdentity | None":
        """The process with this ID; None when there is none, or only its remains."""
        fields = _stat(pid)
        if fields is None or fields[0] == "Z":
            return None
        return cls(pid, int(fields[19]))

    @property
    def is_running(self) -> bool:
        return ProcessIdentity.of(self.pid) == self

    @property
    def command(self) -> list[str]:
        try:
            return (_PROC / str(self.pid) / "cmdline").read_bytes().decode().split("\0")
        except (OSError, UnicodeDecodeError):
            return []

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless the process is gone."""
        if self.is_running:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return


def descendants(pid: int) -> list[ProcessIdentity]:
    """Every process that `pid` started, directly or not, as far as their line is unbroken."""
    children: dict[int, list[int]] = {}
    for other in _pids():
        if (fields := _stat(other)) is not None:
            children.setdefault(int(fields[1]), []).append(other)
    found, queue = [], list(children.get(pid, ()))
    while queue:
        child = queue.pop()
        queue += children.get(child, ())
        if (identity := ProcessIdentity.of(child)) is not None:
            found.append(identity)
    return found


def processes_rooted_in(folder: Path) -> list[ProcessIdentity]:
    """Processes whose own root file system is made of what lies in `folder`: its containers."""
    found = []
    for pid in _pids():
        try:
            mounts = (_PROC / str(pid) / "mountinfo").read_text(errors="replace")
        except OSError:
            continue
        # proc(5), mountinfo: the fifth field is the mount point as the process sees it.
        root = next((line for line in mounts.splitlines() if line.split(" ", 5)[4] == "/"), "")
        if f"{folder}/" in root and (identity := ProcessIdentity.of(pid)) is not None:
            found.append(identity)
    return found


def processes_with_command(arguments: Sequence[str]) -> list[ProcessIdentity]:
    """Processes whose command line holds `arguments` in a row."""
    found = []
    wanted = list(arguments)
    for pid in _pids():
        identity = ProcessIdentity.of(pid)
        if identity is None:
            continue
        command = identity.command
        starts = range(len(command) - len(wanted) + 1)
        if any(command[start : start + len(wanted)] == wanted for start in starts):
            found.append(identity)
    return found


async def end(process: ProcessIdentity, containers_in: Path) -> None:
    """End a daemon and all that it started: ask it first, and after 10 seconds insist.

    `containers_in` is where its containers have their file systems: their processes survive
    a daemon that is killed, with nobody as their parent.
    """
    children = descendants(process.pid)
    process.send(signal.SIGTERM)
    if not await _gone([process], STOP_TIMEOUT_SECONDS):
        children += descendants(process.pid)
        process.send(signal.SIGKILL)
        await _gone([process], STOP_TIMEOUT_SECONDS)
    await kill([*children, *processes_rooted_in(containers_in)])


async def kill(processes: Iterable[ProcessIdentity]) -> None:
    """Kill what is left of `processes` and wait until it is gone."""
    left = list(processes)
    for process in left:
        process.send(signal.SIGKILL)
    await _gone(left, STOP_TIMEOUT_SECONDS)


async def _gone(processes: list[ProcessIdentity], timeout_seconds: float) -> bool:
    try:
        async with asyncio.timeout(timeout_seconds):
            # They are nobody's children here, or their end is awaited elsewhere: only /proc knows.
            while any(process.is_running for process in processes):  # noqa: ASYNC110
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        return False
    return True


def _pids() -> list[int]:
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal()]


def _stat(pid: int) -> list[str] | None:
    """The fields of proc(5)'s stat behind the command's name, from the state on."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The name stands in parentheses and may itself hold any character.
    return text.rpartition(")")[2].split()
