"""Servers on PostgreSQL: how they start together and alone, and what a crash of it does to them."""

import json
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.engines import DockerEngine
from tests.e2e.images import busybox_context
from tests.e2e.pairs import REPLICATED, Storage, storage_of
from tests.e2e.processes import free_port, wait_until
from tests.e2e.registry import Registry, code, digest_of, image
from tests.e2e.server import LayoverServer
from tests.postgres import Postgres

# A builder that nobody asks anything of, so that no BuildKit is started.
NO_BUILDER = {"BUILDERS": '[{"name": "none", "address": "tcp://127.0.0.1:1"}]'}
CRASHES = 8


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A server that may be crashed; the shared one may not."""
    postgres = Postgres()
    yield postgres
    postgres.remove()


@pytest.fixture
def storage(own_postgres: Postgres, request: pytest.FixtureRequest) -> Iterator[Storage]:
    with storage_of(REPLICATED, request) as shared:
        url = own_postgres.url(own_postgres.create())
        yield Storage({**shared.settings, "DATABASE_URL": url}, shared.blob_folder)


@pytest.fixture
def folder(own_folder: Path) -> Iterator[Path]:
    """A folder whose servers are stopped in the end; what they logged is shown on a failure."""
    yield own_folder
    for log in sorted(own_folder.glob("*/server.log")):
        print(f"--- {log.parent.name}\n{log.read_text()[-8000:]}")


def start_at_once(
    folder: Path, storage: Storage, count: int, stack: ExitStack
) -> list[LayoverServer]:
    servers = [
        LayoverServer(folder / f"s{number}", settings=NO_BUILDER, storage=storage)
        for number in range(count)
    ]
    for server in servers:
        stack.callback(server.remove)
    with ThreadPoolExecutor(count) as threads:
        list(threads.map(LayoverServer.start, servers))
    return servers


def test_servers_that_start_at_once_make_one_schema_and_one_first_tenant(
    folder: Path, storage: Storage, own_postgres: Postgres
) -> None:
    with ExitStack() as stack:
        servers = start_at_once(folder, storage, 3, stack)
        (first,) = (server for server in servers if (server.data_folder / "admin-token").exists())
        registry = Registry(first, f"{first.project_id}/app", first.basic_auth)
        body = registry.push_image("latest", b"a layer")
        for server in servers:
            # The first one's token opens every one, and what it pushed is everywhere.
            there = Registry(server, registry.repository, registry.credentials)
            assert there("GET", "manifests/latest").body == body
            assert there("GET", f"blobs/{digest_of(b'a layer')}").body == b"a layer"
            greeted = server.process.log()
            assert ("token  " in greeted) == (server is first)
            # No server keeps anything of the others' in its folder.
            names = {path.name for path in server.data_folder.iterdir()}
            assert names <= {"lock", "admin-token"}, names
    database = storage.settings["DATABASE_URL"].rpartition("/")[2]
    assert own_postgres.execute("SELECT count(*) FROM organizations", database) == [(1,)]


def test_a_database_that_is_away_at_the_start_is_waited_for(
    folder: Path, storage: Storage, own_postgres: Postgres
) -> None:
    own_postgres.stop()
    server = LayoverServer(folder / "s", settings=NO_BUILDER, storage=storage)
    with ExitStack() as stack:
        stack.callback(server.remove)
        with ThreadPoolExecutor(1) as threads:
            starting = threads.submit(server.start)
            wait_until(lambda: _answers(server), timeout=20, what="the server to listen")
            assert server.request("GET", "/healthz", authenticate=False).json() == {"status": "ok"}
            ready = server.request("GET", "/readyz", authenticate=False)
            assert ready.status == 503
            assert ready.json()["checks"]["database"].startswith("away")
            assert "127.0.0.1" not in ready.body.decode()
            refused = server.request("PUT", "/v2/p/manifests/latest", body=b"x", authenticate=False)
            assert (refused.status, code(refused)) == (503, "UNKNOWN")
            rpc = server.request(
                "POST", "/layover.v1.BuildsService/ListBuilds", body=b"{}", authenticate=False
            )
            assert (rpc.status, rpc.json()["code"]) == (503, "unavailable")
            own_postgres.start()
            starting.result(30)
        assert "Connection refused" in server.process.log()
        assert '"attempts": ' in server.process.log()
        assert server.project_id


def _answers(server: LayoverServer) -> bool:
    try:
        return server.request("GET", "/healthz", authenticate=False, timeout=1).status == 200
    except OSError:
        return False


def test_a_database_that_stays_away_ends_the_start_with_the_reason(folder: Path) -> None:
    port = free_port()
    server = LayoverServer(
        folder / "s",
        settings={
            **NO_BUILDER,
            "DATABASE_URL": f"postgresql://layover:s3cret@127.0.0.1:{port}/layover",
            "STARTUP_TIMEOUT": "2s",
        },
    )
    with pytest.raises(AssertionError, match="did not start"):
        server.start()
    assert server.process.exit_status == 1
    log = server.process.log()
    last = log[log.index("error: ") :]
    assert "gave up on the database after 2 s" in last
    assert f"port {port} failed: Connection refused" in last
    assert "startup_timeout" in last
    assert "s3cret" not in log
    server.remove()


def test_a_newer_releases_database_is_refused_and_one_it_takes_over_is_left_alone(
    folder: Path, storage: Storage, own_postgres: Postgres
) -> None:
    database = storage.settings["DATABASE_URL"].rpartition("/")[2]
    with ExitStack() as stack:
        (server,) = start_at_once(folder, storage, 1, stack)
        registry = Registry(server, f"{server.project_id}/app", server.basic_auth)
        registry.push_image("latest", b"a layer")
        own_postgres.execute("UPDATE alembic_version SET version_num = '9999'", database)
        wait_until(
            lambda: registry("GET", "manifests/latest").status == 503,
            timeout=10,
            what="the server to notice",
        )
        assert registry("POST", "blobs/uploads/").status == 503
        ready = server.request("GET", "/readyz", authenticate=False)
        assert ready.status == 503
        assert "9999" in ready.json()["checks"]["database"]
        assert server.request("GET", "/healthz", authenticate=False).status == 200

        other = LayoverServer(folder / "other", settings=NO_BUILDER, storage=storage)
        stack.callback(other.remove)
        with pytest.raises(AssertionError, match="did not start"):
            other.start()
        assert other.process.exit_status == 1
        assert "'9999', which this release does not know" in other.process.log()


class Pusher:
    """A client that goes on where it was told to try again, as docker, buildx and skopeo do."""

    def __init__(self, server: LayoverServer, number: int) -> None:
        self._registry = Registry(server, f"{server.project_id}/app{number % 2}", server.basic_auth)
        self._number, self._random = number, random.Random(number)
        self.acknowledged: dict[str, tuple[Registry, bytes]] = {}
        self.refused = 0

    def push_until(self, over: threading.Event) -> None:
        count = 0
        while not over.is_set():
            count += 1
            layer = self._random.randbytes(200_000)
            for content in (b"{}", layer):
                self._until(201, "POST", f"blobs/uploads/?digest={digest_of(content)}", content, {})
            body, tag = image(layer), f"t{self._number}-{count}"
            headers = {"Content-Type": json.loads(body)["mediaType"]}
            self._until(201, "PUT", f"manifests/{tag}", body, headers)
            self.acknowledged[tag] = self._registry, body

    def _until(
        self, status: int, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> None:
        while True:
            response = self._registry(method, path, body, headers)
            if response.status == status:
                return
            assert response.status == 503, (response.status, response.body)
            self.refused += 1
            time.sleep(0.1)


def test_a_crash_of_postgresql_amid_pushes_and_builds_loses_nothing(
    folder: Path, storage: Storage, own_postgres: Postgres, docker: DockerEngine
) -> None:
    with ExitStack() as stack:
        # With the builder that it starts itself.
        server = LayoverServer(folder / "s", storage=storage)
        stack.callback(server.remove)
        server.start()
        assert server.project_id
        contexts = [
            busybox_context(folder / f"c{number}", f"build {number}") for number in range(4)
        ]
        pushers = [Pusher(server, number) for number in range(4)]
        over = threading.Event()
        with ThreadPoolExecutor(6) as threads:
            pushing = [threads.submit(pusher.push_until, over) for pusher in pushers]
            building = threads.submit(lambda: [server.save(context) for context in contexts])
            try:
                for number in range(CRASHES):
                    time.sleep(random.Random(number).uniform(0.3, 1.2))
                    own_postgres.restart()
                saved = building.result(240)
            finally:
                over.set()
            for push in pushing:
                push.result(60)

        pushed = {tag: entry for pusher in pushers for tag, entry in pusher.acknowledged.items()}
        assert len(pushed) > CRASHES
        for tag, (registry, body) in pushed.items():
            assert registry("GET", f"manifests/{tag}").body == body
            for layer in json.loads(body)["layers"]:
                content = registry("GET", f"blobs/{layer['digest']}").body
                assert digest_of(content) == layer["digest"]
        listed = json.loads(server.cli("list", "builds", "--output", "json").stdout)
        assert {row["id"]: row["status"] for row in listed} == {
            build.id: "finished" for build in saved
        }
        for number, build in enumerate(saved):
            name = f"crashed:{build.id}"
            server.cli("pull", build.id, "-t", name, env={"DOCKER_HOST": docker.host})
            assert docker("run", "--rm", name).stdout == f"build {number}\n"
        assert "database_found_again" in server.process.log()
        server.assert_whole()
