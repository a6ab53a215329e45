"""The registry when clients vanish, collide or are killed with it."""

import hashlib
import http.client
import os
import re
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.conftest import ServerFactory
from tests.e2e.pairs import EMBEDDED, REPLICATED
from tests.e2e.processes import wait_until
from tests.e2e.registry import Registry, code, digest_of, image, location
from tests.e2e.server import LayoverServer, Response

pytestmark = pytest.mark.pairs(EMBEDDED, REPLICATED)

MIB = 1 << 20
LARGE = bytes(range(256)) * 4096 * 32  # 32 MiB: more than the sockets' buffers hold


@pytest.fixture
def registry(server: LayoverServer, request: pytest.FixtureRequest) -> Registry:
    """A repository of the test's own."""
    name = request.node.name.split("[")[0].replace("_", "-")
    return Registry(server, f"{server.project_id}/{name}", server.basic_auth)


def open_blob_files(server: LayoverServer) -> list[str]:
    """The files of its blob store that the server has open."""
    found = []
    for link in Path(f"/proc/{server.process.pid}/fd").iterdir():
        try:
            target = str(link.readlink())
        except FileNotFoundError:
            continue
        if f"{server.data_folder}/blobs" in target:
            found.append(target)
    return found


def uploads(server: LayoverServer) -> list[Path]:
    """The uploads that take space on the disk."""
    blobs = server.blob_paths()
    return [path for path in (server.blob_folder / "data").glob("*/*") if path not in blobs]


def begin(
    registry: Registry, method: str, path: str, length: int, **headers: str
) -> http.client.HTTPConnection:
    """Send a request up to its body, of which `length` bytes are announced."""
    connection = registry.server.connect()
    connection.putrequest(method, path)
    for name, value in {**registry.credentials, "Content-Length": str(length), **headers}.items():
        connection.putheader(name, value)
    connection.endheaders()
    return connection


def finish(connection: http.client.HTTPConnection) -> Response:
    answer = connection.getresponse()
    response = Response(answer.status, answer.headers, answer.read())
    connection.close()
    return response


# --- clients that go away ---------------------------------------------------------------------


@pytest.mark.embedded_only
def test_a_chunk_that_a_lost_connection_cut_off_goes_on_where_it_stopped(
    registry: Registry,
) -> None:
    session = registry.start()
    connection = begin(registry, "PATCH", session, 2 * MIB)
    connection.send(LARGE[:MIB])
    wait_until(
        lambda: any(path.stat().st_size >= MIB // 2 for path in uploads(registry.server)),
        timeout=10,
        what="some of the chunk",
    )
    connection.close()

    # Asked at once, as a client that comes back does.
    def received() -> int:
        return int(registry("GET", session).headers["Range"].split("-")[1]) + 1

    wait_until(lambda: received() > 1, timeout=10, what="the session to know what came")
    start = received()
    assert start == MIB
    rest = registry(
        "PATCH", session, LARGE[start : 2 * MIB], {"Content-Range": f"{start}-{2 * MIB - 1}"}
    )
    assert rest.status == 202
    digest = digest_of(LARGE[: 2 * MIB])
    assert registry("PUT", f"{session}?digest={digest}").status == 201
    assert registry("GET", f"blobs/{digest}").body == LARGE[: 2 * MIB]


@pytest.mark.embedded_only
def test_a_single_request_that_a_lost_connection_cut_off_leaves_nothing(
    registry: Registry,
) -> None:
    before = set(uploads(registry.server))
    digest = digest_of(LARGE)
    path = f"/v2/{registry.repository}/blobs/uploads/?digest={digest}"
    connection = begin(registry, "POST", path, len(LARGE))
    connection.send(LARGE[:MIB])
    wait_until(lambda: bool(set(uploads(registry.server)) - before), timeout=10, what="the upload")
    connection.close()
    wait_until(
        lambda: not set(uploads(registry.server)) - before, timeout=10, what="its space back"
    )
    assert registry("HEAD", f"blobs/{digest}").status == 404


@pytest.mark.embedded_only
def test_a_retry_that_meets_its_own_lost_request_waits_for_it_to_end(registry: Registry) -> None:
    session = registry.start()
    first = begin(registry, "PATCH", session, 2 * MIB)
    first.send(LARGE[:MIB])
    wait_until(
        lambda: session.rsplit("/", 1)[1] in {path.name for path in uploads(registry.server)},
        timeout=10,
        what="the first request to write",
    )
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(registry, "DELETE", session)
        first.close()
        assert second.result().status == 204


@pytest.mark.embedded_only
def test_a_client_that_stops_reading_leaves_no_file_open(registry: Registry) -> None:
    digest = registry.push_blob(LARGE)
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", registry.server.port)) as connection:
            connection.sendall(
                f"GET /v2/{registry.repository}/blobs/{digest} HTTP/1.1\r\nHost: x\r\n"
                f"Authorization: {registry.credentials['Authorization']}\r\n\r\n".encode()
            )
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
    wait_until(
        lambda: not open_blob_files(registry.server), timeout=10, what="every file to be closed"
    )
    assert registry("GET", f"blobs/{digest}").body == LARGE


# --- clients that collide ---------------------------------------------------------------------


def test_a_session_that_two_requests_write_holds_both_one_after_the_other(
    registry: Registry,
) -> None:
    session = registry.start()
    parts = b"a" * MIB, b"b" * MIB
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda part: registry("PATCH", session, part), parts))
    assert [answer.status for answer in answers] == [202, 202]
    # Whoever came second was told so by the length of what there is.
    lengths = {answer.headers["Range"]: part for answer, part in zip(answers, parts, strict=True)}
    assert set(lengths) == {f"0-{MIB - 1}", f"0-{2 * MIB - 1}"}
    whole = lengths[f"0-{MIB - 1}"] + lengths[f"0-{2 * MIB - 1}"]
    assert registry("PUT", f"{session}?digest={digest_of(whole)}").status == 201
    assert registry("GET", f"blobs/{digest_of(whole)}").body == whole


def test_a_second_request_with_the_same_offset_is_out_of_order(registry: Registry) -> None:
    session = registry.start()
    with ThreadPoolExecutor(4) as pool:
        answers = list(
            pool.map(
                lambda _: registry("PATCH", session, b"x" * MIB, {"Content-Range": f"0-{MIB - 1}"}),
                range(4),
            )
        )
    assert sorted(answer.status for answer in answers) == [202, 416, 416, 416]
    assert registry("GET", session).headers["Range"] == f"0-{MIB - 1}"


def test_a_manifest_and_the_delete_of_its_blob_never_both_take_effect(
    registry: Registry,
) -> None:
    # Invariant 2. A manifest that comes after the deletion finds the blob's bytes under their
    # lease, and shows them again.
    registry.push_blob(b"{}")
    with ThreadPoolExecutor(2) as pool:
        for number in range(20):
            layer = f"layer {number}".encode()
            digest = registry.push_blob(layer)
            put = pool.submit(registry.push_manifest, f"t{number}", image(layer))
            deleted = pool.submit(registry, "DELETE", f"blobs/{digest}")
            statuses = put.result().status, deleted.result().status
            assert statuses in ((201, 409), (201, 202), (400, 202))
            there = registry("HEAD", f"blobs/{digest}").status
            assert (
                registry("HEAD", f"manifests/t{number}").status
                == there
                == (200 if statuses[0] == 201 else 404)
            )


def test_pushes_of_the_same_image_at_once_all_succeed(registry: Registry) -> None:
    layer = b"z" * (2 * MIB)
    with ThreadPoolExecutor(6) as pool:
        bodies = list(
            pool.map(lambda number: registry.push_image(f"t{number % 3}", layer), range(6))
        )
    assert len(set(bodies)) == 1
    for tag in ("t0", "t1", "t2"):
        assert registry("GET", f"manifests/{tag}").body == bodies[0]
    assert registry("GET", f"blobs/{digest_of(layer)}").body == layer


# --- the server's own end ---------------------------------------------------------------------


def push_until_killed(server: LayoverServer, repository: str, acknowledged: list[str]) -> None:
    """Push images, one after the other, and note each that the server said it has."""
    registry = Registry(server, repository, server.basic_auth)
    try:
        for number in range(10_000):
            tag = f"t{number}"
            registry.push_image(tag, tag.encode() * 50_000)
            acknowledged.append(tag)
    except (OSError, http.client.HTTPException):
        return


def test_what_was_acknowledged_before_a_kill_is_whole_and_nothing_else_shows(
    start_server: ServerFactory,
) -> None:
    # Invariants 1 and 2, three times over at whatever instant it strikes.
    server = start_server()
    repositories = [f"{server.project_id}/r{number}" for number in range(3)]
    acknowledged: dict[str, list[str]] = {repository: [] for repository in repositories}
    for round_ in range(3):
        before = {repository: len(tags) for repository, tags in acknowledged.items()}
        threads = [
            threading.Thread(target=push_until_killed, args=(server, repository, tags))
            for repository, tags in acknowledged.items()
        ]
        for thread in threads:
            thread.start()
        wait_until(
            lambda before=before: all(  # type: ignore[misc]  # mypy infers no default's type
                len(tags) >= before[repository] + 3 for repository, tags in acknowledged.items()
            ),
            timeout=60,
            what="some images of each repository",
            interval=0.01 * round_ + 0.001,
        )
        server.kill()
        for thread in threads:
            thread.join()
        server.start()
        for repository, tags in acknowledged.items():
            registry = Registry(server, repository, server.basic_auth)
            shown = registry("GET", "tags/list").json()["tags"]
            # The answer to the last one may have been lost, the image not.
            assert set(tags) <= set(shown)
            for tag in shown:
                check_whole(registry, tag)
            acknowledged[repository][:] = []


def check_whole(registry: Registry, tag: str) -> None:
    """Pull an image and compare every byte with its digest."""
    manifest = registry("GET", f"manifests/{tag}")
    assert manifest.headers["Docker-Content-Digest"] == digest_of(manifest.body)
    document = manifest.json()
    for needed in (document["config"], *document["layers"]):
        blob = registry("GET", f"blobs/{needed['digest']}")
        assert blob.status == 200
        assert digest_of(blob.body) == needed["digest"]


@pytest.mark.embedded_only
def test_a_session_goes_on_after_a_kill(start_server: ServerFactory) -> None:
    server = start_server()
    registry = Registry(server, server.project_id, server.basic_auth)
    session = registry.start()
    assert registry("PATCH", session, LARGE[:MIB]).status == 202
    hanging = begin(registry, "PATCH", session, 2 * MIB)
    hanging.send(b"never acknowledged" * 60_000)
    wait_until(
        lambda: any(path.stat().st_size > MIB for path in uploads(server)),
        timeout=10,
        what="unacknowledged bytes on the disk",
    )
    server.kill()
    server.start()
    assert registry("GET", session).headers["Range"] == f"0-{MIB - 1}"
    digest = digest_of(LARGE[: 2 * MIB])
    pushed = registry("PUT", f"{session}?digest={digest}", LARGE[MIB : 2 * MIB])
    assert pushed.status == 201
    assert registry("GET", f"blobs/{digest}").body == LARGE[: 2 * MIB]


@pytest.mark.embedded_only
def test_a_stopping_server_finishes_the_push_that_is_under_way(
    start_server: ServerFactory,
) -> None:
    server = start_server()
    registry = Registry(server, server.project_id, server.basic_auth)
    digest = digest_of(LARGE)
    path = f"/v2/{registry.repository}/blobs/uploads/?digest={digest}"
    connection = begin(registry, "POST", path, len(LARGE))
    connection.send(LARGE[:MIB])
    wait_until(lambda: bool(uploads(server)), timeout=10, what="the upload")
    server.process.signal(signal.SIGTERM)

    def refuses() -> bool:
        try:
            socket.create_connection(("127.0.0.1", server.port), timeout=1).close()
        except OSError:
            return True
        return False

    wait_until(refuses, timeout=10, what="the server to take no more")
    connection.send(LARGE[MIB:])
    assert finish(connection).status == 201
    assert server.process.wait(30) == 0
    server.start()
    assert registry("GET", f"blobs/{digest}").body == LARGE


def test_sessions_that_nobody_goes_on_with_give_their_space_back(
    start_server: ServerFactory,
) -> None:
    server = start_server(settings={"UPLOAD_LIFETIME": "1s", "REAPER_INTERVAL": "1s"})
    registry = Registry(server, server.project_id, server.basic_auth)
    session = registry.start()
    registry("PATCH", session, LARGE[:MIB])
    wait_until(lambda: not uploads(server), timeout=20, what="the abandoned upload to go")
    assert code(registry("GET", session)) == "BLOB_UPLOAD_UNKNOWN"


@pytest.mark.embedded_only
def test_a_request_that_outlasts_a_sessions_life_is_not_disturbed(
    start_server: ServerFactory,
) -> None:
    server = start_server(settings={"UPLOAD_LIFETIME": "1s", "REAPER_INTERVAL": "1s"})
    registry = Registry(server, server.project_id, server.basic_auth)
    digest = digest_of(LARGE)
    path = f"/v2/{registry.repository}/blobs/uploads/?digest={digest}"
    connection = begin(registry, "POST", path, len(LARGE))
    connection.send(LARGE[:MIB])
    wait_until(lambda: len(uploads(server)) == 1, timeout=10, what="the upload")
    # A younger session: when its time has come, the other's has too.
    abandoned = registry.start()
    registry("PATCH", abandoned, b"abandoned")
    assert len(uploads(server)) == 2
    wait_until(lambda: len(uploads(server)) == 1, timeout=20, what="the abandoned upload to go")
    assert registry("GET", abandoned).status == 404
    connection.send(LARGE[MIB:])
    assert finish(connection).status == 201


# --- bytes and bounds -------------------------------------------------------------------------


def test_a_blob_that_lost_bytes_on_the_disk_is_unknown_or_cut_off(
    start_server: ServerFactory,
) -> None:
    server = start_server()
    registry = Registry(server, server.project_id, server.basic_auth)
    digest = registry.push_blob(LARGE)
    path = server.blob_paths(digest).pop()
    connection = server.connect()
    connection.request(
        "GET", f"/v2/{registry.repository}/blobs/{digest}", headers=dict(registry.credentials)
    )
    begun = connection.getresponse()
    assert begun.status == 200
    os.truncate(path, 16 * MIB)
    # An answer that has begun breaks off: no client takes it for the whole.
    with pytest.raises(http.client.IncompleteRead):
        begun.read()
    connection.close()
    answer = registry("GET", f"blobs/{digest}")
    assert (answer.status, code(answer)) == (404, "BLOB_UNKNOWN")


def test_memory_does_not_grow_with_what_is_transferred(
    start_server: ServerFactory, pair: str
) -> None:
    server = start_server()
    registry = Registry(server, server.project_id, server.basic_auth)
    hash_ = hashlib.sha256()
    block = os.urandom(MIB)
    for _ in range(256):
        hash_.update(block)
    digest = f"sha256:{hash_.hexdigest()}"
    registry.push_blob(b"warm")
    before = server.reset_peak_memory()

    def push(number: int) -> int:
        path = f"/v2/{registry.repository}/r{number}/blobs/uploads/?digest={digest}"
        connection = begin(registry, "POST", path, 256 * MIB)
        for _ in range(256):
            connection.send(block)
        return finish(connection).status

    def pull(number: int) -> int:
        connection = server.connect()
        connection.request(
            "GET",
            f"/v2/{registry.repository}/r{number}/blobs/{digest}",
            headers=dict(registry.credentials),
        )
        answer = connection.getresponse()
        length = 0
        while piece := answer.read(MIB):
            length += len(piece)
        connection.close()
        return length

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(push, range(4))) == [201] * 4
        assert list(pool.map(pull, range(4))) == [256 * MIB] * 4
    # A bucket takes no part below 5 MiB, so a transfer holds parts.
    limit = 64 * MIB if pair == EMBEDDED else 128 * MIB
    assert server.peak_memory() - before < limit


def test_addresses_are_the_public_ones(start_server: ServerFactory) -> None:
    server = start_server(settings={"PUBLIC_URL": "https://registry.example.com"})
    nobody = Registry(server, server.project_id, {})
    refused = nobody("GET", "tags/list")
    told = dict(re.findall(r'(\w+)="([^"]*)"', refused.headers["WWW-Authenticate"]))
    assert told["realm"] == "https://registry.example.com/token"
    assert told["service"] == "registry.example.com"
    started = nobody.as_(server.basic_auth)("POST", "blobs/uploads/")
    # A path: whatever stands before the server, clients go on where they came from.
    assert started.headers["Location"] == location(started)
    assert location(started).startswith(f"/v2/{server.project_id}/blobs/uploads/")
