"""The BuildKit that the server starts itself when no builder is configured.

    DATA_DIR/buildkit/
        lock               held by the server that runs the daemon
        buildkitd.toml     its configuration, written at each start
        certs/             see certificates.py
        root/              the daemon's own: its cache and its snapshots

The daemon lives as long as the server: it is restarted when it dies, or answers nobody any more,
stopped when the server stops, and told to stop by the kernel when the server is killed. What an
earlier server left running on the same folder all the same is ended before a new one starts.
"""

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import structlog

from layover.adapters.buildkit.certificates import SERVER_NAME, Authority
from layover.adapters.buildkit.daemon_config import (
    DEFAULT_CACHE_BYTES,
    DaemonConfig,
    RegistryAccess,
)
from layover.adapters.buildkit.daemon_log import DaemonLog
from layover.adapters.buildkit.mounts import unmount_below
from layover.adapters.buildkit.probe import probe
from layover.adapters.buildkit.processes import (
    ProcessIdentity,
    end,
    kill,
    processes_rooted_in,
    processes_with_command,
)
from layover.builds.builders import Credentials, Platforms
from layover.builds.errors import BuilderUnhealthy

_FIRST_DELAY_SECONDS = 1.0
_MAX_DELAY_SECONDS = 30.0
# A daemon that lived this long failed for a new reason: the delays begin anew.
_STEADY_SECONDS = 60.0
_OUTPUT_TIMEOUT_SECONDS = 2.0
# A daemon that runs and answers no check for so long never will. A machine under load answers
# late too, and builds that it works on end with it: better late than in the midst of them.
_WEDGED_SECONDS = 300.0
_WEDGED_POLL_SECONDS = 1.0
_START_PATIENCE_SECONDS = 3.0
_START_POLL_SECONDS = 0.05

_GET_BUILDKIT = (
    "install BuildKit, for example with `scripts/install-engines` of Layover's source tree or from"
    " https://github.com/moby/buildkit/releases, or configure builders that run elsewhere"
)

# Debian has runc in a folder that a user's PATH may lack.
_MORE_PATH = "/usr/local/sbin:/usr/sbin:/sbin"

# Runs in the new process before the daemon does: ask the kernel for SIGTERM when the server
# dies, make sure that it has not died already, become the daemon. Done this way, and not by a
# function between fork and exec, because this process has threads.
_LAUNCHER = (
    "import ctypes, os, sys\n"
    f"ctypes.CDLL(None).prctl(1, {int(signal.SIGTERM)})\n"  # PR_SET_PDEATHSIG
    "if os.getppid() != int(sys.argv[1]): sys.exit('the server is gone')\n"
    "os.execv(sys.argv[2], sys.argv[2:])\n"
)

_log = structlog.get_logger(__name__)


class EmbeddedBuilder:
    """A Builder whose daemon `run` keeps alive until it is cancelled.

    `listen_host` is where the daemon listens and, unless `advertised_host` says otherwise, what
    clients are told to dial; `port` 0 takes a free one. `binary` is a path or a name on the PATH.
    """

    def __init__(
        self,
        folder: Path,
        registry: RegistryAccess,
        now: Callable[[], datetime],
        listen_host: str = "127.0.0.1",
        port: int = 0,
        advertised_host: str | None = None,
        binary: str = "buildkitd",
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        name: str = "embedded",
    ) -> None:
        self._folder = folder.absolute()
        self._registry = registry
        self._now = now
        self._listen_host = listen_host
        self._host = advertised_host or listen_host
        self._wanted_port = port
        self._port = port
        self._binary = binary
        self._cache_bytes = cache_bytes
        self._name = name
        self._authority: Authority | None = None
        self._trouble: BuilderUnhealthy | None = BuilderUnhealthy("it is starting")
        self._is_starting = True
        self._unanswered_since: float | None = None

    @property
    def name(self) -> str:
        return self._name

    @property
    def address(self) -> str:
        return _address(self._host, self._port)

    @property
    def server_name(self) -> str:
        return SERVER_NAME

    async def check(self) -> Platforms:
        # A daemon listens a fraction of a second after its start: waiting here spares the first
        # build a round of polling, and the log a complaint at each start.
        deadline = asyncio.get_running_loop().time() + _START_PATIENCE_SECONDS
        while True:
            try:
                platforms = await self._check_once()
            except BuilderUnhealthy:
                if not self._is_starting or asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(_START_POLL_SECONDS)
            else:
                self._is_starting = False
                return platforms

    async def _check_once(self) -> Platforms:
        if self._trouble is not None:
            raise BuilderUnhealthy(self._trouble.reason, self._trouble.can_recover)
        credentials = await self.credentials("layover")
        address = _address(self._local_host, self._port)
        try:
            platforms = await probe(address, SERVER_NAME, credentials)
        except BuilderUnhealthy:
            if self._unanswered_since is None:
                self._unanswered_since = asyncio.get_running_loop().time()
            raise
        self._unanswered_since = None
        return platforms

    async def credentials(self, build_id: str) -> Credentials:
        if self._authority is None:
            raise BuilderUnhealthy("it is starting")
        # A key and a signature: a fraction of a millisecond.
        return self._authority.client_credentials(build_id)

    async def run(self) -> None:
        """Start the daemon, start it again when it ends, and stop it when cancelled.

        Whatever keeps it from starting is told by `check` and tried again from time to time: the
        server serves its registry without a builder too.
        """
        delay = _FIRST_DELAY_SECONDS
        while True:
            began = asyncio.get_running_loop().time()
            try:
                with self._locked_folder():
                    await self._run_once()
            except BuilderUnhealthy as error:
                if self._trouble is None or self._trouble.reason != error.reason:
                    _log.error("buildkitd_unavailable", reason=error.reason)
                self._trouble = error
                self._is_starting = False
            except Exception as error:
                # Too many open files, no memory for a process: whatever it was, builds need the
                # daemon again when it is over.
                _log.exception("buildkitd_failed")
                self._trouble = BuilderUnhealthy(f"buildkitd cannot be run: {error}")
                self._is_starting = False
            if asyncio.get_running_loop().time() - began > _STEADY_SECONDS:
                delay = _FIRST_DELAY_SECONDS
            await asyncio.sleep(delay)
            delay = min(delay * 2, _MAX_DELAY_SECONDS)

    async def _run_once(self) -> None:
        """Run one daemon to its end. Raises BuilderUnhealthy with why it did not start or ended."""
        binary = _find_engines(self._binary)
        config = await self._prepare()
        await self._end_leftovers(config)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid())),
            *(binary, "--config", str(config.path)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            # A Ctrl-C at the server's terminal is for the server, which then stops the daemon.
            start_new_session=True,
            env=_environment(),
            limit=1024 * 1024,
        )
        assert process.stdout is not None
        output = DaemonLog(process.stdout)
        reading = asyncio.create_task(output.read())
        _log.info("buildkitd_started", pid=process.pid, address=self.address)
        self._trouble = None
        self._is_starting = True
        self._unanswered_since = None
        identity = ProcessIdentity.of(process.pid)
        try:
            status = await self._end_of(process)
        finally:
            self._trouble = BuilderUnhealthy("it is stopping")
            if identity is not None:
                await end(identity, config.root)
            await process.wait()
            unmount_below(config.root)
            config.trace_socket.unlink(missing_ok=True)
            # Its output ends with the last process that has it, and all of them are gone.
            await asyncio.wait({reading}, timeout=_OUTPUT_TIMEOUT_SECONDS)
            reading.cancel()
            _log.info("buildkitd_ended", pid=process.pid, status=process.returncode)
        words = f": {output.last_words}" if output.last_words else ""
        raise BuilderUnhealthy(f"buildkitd {_how_ended(status)}{words}; it is started again")

    async def _end_of(self, process: asyncio.subprocess.Process) -> int:
        """Wait for the daemon's end. Raises BuilderUnhealthy when it is there and does nothing."""
        loop = asyncio.get_running_loop()
        ending = asyncio.create_task(process.wait())
        try:
            while True:
                await asyncio.wait({ending}, timeout=_WEDGED_POLL_SECONDS)
                if ending.done():
                    return ending.result()
                since = self._unanswered_since
                if since is not None and loop.time() - since > _WEDGED_SECONDS:
                    raise BuilderUnhealthy(
                        f"buildkitd did not answer for {_WEDGED_SECONDS:.0f} s;"
                        " it is stopped and started again"
                    )
        finally:
            ending.cancel()

    async def _prepare(self) -> DaemonConfig:
        if self._wanted_port == 0:
            self._port = _free_port(self._listen_host, self._port)
        try:
            return await asyncio.to_thread(self._write_files)
        except OSError as error:
            raise BuilderUnhealthy(f"cannot write {self._folder}: {error}") from error

    def _write_files(self) -> DaemonConfig:
        authority = Authority(self._folder / "certs", self._now)
        cert, key = authority.write_server_certificate(self._host)
        config = DaemonConfig(
            folder=self._folder,
            listen=_address(self._listen_host, self._port),
            cert=cert,
            key=key,
            ca_cert=authority.ca_path,
            cache_bytes=self._cache_bytes,
            registry=self._registry,
        )
        config.path.write_text(config.to_toml())
        self._authority = authority
        return config

    async def _end_leftovers(self, config: DaemonConfig) -> None:
        # Found by its command line: a file with its process ID would be missing when the server
        # was killed before it could write it.
        for process in processes_with_command(["--config", str(config.path)]):
            _log.warning("stale_buildkitd_found", pid=process.pid)
            await end(process, config.root)
        await kill(processes_rooted_in(config.root))
        unmount_below(config.root)

    @contextlib.contextmanager
    def _locked_folder(self) -> Iterator[None]:
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise BuilderUnhealthy(f"cannot use {self._folder}: {error}") from error
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise BuilderUnhealthy(
                    f"another server runs the BuildKit in {self._folder}"
                ) from None
            yield
        finally:
            os.close(file)

    @property
    def _local_host(self) -> str:
        """Where this process reaches the daemon, whatever others are told."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._listen_host, self._listen_host)  # noqa: S104


def _how_ended(status: int) -> str:
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with {status}"


def _find_engines(binary: str) -> str:
    """The daemon's path. Raises BuilderUnhealthy with what is missing and how to get it."""
    found = shutil.which(binary, path=_path())
    if found is None:
        raise BuilderUnhealthy(f"{binary} was not found: {_GET_BUILDKIT}", can_recover=False)
    # BuildKit's own names for it, in its order.
    if not any(shutil.which(runc, path=_path()) for runc in ("buildkit-runc", "runc")):
        raise BuilderUnhealthy(
            "runc, which BuildKit runs build steps with, was not found: install it"
            " (Debian's package `runc`), or configure builders that run elsewhere",
            can_recover=False,
        )
    if os.geteuid() != 0:
        raise BuilderUnhealthy(
            "the embedded BuildKit needs root: start the server as root, or start BuildKit as"
            " you with `rootlesskit buildkitd --oci-worker-no-process-sandbox --addr tcp://...`"
            " and configure it as a builder",
            can_recover=False,
        )
    return found


_NOT_ITS = (
    *("LAYOVER_", "DEPOT_", "BUILDKITD_", "BUILDKIT_"),
    *("AWS_", "AZURE_", "GOOGLE_", "PG"),
)


def _environment() -> dict[str, str]:
    """The server's, without its settings and without what opens its stores: BuildKit would have
    whoever builds with a cache in a bucket use the server's own keys."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_ITS)}
    return {**kept, "PATH": _path()}


def _path() -> str:
    return f"{os.environ.get('PATH', os.defpath)}{os.pathsep}{_MORE_PATH}"


def _address(host: str, port: int) -> str:
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def _free_port(host: str, before: int) -> int:
    """A port to listen on: the one of before if it can be had again, else any free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in (before, 0):
        with socket.socket(family) as probe_socket:
            # Without it a port is taken for minutes after the daemon that had it.
            probe_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe_socket.bind((host, port))
            except OSError:
                continue
            free: int = probe_socket.getsockname()[1]
            return free
    raise BuilderUnhealthy(f"no port of {host} can be listened on")
