"""Real BuildKit daemons for the tests, each in a folder of its own."""

import asyncio
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from layover.adapters.buildkit.certificates import SERVER_NAME, Authority
from layover.builds.builders import BuilderConfig
from tests.e2e.processes import Background, environment, find, free_port, remove


def now() -> datetime:
    return datetime.now(UTC)


class Daemon:
    """A buildkitd that somebody else runs: in plain text, or with mutual TLS."""

    def __init__(self, folder: Path, *, with_tls: bool) -> None:
        self.folder = folder
        port = free_port()
        self.config = BuilderConfig(name="remote", address=f"tcp://127.0.0.1:{port}")
        self._command = [
            *(find("buildkitd"), "--root", str(folder / "root"), "--addr", self.config.address),
            *("--otel-socket-path", str(folder / "otel.sock"), "--containerd-worker=false"),
        ]
        if with_tls:
            authority = Authority(folder / "certs", now)
            cert, key = authority.write_server_certificate("127.0.0.1")
            client = authority.client_credentials("a test")
            assert client.cert is not None
            assert client.key is not None
            (folder / "client.pem").write_text(client.cert)
            (folder / "client-key.pem").write_text(client.key)
            self._command += [
                *("--tlscert", str(cert), "--tlskey", str(key)),
                *("--tlscacert", str(authority.ca_path)),
            ]
            self.config = BuilderConfig(
                name="remote",
                address=self.config.address,
                server_name=SERVER_NAME,
                ca_cert=str(authority.ca_path),
                cert=str(folder / "client.pem"),
                key=str(folder / "client-key.pem"),
            )
        self._process: Background | None = None

    def start(self) -> None:
        self._process = Background(
            self._command, env=environment(self.folder), log=self.folder / "buildkitd.log"
        )

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()

    def kill(self) -> None:
        """End it as the out-of-memory killer does."""
        assert self._process is not None
        self._process.signal(signal.SIGKILL)
        self._process.wait(10)


@asynccontextmanager
async def short_folder() -> AsyncIterator[Path]:
    """A folder with a short path: pytest's own can be too long for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="layover-", dir="/tmp"))
    try:
        yield folder
    finally:
        await asyncio.to_thread(remove, folder)


async def eventually(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait until the condition holds, for at most 30 seconds."""
    try:
        async with asyncio.timeout(30):
            while not await condition():  # noqa: ASYNC110  # another process's doing
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"waited 30 s for {what}") from None
