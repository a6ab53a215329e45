"""Replicas on PostgreSQL and S3 behind nginx, as docs/operations.md has it."""

import http.client
import random
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.e2e.nginx import Nginx
from tests.e2e.processes import ROOT, free_port, wait_until
from tests.e2e.server import LayoverServer
from tests.objects import ACCESS_KEY, REGION, SECRET_KEY, S3Server
from tests.postgres import Postgres

# A builder that nobody asks anything of, so that no BuildKit is started.
NO_BUILDER = '[{"name": "none", "address": "tcp://127.0.0.1:1"}]'


def nginx(folder: Path, port: int, servers: list[LayoverServer]) -> Nginx:
    """nginx with docs/nginx.conf, in front of these servers."""
    text = (ROOT / "docs" / "nginx.conf").read_text()
    upstream = [f"        server {server.host} max_fails=1 fail_timeout=1s;" for server in servers]
    text, replaced = re.subn(
        r"( +server 127\.0\.0\.1:500[123] [^\n]*\n)+", "\n".join(upstream) + "\n", text
    )
    assert replaced == 1
    return Nginx(folder, text.replace("listen 127.0.0.1:5000;", f"listen 127.0.0.1:{port};"))


class Replicas:
    """Three servers that share everything, at one address."""

    def __init__(
        self, folder: Path, stores: Mapping[str, str], settings: Mapping[str, str]
    ) -> None:
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.host}"
        self.servers = [
            LayoverServer(
                folder / f"replica{number}",
                settings={"BUILDERS": NO_BUILDER, "PUBLIC_URL": self.url, **stores, **settings},
            )
            for number in range(3)
        ]
        # One after the other: the first one makes the project and keeps the token.
        for server in self.servers:
            server.start()
        self.token, self.project_id = self.servers[0].token, self.servers[0].project_id
        self.nginx = nginx(folder / "nginx", self.port, self.servers)
        wait_until(self._is_ready, timeout=20, what="nginx")

    def _is_ready(self) -> bool:
        assert self.nginx.process.is_running, self.nginx.log()
        try:
            return _get(self.port, "/readyz") == 200
        except OSError:
            return False

    @contextmanager
    def one_killed_now_and_then(self, seconds: float, seed: int) -> Iterator[list[int]]:
        """While the block runs, kill one replica so often, about, and start it again.

        Yields the kills so far: which replica, each time.
        """
        kills: list[int] = []
        over = threading.Event()
        random_ = random.Random(seed)

        def kill() -> None:
            while not over.wait(random_.uniform(0.5, 1.5) * seconds):
                number = random_.randrange(len(self.servers))
                self.servers[number].kill()
                kills.append(number)
                self.servers[number].start()

        thread = threading.Thread(target=kill)
        thread.start()
        try:
            yield kills
        finally:
            over.set()
            thread.join()

    def remove(self) -> None:
        self.nginx.stop()
        for server in self.servers:
            server.remove()


def _get(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


@contextmanager
def replicas(
    folder: Path, postgres: Postgres, s3: S3Server, settings: Mapping[str, str] | None = None
) -> Iterator[Replicas]:
    """Three of them, on a database and a place in the bucket of their own."""
    with ExitStack() as stack:
        stores = {
            "DATABASE_URL": stack.enter_context(postgres.database()),
            "BLOB_STORE_URL": s3.bucket().url,
            "BLOB_STORE_ENDPOINT": s3.url,
            "BLOB_STORE_REGION": REGION,
            "BLOB_STORE_ACCESS_KEY": ACCESS_KEY,
            "BLOB_STORE_SECRET_KEY": SECRET_KEY,
        }
        started = Replicas(folder, stores, settings or {})
        stack.callback(started.remove)
        yield started
