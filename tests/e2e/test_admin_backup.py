"""Backing up a server that works, and what is served of the backup."""

import json
import os
import pty
import sqlite3
import subprocess
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import ServerFactory
from tests.e2e.engines import Skopeo
from tests.e2e.processes import environment, free_port, run, wait_until
from tests.e2e.registry import Registry, digest_of
from tests.e2e.server import LAYOVER
from tests.e2e.test_server_life import NO_BUILDER
from tests.e2e.traffic import EAGER, THREADS, Traffic, check_all

pytestmark = pytest.mark.embedded_only


def _admin(
    folder: Path, *arguments: str | Path, check: bool = True
) -> "subprocess.CompletedProcess[str]":
    return run([LAYOVER, "admin", *arguments], env=environment(folder), check=check, timeout=120)


def _rows(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    (row,) = json.loads(done.stdout)
    assert isinstance(row, dict)
    return row


def test_each_backup_of_a_busy_server_is_served_whole(
    start_server: ServerFactory, own_folder: Path
) -> None:
    server = start_server(settings=EAGER)
    traffic = [Traffic(server, number) for number in range(THREADS)]
    dest, taken = own_folder / "dest", []
    try:
        for number in range(4):
            before = sum(one.rounds for one in traffic)
            while sum(one.rounds for one in traffic) < before + 20:
                assert not any(one.error for one in traffic)
                time.sleep(0.01)
            taken.append(
                _rows(
                    _admin(
                        *(own_folder, "backup", dest, "--data-dir", server.data_folder),
                        *("--output", "json", "--quiet"),
                    )
                )
            )
            if number % 2:
                _check_restored(start_server, own_folder, dest, f"copy{number}", taken[-1])
    finally:
        for one in traffic:
            one.stop()
    assert all(row["damaged"] == [] for row in taken)
    # Each took what was new alone.
    assert all(row["newBlobs"] < row["blobs"] for row in taken[1:])
    assert check_all(server) > 10


def _check_restored(
    start_server: ServerFactory, folder: Path, dest: Path, name: str, taken: dict[str, Any]
) -> None:
    _admin(folder, "restore", dest, "--data-dir", folder / name, "--quiet")
    with closing(sqlite3.connect(folder / name / "layover.db")) as database:
        (manifests,) = database.execute("SELECT count(*) FROM manifests").fetchone()
        keys = [key for (key,) in database.execute("SELECT key FROM blobs")]
    assert manifests == taken["manifests"]
    # All that the snapshot knows is there, listed or not.
    assert len(keys) == taken["blobs"]
    for key in keys:
        assert (folder / name / "blobs" / key).is_file()
    # Nothing is collected before it was looked at.
    restored = start_server(
        data_folder=folder / name, settings={**NO_BUILDER, "REAPER_INTERVAL": "1h"}
    )
    assert check_all(restored) > 10
    restored.stop()


def test_what_is_deleted_and_collected_leaves_the_next_backup(
    start_server: ServerFactory, own_folder: Path
) -> None:
    server = start_server(settings=EAGER)
    app = Registry(server, server.project_id, server.basic_auth)
    body = app.push_image("gone", b"gone")
    backup = ("backup", own_folder / "dest", "--data-dir", server.data_folder, "-o", "json")
    assert _rows(_admin(own_folder, *backup))["newBlobs"] == 2
    assert app("DELETE", f"manifests/{digest_of(body)}").status == 202

    def is_collected() -> bool:
        with closing(sqlite3.connect(server.data_folder / "layover.db")) as database:
            return database.execute("SELECT * FROM blobs").fetchall() == []

    wait_until(is_collected, timeout=60, what="the collector")
    last = _rows(_admin(own_folder, *backup))
    assert (last["blobs"], last["removedBlobs"]) == (0, 2)


def test_a_restored_build_is_pulled_until_its_time_and_not_after(
    start_server: ServerFactory, own_folder: Path, skopeo: Skopeo, tmp_path: Path
) -> None:
    server = start_server(settings=NO_BUILDER)
    app = Registry(server, f"{server.project_id}/app", server.basic_auth)
    app.push_image("kept", b"kept")
    app.push_image("over", b"over")
    dest = own_folder / "dest"
    _admin(own_folder, "backup", dest, "--data-dir", server.data_folder)
    server.stop()
    _admin(own_folder, "restore", dest, "--data-dir", own_folder / "copy")
    _expire(own_folder / "copy", "over")
    restored = start_server(data_folder=own_folder / "copy", settings=NO_BUILDER)
    # The token of before is valid there too.
    assert (restored.token, restored.project_id) == (server.token, server.project_id)
    skopeo(
        *("copy", "--src-tls-verify=false", "--src-creds", f"x-token:{server.token}"),
        *(f"docker://{restored.host}/{app.repository}:kept", f"dir:{tmp_path / 'pulled'}"),
    )
    there = Registry(restored, app.repository, restored.basic_auth)
    assert there("GET", "tags/list").json()["tags"] == ["kept"]
    assert there("GET", "manifests/over").status == 404


def _expire(data_folder: Path, tag: str) -> None:
    """Let what the tag names have expired between the backup and the restore."""
    over = int((datetime.now(UTC) - timedelta(minutes=1)).timestamp() * 1_000_000)
    with closing(sqlite3.connect(data_folder / "layover.db")) as database, database:
        changed = database.execute(
            "UPDATE retentions SET expires_at = ?"
            " WHERE id = (SELECT retention_id FROM tags WHERE name = ?)",
            (over, tag),
        )
        assert changed.rowcount == 1


def test_what_was_lost_is_told_and_ends_with_1(
    start_server: ServerFactory, own_folder: Path
) -> None:
    server = start_server(settings=NO_BUILDER)
    app = Registry(server, server.project_id, server.basic_auth)
    app.push_image("app", b"lost")
    with closing(sqlite3.connect(server.data_folder / "layover.db")) as database:
        ((key,),) = database.execute(
            "SELECT key FROM blobs WHERE digest = ?", (digest_of(b"lost"),)
        ).fetchall()
    (server.data_folder / "blobs" / key).unlink()
    ended = _admin(
        *(own_folder, "backup", own_folder / "dest", "--data-dir", server.data_folder),
        check=False,
    )
    assert ended.returncode == 1
    assert "1 blobs that the server should have" in ended.stderr
    assert digest_of(b"lost") in ended.stderr
    # What the log shows where no bar can be drawn.
    assert "backup: 2 of 2 blobs" in ended.stderr


def test_what_cannot_be_backed_up_or_restored_is_told_and_ends_with_2(
    start_server: ServerFactory, own_folder: Path
) -> None:
    server = start_server(settings=NO_BUILDER)
    dest = own_folder / "dest"
    _admin(own_folder, "backup", own_folder / "whole", "--data-dir", server.data_folder)
    data = str(server.data_folder)
    for told, command in (
        ("no server has its data in", f"admin backup {dest} --data-dir {own_folder}/none"),
        ("no server has its data in layover-data", f"admin backup {dest}"),
        ("is in the data folder", f"admin backup {data}/x --data-dir {data}"),
        ("no settings file", f"admin backup {dest} --config /nonexistent.toml"),
        ("no folder", f"admin restore {dest} --data-dir {own_folder}/new"),
        ("is not empty", f"admin restore {own_folder}/whole --data-dir {data}"),
        ("layover admin restore", f"serve --data-dir {own_folder}/whole"),
        ("cannot run /nonexistent", f"admin hold --data-dir {data} /nonexistent"),
        ("no server's data folder", f"admin hold --data-dir {own_folder}/none true"),
    ):
        _check_refused(own_folder, command.split(), told)
    bucket = {"LAYOVER_BLOB_STORE_URL": "s3://bucket"}
    _check_refused(own_folder, ["admin", "backup", str(dest)], "docs/operations.md", **bucket)


def _check_refused(folder: Path, command: list[str], told: str, **settings: str) -> None:
    ended = run(
        [LAYOVER, *command],
        env=environment(folder, LAYOVER_LISTEN=f"127.0.0.1:{free_port()}", **settings),
        cwd=folder,
        check=False,
        timeout=60,
    )
    assert told in ended.stderr, ended
    assert (ended.returncode, "Traceback" in ended.stderr) == (2, False)


def test_a_command_is_run_while_nothing_is_collected(
    start_server: ServerFactory, own_folder: Path
) -> None:
    server = start_server(settings=EAGER)
    app = Registry(server, server.project_id, server.basic_auth)
    body = app.push_image("gone", b"gone")
    script = (
        "touch started; while [ ! -e go ]; do sleep 0.1; done;"
        f" find {server.data_folder}/blobs -type f | wc -l; exit 3"
    )
    held = subprocess.Popen(
        [LAYOVER, "admin", "hold", "--data-dir", server.data_folder, "--", "sh", "-c", script],
        env=environment(own_folder),
        cwd=own_folder,
        stdout=subprocess.PIPE,
    )
    wait_until((own_folder / "started").exists, timeout=60, what="the command")
    assert app("DELETE", f"manifests/{digest_of(body)}").status == 202
    # All that keeps it ends after some seconds, and the collector has its turn each second.
    time.sleep(10)
    (own_folder / "go").touch()
    assert held.communicate(timeout=60)[0] == b"2\n"
    assert held.returncode == 3
    wait_until(
        lambda: not any(path.is_file() for path in (server.data_folder / "blobs").rglob("*")),
        timeout=60,
        what="the collector",
    )


def test_a_terminal_shows_a_bar(start_server: ServerFactory, own_folder: Path) -> None:
    server = start_server(settings=NO_BUILDER)
    Registry(server, server.project_id, server.basic_auth).push_image("app", b"layer")
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [LAYOVER, "admin", "backup", own_folder / "dest", "--data-dir", server.data_folder],
        env=environment(own_folder, TERM="xterm", COLUMNS="100"),
        stderr=theirs,
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    os.close(theirs)
    drawn = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert "2/2 blobs" in drawn
    assert "━" in drawn
    assert b"FOLDER" in done.stdout
