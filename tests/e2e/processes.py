"""Programs that the tests run: kept apart from the user's environment, ended without a trace."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENGINES = ROOT / ".engines"
# The sbin folders hold dockerd and runc on Debian; what scripts/install-engines made comes last.
PATH = os.pathsep.join(
    [
        str(ROOT / ".venv" / "bin"),
        os.environ.get("PATH", os.defpath),
        "/usr/local/sbin:/usr/sbin:/sbin",
        str(ENGINES / "bin"),
    ]
)
_FOREIGN = (
    "LAYOVER_",
    "DEPOT_",
    "DOCKER_",
    "BUILDX_",
    "BUILDKIT_",
    "XDG_",
    "AWS_",
    "CONTAINERS_",
    "REGISTRY_",
    # What tells a CI system's jobs who they are.
    "ACTIONS_",
    "BUILDKITE",
    "CIRCLE",
    "GITHUB_",
    "GITLAB_",
)


class MissingEngineError(Exception):
    """A program that the tests run is not installed: a failure, never a reason to skip."""


def find(program: str) -> str:
    """Return the program's path. Raises MissingEngineError, which says how to get it."""
    path = shutil.which(program, path=PATH)
    if path is None:
        raise MissingEngineError(f"{program} is not installed; run scripts/install-engines")
    return path


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return an environment in which nothing of the user's own configuration is seen or touched."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    return {**kept, "PATH": PATH, "HOME": str(home), **more}


def run(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    check: bool = True,
    timeout: float = 300,
    stdin: str | None = None,
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end; with `check`, a failure raises AssertionError with all it said."""
    done = subprocess.run(
        [str(part) for part in command],
        env=dict(env),
        cwd=cwd,
        input=stdin if stdin is not None else "",
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if check and done.returncode != 0:
        raise AssertionError(
            f"ended with {done.returncode}: {' '.join(str(part) for part in command)}\n"
            f"--- stdout\n{done.stdout}\n--- stderr\n{done.stderr}"
        )
    return done


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on at the moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait_until(
    condition: Callable[[], bool], *, timeout: float, what: str, interval: float = 0.05
) -> None:
    """Poll until the condition holds; after `timeout` seconds raise AssertionError with `what`."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:.0f} s for {what}")
        time.sleep(interval)


class Background:
    """A program that runs beside the tests, the leader of its own session, its output in a file."""

    def __init__(self, command: Sequence[str | Path], *, env: Mapping[str, str], log: Path) -> None:
        self.log_path = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [str(part) for part in command],
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def exit_status(self) -> int | None:
        """None while it runs; minus the signal's number when a signal ended it."""
        return self._process.poll()

    def log(self) -> str:
        """Return all that it wrote so far, and what wrote to the same file before it."""
        return self.log_path.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to this one process."""
        self._process.send_signal(number)

    def wait(self, timeout: float) -> int:
        return self._process.wait(timeout)

    def stop(self, timeout: float = 30) -> None:
        """Ask it to end, wait, then insist with everything in its session. Idempotent."""
        if self.is_running:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)


def processes_of(folder: Path) -> list[int]:
    """Return the processes whose command line names a path in `folder`, this one aside.

    The folder is a test's own, so these are what it started: how the children are found of a
    server that was killed before it could stop them.
    """
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            arguments = (entry / "cmdline").read_bytes()
        except OSError:  # it ended in the meantime
            continue
        if os.fsencode(folder) + b"/" in arguments:
            found.append(int(entry.name))
    return found


def remove(folder: Path) -> None:
    """Remove a folder that engines worked in: what still runs there, mounts, and files."""
    for pid in processes_of(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    mounts = [
        # Spaces stand as \040 in there; no test has one in its path.
        line.split()[1]
        for line in Path("/proc/mounts").read_text().splitlines()
        if line.split()[1].startswith(f"{folder}/")
    ]
    for mount in reversed(mounts):
        subprocess.run([find("umount"), "--lazy", mount], check=False, capture_output=True)
    shutil.rmtree(folder, ignore_errors=True)
