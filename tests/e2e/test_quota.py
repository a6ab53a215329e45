"""A project's quota, as docker and other clients meet it."""

import io
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.conftest import ServerFactory
from tests.e2e.engines import DockerEngine, Skopeo
from tests.e2e.images import MIB, OciLayout
from tests.e2e.processes import wait_until
from tests.e2e.registry import Registry, begin_chunked, code, digest_of
from tests.e2e.server import LayoverServer

# Nobody builds here: a builder that is never asked keeps BuildKit from starting.
SETTINGS = {
    "BUILDERS": '[{"name": "none", "address": "tcp://127.0.0.1:1"}]',
    "REAPER_INTERVAL": "1s",
    "GC_GRACE": "1s",
}
TOLD = "it does not fit into the quota of project"


@pytest.fixture
def limited(start_server: ServerFactory) -> LayoverServer:
    """A server whose project may take 8 MiB."""
    server = start_server(settings=SETTINGS)
    server.cli("projects", "update", server.project_id, "--quota", "8MiB")
    return server


@pytest.fixture
def registry(limited: LayoverServer) -> Registry:
    return Registry(limited, f"{limited.project_id}/app", limited.basic_auth)


def stored_bytes(server: LayoverServer) -> int:
    return sum(path.stat().st_size for path in (server.data_folder / "blobs" / "data").glob("*/*"))


def archive(path: Path, size_bytes: int) -> Path:
    """An image's root that no compression makes smaller."""
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo("data")
        info.size = size_bytes
        tar.addfile(info, io.BytesIO(os.urandom(size_bytes)))
    return path


def test_docker_push_says_what_is_taken_what_the_limit_is_and_what_to_delete(
    limited: LayoverServer, docker: DockerEngine, tmp_path: Path
) -> None:
    docker("login", limited.host, "-u", "x-token", "-p", limited.token)
    large, small = (f"{limited.host}/{limited.project_id}/app:{tag}" for tag in ("large", "small"))
    docker("import", str(archive(tmp_path / "large.tar", 12 * MIB)), large)
    docker("import", str(archive(tmp_path / "small.tar", 4 * MIB)), small)
    refused = docker("push", large, check=False)
    assert refused.returncode == 1
    for part in ("denied: ", TOLD, "of 8.0 MiB", "layover list builds", "layover builds rm ID"):
        assert part in refused.stderr + refused.stdout
    # What came of it is given back, and does not count.
    wait_until(lambda: stored_bytes(limited) == 0, timeout=20, what="the space to come back")
    docker("push", small)


def test_skopeo_is_told_too_and_what_was_pushed_stays(
    limited: LayoverServer, skopeo: Skopeo, tmp_path: Path
) -> None:
    flags = ("--dest-tls-verify=false", "--dest-creds", f"x-token:{limited.token}")
    target = f"docker://{limited.host}/{limited.project_id}/app"

    def push(tag: str, *sizes: int, check: bool = True) -> str:
        layout = OciLayout(tmp_path / tag, list(sizes))
        source = f"oci:{layout.folder}"
        done = skopeo("copy", *flags, "--preserve-digests", source, f"{target}:{tag}", check=check)
        return done.stderr

    push("first", 5 * MIB)
    assert TOLD in push("second", 5 * MIB, check=False)
    assert limited.manifest("first", f"{limited.project_id}/app").body
    limited.cli("projects", "update", limited.project_id, "--quota", "none")
    push("second-again", 5 * MIB)


def test_an_announced_upload_is_refused_before_a_byte_is_stored(registry: Registry) -> None:
    server = registry.server
    body = os.urandom(9 * MIB)
    single = registry("POST", f"blobs/uploads/?digest={digest_of(body)}", body)
    assert (single.status, code(single)) == (403, "DENIED")
    for method in ("PATCH", "PUT"):
        session = registry.start()
        path = session if method == "PATCH" else f"{session}?digest={digest_of(body)}"
        refused = registry(method, path, body)
        assert (refused.status, code(refused)) == (403, "DENIED")
        assert TOLD in refused.json()["errors"][0]["message"]
        # The session is over: it could only fail.
        assert registry("GET", session).status == 404
    assert stored_bytes(server) == 0
    assert registry("HEAD", f"blobs/{digest_of(body)}").status == 404
    fits = registry.push_blob(body[: 8 * MIB])
    assert registry("HEAD", f"blobs/{fits}").status == 200
    # Nothing is left.
    refused = registry("POST", "blobs/uploads/")
    assert (refused.status, code(refused)) == (403, "DENIED")
    detail = refused.json()["errors"][0]["detail"]
    assert detail == {"usedBytes": 8 * MIB, "limitBytes": 8 * MIB}
    # Another repository of the project mounts it for nothing.
    other = registry.at(f"{server.project_id}/other")
    mounted = other("POST", f"blobs/uploads/?mount={fits}&from={registry.repository}")
    assert mounted.status == 201


def test_an_upload_of_unknown_length_is_cut_where_it_crosses_the_limit(registry: Registry) -> None:
    session = registry.start()
    connection = begin_chunked(registry, "PATCH", session)
    for _ in range(20):
        connection.send(b"100000\r\n" + os.urandom(MIB) + b"\r\n")
        assert stored_bytes(registry.server) <= 8 * MIB
    connection.send(b"0\r\n\r\n")
    answer = connection.getresponse()
    assert (answer.status, TOLD in answer.read().decode()) == (403, True)
    connection.close()
    wait_until(lambda: stored_bytes(registry.server) == 0, timeout=20, what="its space back")
    registry.push_blob(os.urandom(8 * MIB))


def test_uploads_at_once_do_not_exceed_the_quota_together(registry: Registry) -> None:
    bodies = [os.urandom(3 * MIB) for _ in range(6)]

    def push(body: bytes) -> int:
        return registry("POST", f"blobs/uploads/?digest={digest_of(body)}", body).status

    with ThreadPoolExecutor(6) as pool:
        statuses = list(pool.map(push, bodies))
    assert sorted(statuses) == [201, 201, 403, 403, 403, 403]
    assert stored_bytes(registry.server) == 6 * MIB
