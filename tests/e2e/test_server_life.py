"""A server's start, its stop, and what it says when it cannot do as it was told."""

import hashlib
import http.client
import json
import os
import signal
import sqlite3
import stat
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.e2e.conftest import ServerFactory
from tests.e2e.processes import environment, free_port, run, wait_until
from tests.e2e.server import LAYOVER, LayoverServer

# Nobody builds here: a builder that is never asked keeps BuildKit from starting.
NO_BUILDER = {"BUILDERS": '[{"name": "none", "address": "tcp://127.0.0.1:1"}]'}


def test_a_first_start_prints_the_ids_the_token_and_what_to_do_next(
    start_server: ServerFactory,
) -> None:
    server = start_server(settings=NO_BUILDER)
    said = server.process.log()
    for part in (server.project_id, server.token, f"LAYOVER_URL={server.url}", "docker login"):
        assert part in said
    path = server.data_folder / "admin-token"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(server.data_folder.stat().st_mode) == 0o700


def test_a_second_start_keeps_the_tenant_and_shows_no_token(start_server: ServerFactory) -> None:
    server = start_server(settings=NO_BUILDER)
    token, project_id = server.token, server.project_id
    server.stop()
    before = len(server.process.log())
    server.start()
    assert token not in server.process.log()[before:]
    projects = json.loads(server.cli("list", "projects", "--output", "json").stdout)
    assert [project["id"] for project in projects] == [project_id]


def test_it_is_alive_and_ready(start_server: ServerFactory) -> None:
    server = start_server(settings=NO_BUILDER)
    assert server.request("GET", "/healthz", authenticate=False).status == 200
    ready = server.request("GET", "/readyz", authenticate=False)
    assert (ready.status, ready.json()["status"]) == (200, "ok")


def test_every_line_of_a_request_carries_the_id_that_its_response_has(
    start_server: ServerFactory,
) -> None:
    server = start_server(settings=NO_BUILDER)
    request_id = server.request("GET", "/v2/").headers["X-Request-ID"]

    def events() -> list[str]:
        lines = [json.loads(line) for line in server.process.log().splitlines() if line[:1] == "{"]
        return [line["event"] for line in lines if line.get("request_id") == request_id]

    # A request is logged when its response has been sent.
    wait_until(lambda: bool(events()), timeout=10, what="the request's line")
    assert events() == ["request_served"]


def test_no_token_is_logged(start_server: ServerFactory) -> None:
    server = start_server(settings=NO_BUILDER)
    greeting_length = len(server.process.log())
    server.request("GET", "/v2/")
    server.request("GET", f"/token?scope=repository:{server.project_id}:pull")
    bearer = {"Authorization": f"Bearer {server.token}"}
    server.request("GET", "/v2/", headers=bearer, authenticate=False)
    assert server.token not in server.process.log()[greeting_length:]


def test_a_stop_lets_an_upload_finish(start_server: ServerFactory) -> None:
    server = start_server(settings=NO_BUILDER)
    content = os.urandom(1 << 20)
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    connection = _begin_upload(server, digest, len(content))
    connection.send(content[: 1 << 19])
    _stop_begins(server)
    connection.send(content[1 << 19 :])
    assert connection.getresponse().status == 201
    server.process.wait(30)
    assert server.process.exit_status == 0
    server.start()
    path = f"/v2/{server.project_id}/blobs/{digest}"
    assert server.request("GET", path).body == content


def test_a_stop_waits_no_longer_than_it_was_told(start_server: ServerFactory) -> None:
    server = start_server(settings={**NO_BUILDER, "SHUTDOWN_TIMEOUT": "1s"})
    digest = f"sha256:{hashlib.sha256(b'').hexdigest()}"
    connection = _begin_upload(server, digest, 1 << 20)
    connection.send(b"the rest never comes")
    _stop_begins(server)
    server.process.wait(30)
    assert server.process.exit_status == 0


def test_a_second_server_on_the_same_folder_is_refused(start_server: ServerFactory) -> None:
    server = start_server(settings=NO_BUILDER)
    ended = _serve(server.folder, "--data-dir", str(server.data_folder))
    assert ended.returncode == 2
    assert "another server is using" in ended.stderr
    assert server.request("GET", "/readyz", authenticate=False).status == 200


@pytest.mark.embedded_only
def test_a_folder_that_a_newer_release_wrote_is_refused_untouched(
    start_server: ServerFactory,
) -> None:
    server = start_server(settings=NO_BUILDER)
    server.stop()
    path = server.data_folder / "layover.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    before = path.read_bytes()
    ended = _serve(server.folder, "--data-dir", str(server.data_folder))
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: the database has schema '9999'")
    assert "start the release that wrote it, or a newer one" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("restoring", "holds an unfinished restore: run `layover admin restore` again"),
        ("backup.json", "is a backup: restore it with `layover admin restore`"),
    ],
)
def test_a_folder_that_is_no_servers_is_refused_untouched(
    tmp_path: Path, name: str, told: str
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / name).touch()
    ended = _serve(tmp_path, "--data-dir", str(folder))
    assert told in ended.stderr
    assert ended.returncode == 2
    assert [path.name for path in folder.iterdir()] == [name]


def test_a_setting_that_is_none_is_told_with_the_one_that_was_meant(
    start_server: ServerFactory, tmp_path: Path
) -> None:
    config = tmp_path / "layover.toml"
    config.write_text('reaper_intervall = "5m"')
    ended = _serve(tmp_path, "--config", str(config))
    assert "reaper_intervall: no such setting; did you mean reaper_interval?" in ended.stderr
    assert ended.returncode == 2
    # In the environment it may be another program's.
    server = start_server(settings={**NO_BUILDER, "REAPER_INTERVALL": "5m"})
    (warned,) = (line for line in server.process.log().splitlines() if "variable_unknown" in line)
    found = json.loads(warned)
    assert found["variable"] == "LAYOVER_REAPER_INTERVALL"
    assert found["did_you_mean"] == "LAYOVER_REAPER_INTERVAL"


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--listen", "nowhere"], "listen has to be HOST:PORT"),
        (["--listen", "127.0.0.1:99999"], "listen has to be HOST:PORT"),
        (["--tls-cert", "/nonexistent"], "tls_cert and tls_key go together"),
        (["--tls-cert", "/nonexistent", "--tls-key", "/nonexistent"], "no file /nonexistent"),
        (["--tls-cert", "/etc/hostname", "--tls-key", "/etc/hostname"], "cannot be used"),
        (["--public-url", "ftp://x"], "public_url has to be http(s)://HOST"),
        (["--public-url", "https://x/registry"], "registries live at the root"),
        (["--config", "/nonexistent.toml"], "/nonexistent.toml"),
        (["--data-dir", "/dev/null/x"], "data_dir"),
    ],
)
def test_bad_settings_are_told_and_end_with_2(tmp_path: Path, flags: list[str], told: str) -> None:
    ended = _serve(tmp_path, *flags)
    assert told in ended.stderr
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr


def test_a_taken_address_is_told(start_server: ServerFactory, tmp_path: Path) -> None:
    server = start_server(settings=NO_BUILDER)
    ended = _serve(tmp_path, "--listen", server.host)
    assert ended.returncode == 2
    assert f"cannot listen on {server.host}" in ended.stderr


def test_a_malformed_settings_file_is_told_by_its_name(tmp_path: Path) -> None:
    config = tmp_path / "broken.toml"
    config.write_text("listen = [")
    ended = _serve(tmp_path, "--config", str(config))
    assert ended.returncode == 2
    assert str(config) in ended.stderr


def _serve(folder: Path, *flags: str) -> "subprocess.CompletedProcess[str]":
    """Run a server that is expected to end at once."""
    defaults = ["--data-dir", str(folder / "refused"), "--listen", f"127.0.0.1:{free_port()}"]
    names = set(flags[::2])
    kept = [
        part
        for name, value in zip(defaults[::2], defaults[1::2], strict=True)
        for part in (name, value)
        if name not in names
    ]
    return run([LAYOVER, "serve", *kept, *flags], env=environment(folder), check=False, timeout=60)


def _begin_upload(
    server: LayoverServer, digest: str, size_bytes: int
) -> http.client.HTTPConnection:
    """Send the head of a monolithic upload; the body is the caller's."""
    connection = server.connect()
    connection.putrequest("POST", f"/v2/{server.project_id}/blobs/uploads/?digest={digest}")
    for name, value in {**server.basic_auth, "Content-Length": str(size_bytes)}.items():
        connection.putheader(name, value)
    connection.endheaders()
    return connection


def _stop_begins(server: LayoverServer) -> None:
    """Ask the server to stop and wait until it takes no more connections."""
    # The upload has to have reached the server: what has not begun is not waited for.
    wait_until(
        lambda: any((server.data_folder / "blobs" / "data").glob("*/*")),
        timeout=10,
        what="the upload under way",
    )
    server.process.signal(signal.SIGTERM)

    def refuses() -> bool:
        try:
            server.request("GET", "/healthz", authenticate=False)
        except OSError:
            return True
        time.sleep(0.05)
        return False

    wait_until(refuses, timeout=10, what="a server that takes no more connections")


def test_a_bucket_that_stays_away_ends_the_start_with_the_reason(own_folder: Path) -> None:
    port = free_port()
    server = LayoverServer(
        own_folder / "s",
        settings={
            **NO_BUILDER,
            "BLOB_STORE_URL": "s3://layover/blobs",
            "BLOB_STORE_ENDPOINT": f"http://127.0.0.1:{port}",
            "BLOB_STORE_REGION": "us-east-1",
            "BLOB_STORE_ACCESS_KEY": "key",
            "BLOB_STORE_SECRET_KEY": "s3cret",
            "STARTUP_TIMEOUT": "1s",
        },
    )
    seen: list[tuple[int, str]] = []

    def look() -> None:
        ready = server.request("GET", "/readyz", authenticate=False)
        seen.append((ready.status, ready.json()["checks"].get("blobs", "")))

    with ThreadPoolExecutor(1) as threads:
        starting = threads.submit(server.start)
        while not starting.done():
            # Until it listens, and once it has given up, nobody answers.
            with suppress(OSError, AssertionError):
                look()
            time.sleep(0.2)
        with pytest.raises(AssertionError, match="did not start"):
            starting.result()
    assert (503, "not reached yet") in seen
    assert server.process.exit_status == 1
    log = server.process.log()
    assert "gave up on the blobs" in log
    assert f"127.0.0.1:{port}" in log
    assert "s3cret" not in log
    server.remove()
