"""The servers of a run, on one pair of stores, as a user starts them."""

import asyncio
import contextlib
import os
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import func, insert, select

from layover.adapters.sql import schema
from layover.adapters.sql.database import Database
from tests.e2e import processes
from tests.e2e.server import LAYOVER, LayoverServer
from tests.objects import ACCESS_KEY, REGION, SECRET_KEY, S3Server
from tests.postgres import Postgres
from tests.soak.actors import Place

# A builder that nobody asks anything of, so that no BuildKit is started.
_NO_BUILDER = '[{"name": "none", "address": "tcp://127.0.0.1:1"}]'

# Nothing of these is left once everything is gone. Repositories stay, and so do tombstones,
# receipts and retentions, for a while.
_CONTENT = (
    schema.blobs,
    schema.repository_blobs,
    schema.manifests,
    schema.manifest_references,
    schema.retained_manifests,
    schema.tags,
    schema.uploads,
    schema.doomed_objects,
)


class Cluster:
    """Replicas over the same stores; one of the embedded pair."""

    def __init__(self, servers: Sequence[LayoverServer], database_url: str, blobs: Path) -> None:
        """`blobs` is the folder in which the blobs' bytes lie in the end, whoever keeps them."""
        self.servers, self.kills = servers, 0
        self._killing: asyncio.Task[None] | None = None
        self._database_url, self._blobs = database_url, blobs

    @property
    def urls(self) -> list[str]:
        return [server.url for server in self.servers]

    @property
    def token(self) -> str:
        return self.servers[0].token

    def add_places(self, retentions: Sequence[float]) -> list[Place]:
        """Make a project for each of these seconds; what it is pushed there lives as long."""
        first = self.servers[0].project_id
        places = []
        with self._database() as database, database.engine.begin() as connection:
            organization_id = connection.execute(
                select(schema.projects.c.organization_id).where(schema.projects.c.id == first)
            ).scalar_one()
            for seconds in retentions:
                project_id = f"soak{seconds:.0f}s"
                connection.execute(
                    insert(schema.projects).values(
                        id=project_id,
                        organization_id=organization_id,
                        name=project_id,
                        created_at=datetime.now(UTC),
                        retention_seconds=int(seconds),
                        max_retention_seconds=int(seconds),
                        extends_on_pull=False,
                    )
                )
                places.append(Place(project_id, seconds, _repositories(project_id)))
        return [*places, Place(first, float("inf"), _repositories(first))]

    def stored_bytes(self) -> int:
        """What the blob store's files hold."""
        total = 0
        # A folder that is removed meanwhile holds nothing.
        for folder, _, names in os.walk(self._blobs):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    total += (Path(folder) / name).stat().st_size
        return total

    def left_over(self) -> Mapping[str, int]:
        """The tables that still hold content, with their rows."""
        with self._database() as database, database.engine.connect() as connection:
            rows = {
                table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
                for table in _CONTENT
            }
        return {name: count for name, count in rows.items() if count}

    def verify(self) -> str | None:
        """What `layover admin verify` finds beside the running servers; None when all is well."""
        server = self.servers[0]
        done = processes.run(
            [LAYOVER, "admin", "verify", "--quiet", "--data-dir", server.data_folder],
            env=server.env,
            check=False,
            timeout=900,
        )
        return done.stdout + done.stderr if done.returncode else None

    @contextmanager
    def _database(self) -> Iterator[Database]:
        database = Database(self._database_url)
        try:
            yield database
        finally:
            database.close()

    def memory(self) -> int:
        """The resident size of all servers, in bytes; one that is away counts nothing."""
        return sum(_resident(server.process.pid) for server in self.servers)

    async def kill_now_and_then(self, every: float, random_: random.Random) -> None:
        """Kill a server at random moments, and start it again, until canceled."""
        while True:
            await asyncio.sleep(random_.uniform(0.5, 1.5) * every)
            server, pause = random_.choice(list(self.servers)), random_.uniform(0, 1)
            self._killing = asyncio.create_task(
                asyncio.to_thread(self._kill_and_start, server, pause)
            )
            # Not left half-way.
            await asyncio.shield(self._killing)

    def _kill_and_start(self, server: LayoverServer, pause: float) -> None:
        server.kill()
        self.kills += 1
        time.sleep(pause)
        server.start()

    async def all_started(self) -> None:
        """Wait for the server that was killed last."""
        if self._killing is not None:
            await self._killing


def _repositories(project_id: str) -> tuple[str, ...]:
    # A project's own repository holds its builds.
    return tuple(f"{project_id}/{name}" for name in ("app", "web/front", "web/back"))


def _resident(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except FileNotFoundError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


@contextmanager
def embedded(folder: Path, settings: Mapping[str, str]) -> Iterator[Cluster]:
    """One server on SQLite and files."""
    server = LayoverServer(folder / "server", settings={"BUILDERS": _NO_BUILDER, **settings})
    try:
        server.start()
        url = f"sqlite:///{server.data_folder / 'layover.db'}"
        yield Cluster([server], url, server.data_folder / "blobs")
    finally:
        server.remove()


@contextmanager
def scaled(folder: Path, settings: Mapping[str, str], replicas: int) -> Iterator[Cluster]:
    """So many replicas on PostgreSQL and S3."""
    with ExitStack() as stack:
        s3 = S3Server()
        stack.callback(s3.remove)
        postgres = Postgres()
        stack.callback(postgres.remove)
        database_url = postgres.url(postgres.create())
        stores = {
            "DATABASE_URL": database_url,
            "BLOB_STORE_URL": "s3://layover/soak",
            "BLOB_STORE_ENDPOINT": s3.url,
            "BLOB_STORE_REGION": REGION,
            "BLOB_STORE_ACCESS_KEY": ACCESS_KEY,
            "BLOB_STORE_SECRET_KEY": SECRET_KEY,
        }
        servers = []
        for number in range(replicas):
            server = LayoverServer(
                folder / f"server{number}",
                settings={"BUILDERS": _NO_BUILDER, **stores, **settings},
            )
            stack.callback(server.remove)
            # One after the other: the first one makes the project and keeps the token.
            server.start()
            servers.append(server)
        yield Cluster(servers, database_url, s3.folder / "data")
