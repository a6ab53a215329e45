"""`layover admin verify` on a server's folder, while the server is idle, busy and gone."""

import os
import random
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import ServerFactory
from tests.e2e.registry import OCI_MANIFEST, Registry, basic, descriptor, digest_of, image, index
from tests.e2e.server import LAYOVER, LayoverServer
from tests.soak.cluster import embedded, scaled

# A builder that nobody asks anything of, so that no BuildKit is started.
_SETTINGS = {"BUILDERS": '[{"name": "none", "address": "tcp://127.0.0.1:1"}]'}


def registry_of(server: LayoverServer, repository: str = "app") -> Registry:
    return Registry(server, f"{server.project_id}/{repository}", basic(server.token))


def file_of(server: LayoverServer, content: bytes) -> Path:
    """The file that holds a blob."""
    (found,) = (
        path
        for path in (server.data_folder / "blobs").rglob("*")
        if path.is_file() and path.read_bytes() == content
    )
    return found


def test_damage_is_found_and_repaired_by_the_next_push(start_server: ServerFactory) -> None:
    server = start_server(settings=_SETTINGS)
    registry = registry_of(server)
    layer = b"a layer" * 100_000
    registry.push_image("latest", layer)
    status, result = server.verify()
    assert (status, result["findings"]) == (0, [])
    assert result["counts"]["blobs"] == 2 and result["counts"]["tags"] == 1

    path = file_of(server, layer)
    path.write_bytes(layer[:-1] + b"!")
    server.stop()
    status, result = server.verify()
    (finding,) = result["findings"]
    assert (status, finding["kind"], finding["id"]) == (1, "blob-damaged", digest_of(layer))
    assert finding["repository"] == registry.repository

    server.start()
    blob = f"blobs/{digest_of(layer)}"
    assert registry("HEAD", blob).status == 200
    assert server.verify("--repair")[0] == 1
    assert registry("HEAD", blob).status == 404
    assert registry("GET", blob).status == 404
    (aside,) = (path for path in (server.data_folder / "quarantine").rglob("*") if path.is_file())
    assert aside.read_bytes() == layer[:-1] + b"!"

    registry.push_blob(layer)
    assert registry("GET", blob).body == layer
    assert registry("GET", "manifests/latest").status == 200
    assert server.verify() == (0, server.verify()[1])
    assert aside.exists()


def test_a_person_is_shown_a_table_and_told_what_to_do(start_server: ServerFactory) -> None:
    server = start_server(settings=_SETTINGS)
    registry = registry_of(server)
    registry.push_image("latest", b"a layer")
    file_of(server, b"a layer").unlink()
    command = (LAYOVER, "admin", "verify", "--data-dir", server.data_folder)
    done = subprocess.run(
        command, env=server.env, cwd=server.folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "blob-missing" in done.stdout and digest_of(b"a layer") in done.stdout
    assert registry.repository in done.stdout
    assert "Reading blobs" in done.stderr and "--repair" in done.stderr
    quiet = subprocess.run(
        [*command, "-q", "-o", "csv"],
        env=server.env,
        cwd=server.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert quiet.stdout.splitlines()[0].startswith("id,kind,status,project,repository")
    assert "Reading" not in quiet.stderr


def test_a_folder_that_is_no_servers_is_refused_and_nothing_made_in_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [LAYOVER, "admin", "verify", "--data-dir", tmp_path / "data"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "is no server's data folder" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("replicas", [1, 2])
def test_nothing_is_found_while_servers_push_delete_and_collect(
    own_folder: Path, replicas: int
) -> None:
    settings = {"REAPER_INTERVAL": "1s", "GC_GRACE": "15s", "UPLOAD_LIFETIME": "8s"}
    with (
        embedded(own_folder, settings) if replicas == 1 else scaled(own_folder, settings, replicas)
    ) as cluster:
        server = cluster.servers[0]
        places = cluster.add_places([4.0])
        stop = threading.Event()
        failures: list[BaseException] = []
        pushed = count()

        def busy(project_id: str, worker: int) -> None:
            served_by = cluster.servers[worker % len(cluster.servers)]
            registry = Registry(served_by, f"{project_id}/app{worker % 2}", basic(server.token))
            for number in count():
                if stop.is_set():
                    return
                layers = [f"{worker} {number // 3} {part}".encode() * 5_000 for part in range(3)]
                child = registry.push_image(f"tag{worker}", *layers)
                parent = index(child, annotations={"worker": str(worker)})
                assert registry.push_manifest(f"index{worker}", parent).status == 201
                registry.push_blob(b"signature")
                referrer = image(b"signature", subject=descriptor(OCI_MANIFEST, child))
                assert registry.push_manifest(digest_of(referrer), referrer).status == 201
                registry.start()  # and never gone on with
                registry("DELETE", f"manifests/{digest_of(parent)}")
                next(pushed)

        def caught(work: Callable[..., None], *arguments: Any) -> None:
            try:
                work(*arguments)
            except BaseException as error:
                failures.append(error)

        threads = [
            threading.Thread(target=caught, args=(busy, place.project_id, worker))
            for place in places
            for worker in range(2)
        ]
        for thread in threads:
            thread.start()
        try:
            for flags in ((), ("--repair",), (), ("--repair",)):
                status, result = server.verify(*flags)
                assert (status, result["findings"]) == (0, [])
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert not failures, failures
        assert next(pushed) > 20
        assert result["counts"]["manifests"] > 0
        server.kill()
        assert server.verify()[1]["findings"] == []


def test_a_repair_that_is_killed_again_and_again_is_done_in_the_end(
    start_server: ServerFactory,
) -> None:
    server = start_server(settings=_SETTINGS)
    registry = registry_of(server)
    layers = [f"layer {number}".encode() for number in range(40)]
    registry.push_image("latest", *layers)
    blobs = server.data_folder / "blobs"
    for layer in layers:
        file_of(server, layer).write_bytes(b"damaged " + layer)
    orphans = [blobs / "data" / "ff" / f"{number:032x}" for number in range(20)]
    orphans[0].parent.mkdir(exist_ok=True)
    for orphan in orphans:
        orphan.write_bytes(b"of nobody")
        os.utime(orphan, (0, 0))

    command = ("admin", "verify", "--repair", "-q", "--data-dir", str(server.data_folder))
    aside = server.data_folder / "quarantine"
    random_ = random.Random(7)
    kills = 0
    while True:
        process = subprocess.Popen(
            (LAYOVER, *command), env=server.env, cwd=server.folder, stdout=subprocess.DEVNULL
        )
        if kills < 3:
            # Once it moves something, and not before: where it was in doing so is chance.
            moved = sum(1 for path in aside.rglob("*") if path.is_file())
            while process.poll() is None and moved == sum(
                1 for path in aside.rglob("*") if path.is_file()
            ):
                time.sleep(0.001)
            time.sleep(random_.uniform(0, 0.02))
            process.kill()
        process.wait(120)
        if process.returncode != -signal.SIGKILL:
            break
        kills += 1
    assert kills

    for layer in layers:
        assert registry("HEAD", f"blobs/{digest_of(layer)}").status == 404
    kept = sorted(path.read_bytes() for path in aside.rglob("*") if path.is_file())
    assert kept == sorted([b"damaged " + layer for layer in layers] + [b"of nobody"] * 20)
    assert [path for path in blobs.rglob("*") if path.is_file()] == [file_of(server, b"{}")]
    status, result = server.verify()
    assert status == 1
    assert {finding["kind"] for finding in result["findings"]} == {"blob-quarantined"}
    registry.push_image("latest", *layers)
    assert server.verify()[0] == 0


def test_what_waits_for_a_server_that_is_at_work_is_told(start_server: ServerFactory) -> None:
    server = start_server(settings={**_SETTINGS, "REAPER_INTERVAL": "1h", "GC_GRACE": "1s"})
    database = server.data_folder / "layover.db"
    hour_ago = (time.time_ns() - 3_600 * 10**9) // 1_000
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "INSERT INTO doomed_objects VALUES (?, '', ?)", (f"data/ff/{'f' * 32}", hour_ago)
        )
    status, result = server.verify()
    assert status == 1
    assert [finding["kind"] for finding in result["findings"]] == ["collection-late"]
    server.stop()
    # Nobody is there to do it, as after a restore.
    assert server.verify()[0] == 0
