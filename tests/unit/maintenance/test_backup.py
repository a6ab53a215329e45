import hashlib
import json
import sqlite3
import stat
import threading
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from layover.adapters.sql.engines import Engines, connect
from layover.maintenance import backup as backup_module
from layover.maintenance.backup import back_up
from layover.maintenance.files import claimed
from layover.maintenance.models import BackupFailed, FolderRefused, Manifest, Progress, Summary
from layover.maintenance.restore import restore
from tests.unit.maintenance.conftest import add_blob, blobs, execute, tables


def nothing(_: Progress) -> None:
    """A report that nobody reads."""


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def restored(dest: Path, folder: Path) -> Path:
    restore(dest, folder, nothing)
    return folder


def test_a_restored_folder_has_every_row_and_every_blob(data_dir: Path, tmp_path: Path) -> None:
    before, content = tables(data_dir / "layover.db"), blobs(data_dir)
    assert len(content) > 20
    summary = back_up(data_dir, tmp_path / "dest", nothing)
    assert summary.new_blobs == summary.manifest.blobs == len(content)
    assert summary.new_bytes == summary.manifest.size_bytes == sum(map(len, content.values()))
    copy = restored(tmp_path / "dest", tmp_path / "copy")
    assert tables(copy / "layover.db") == before
    assert blobs(copy) == content
    assert (copy / "admin-token").read_text() == (data_dir / "admin-token").read_text()


def test_what_is_of_the_running_server_alone_is_not_in_a_backup(
    data_dir: Path, tmp_path: Path
) -> None:
    execute(data_dir, "INSERT INTO doomed_objects VALUES ('data/ab/gone', 'sha256:00', 0)")
    execute(
        data_dir,
        "INSERT INTO uploads (id, repository_id, size_bytes, parts, reserved_bytes, created_at,"
        " expires_at) VALUES ('upload', 1, 5, '[]', 0, 0, 0)",
    )
    back_up(data_dir, tmp_path / "dest", nothing)
    found = tables(restored(tmp_path / "dest", tmp_path / "copy") / "layover.db")
    assert [found[name] for name in ("server_leases", "uploads", "doomed_objects")] == [[], [], []]
    assert len(execute(data_dir, "SELECT * FROM uploads")) == 1


def test_a_backup_has_no_push_under_way_and_nothing_that_opens_a_registry(
    data_dir: Path, tmp_path: Path
) -> None:
    for push_id in ("queued", "running", "done"):
        execute(
            data_dir,
            "INSERT INTO pushes (id, project_id, build_id, target, source, destinations, platforms,"
            " with_referrers, status, created_at, created_by, waits_for, holder, leased_until,"
            " takeovers)"
            f" SELECT '{push_id}', id, 'build', '', 'sha256:00', '[]', '[]', FALSE, '{push_id}', 0,"
            " 'Ann', '[]', 'server', 5, 0 FROM projects LIMIT 1",
        )
        execute(
            data_dir,
            "INSERT INTO push_authorizations (push_id, registry, repository, sealed)"
            f" VALUES ('{push_id}', 'registry.example', 'app', x'00')",
        )
    back_up(data_dir, tmp_path / "dest", nothing)
    copy = restored(tmp_path / "dest", tmp_path / "copy")
    assert execute(copy, "SELECT * FROM push_authorizations") == []
    query = "SELECT id, status, holder, finished_at > 0 FROM pushes ORDER BY id"
    assert execute(copy, query) == [
        ("done", "done", "server", None),
        ("queued", "canceled", None, 1),
        ("running", "canceled", None, 1),
    ]
    assert len(execute(data_dir, "SELECT * FROM push_authorizations")) == 3


def test_a_backup_is_its_owners_alone(data_dir: Path, elsewhere: Path) -> None:
    dest = elsewhere / "dest"
    back_up(data_dir, dest, nothing)
    assert stat.S_IMODE(dest.stat().st_mode) == 0o700
    for path in dest.rglob("*"):
        if path.name != "lock":
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_backup_on_the_same_file_system_is_links_and_else_copies(
    data_dir: Path, tmp_path: Path, elsewhere: Path
) -> None:
    ((key,),) = execute(data_dir, "SELECT key FROM blobs LIMIT 1")
    inode = (data_dir / "blobs" / key).stat().st_ino
    back_up(data_dir, tmp_path / "dest", nothing)
    assert (tmp_path / "dest" / "blobs" / key).stat().st_ino == inode
    back_up(data_dir, elsewhere / "dest", nothing)
    content = blobs(data_dir)
    # A copy outlives whatever becomes of the data folder.
    for path in (data_dir / "blobs").rglob("*"):
        if path.is_file():
            path.write_bytes(b"overwritten")
    assert blobs(restored(elsewhere / "dest", tmp_path / "copy")) == content


def test_the_next_backup_copies_what_is_new_and_removes_what_is_gone(
    data_dir: Path, tmp_path: Path
) -> None:
    dest = tmp_path / "dest"
    first = back_up(data_dir, dest, nothing)
    add_blob(data_dir, b"new", digest_of(b"new"))
    ((key,),) = execute(data_dir, "SELECT key FROM blobs WHERE key LIKE 'sha512/%'")
    execute(data_dir, "DELETE FROM blobs WHERE key = ?", key)
    second = back_up(data_dir, dest, nothing)
    assert (second.new_blobs, second.new_bytes, second.removed_blobs) == (1, 3, 1)
    assert second.manifest.blobs == first.manifest.blobs
    assert not (dest / "blobs" / key).exists()
    assert [path.name for path in dest.glob("layover-*")] == [second.manifest.database]
    assert blobs(restored(dest, tmp_path / "copy")) == blobs(data_dir)


def test_a_backup_that_is_cut_off_leaves_the_last_one_and_goes_on_from_where_it_was(
    data_dir: Path, tmp_path: Path
) -> None:
    dest = tmp_path / "dest"
    back_up(data_dir, dest, nothing)
    before = tables(data_dir / "layover.db")
    for number in range(5):
        content = f"new {number}".encode()
        add_blob(data_dir, content, digest_of(content))
    execute(data_dir, "DELETE FROM tags")
    _cut_off(lambda report: back_up(data_dir, dest, report), after=3)
    assert tables(restored(dest, tmp_path / "last") / "layover.db") == before
    finished = back_up(data_dir, dest, nothing)
    assert finished.new_blobs == 2
    copy = restored(dest, tmp_path / "copy")
    assert tables(copy / "layover.db") == tables(data_dir / "layover.db")
    assert execute(data_dir, "SELECT * FROM server_leases") == []


def test_a_first_backup_that_is_cut_off_is_none(data_dir: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    _cut_off(lambda report: back_up(data_dir, dest, report), after=3)
    with pytest.raises(FolderRefused, match="no finished backup"):
        restore(dest, tmp_path / "copy", nothing)
    assert back_up(data_dir, dest, nothing).new_blobs == len(blobs(data_dir)) - 3
    assert blobs(restored(dest, tmp_path / "copy")) == blobs(data_dir)


def _cut_off(work: Callable[[Callable[[Progress], None]], Summary], after: int) -> None:
    def report(progress: Progress) -> None:
        if progress.done_blobs == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work(report)


def test_a_copy_of_the_database_is_of_one_moment_while_others_write(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup_module, "_PAGES", 2)
    stop, writes = threading.Event(), 0

    def write() -> None:
        nonlocal writes
        with closing(sqlite3.connect(data_dir / "layover.db", timeout=30)) as database:
            while not stop.is_set():
                # Two tables that change together, at both ends of the file.
                for table in ("organizations", "build_dockerfiles"):
                    values = (
                        "(?, 'x', 0, NULL)" if table == "organizations" else "('b', ?, 'f', 'c')"
                    )
                    database.execute(f"INSERT INTO {table} VALUES {values}", (f"w-{writes}",))
                database.commit()
                writes += 1
                # The backup's turn: SQLite's lock is nobody's in particular.
                time.sleep(0.001)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(3):
            before = writes
            while writes < before + 20:
                assert writer.is_alive()
                time.sleep(0.001)
            dest = tmp_path / f"dest{number}"
            manifest = back_up(data_dir, dest, nothing).manifest
            with closing(sqlite3.connect(dest / manifest.database)) as copy:
                counts = [
                    copy.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                    for table in (
                        "organizations WHERE id LIKE 'w-%'",
                        "build_dockerfiles WHERE target LIKE 'w-%'",
                    )
                ]
                assert counts[0] == counts[1] >= before
                assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    finally:
        stop.set()
        writer.join()


# --- the collector's lease ------------------------------------------------------------------


def test_collection_is_held_off_for_as_long_as_a_backup_takes(
    data_dir: Path, tmp_path: Path
) -> None:
    seen = set()

    def report(_: Progress) -> None:
        ((name, holder, expires_at),) = execute(data_dir, "SELECT * FROM server_leases")
        assert expires_at > (datetime.now(UTC) + timedelta(minutes=1)).timestamp() * 1e6
        seen.add((name, holder))

    back_up(data_dir, tmp_path / "dest", report)
    ((name, holder),) = seen
    assert name == "collector"
    assert holder.startswith("backup-")
    assert execute(data_dir, "SELECT * FROM server_leases") == []


def test_a_round_of_the_collector_ends_before_a_backup_begins(
    data_dir: Path, tmp_path: Path
) -> None:
    until = datetime.now(UTC) + timedelta(seconds=1)
    lease = ("collector", "server", int(until.timestamp() * 1_000_000))
    execute(data_dir, "INSERT INTO server_leases VALUES (?, ?, ?)", *lease)
    with pytest.raises(BackupFailed, match="has been collecting"):
        back_up(data_dir, tmp_path / "dest", nothing, patience=timedelta(0))
    assert execute(data_dir, "SELECT * FROM server_leases") == [lease]
    back_up(data_dir, tmp_path / "dest", nothing)
    assert datetime.now(UTC) >= until


def test_a_backup_that_was_held_up_and_lost_what_it_copies_fails_and_keeps_the_last_one(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup_module, "_RENEWAL_SECONDS", 0.0)
    dest = tmp_path / "dest"
    last = back_up(data_dir, dest, nothing).manifest
    path = add_blob(data_dir, b"new", digest_of(b"new"))

    def report(progress: Progress) -> None:
        until = int((datetime.now(UTC) + timedelta(minutes=1)).timestamp() * 1e6)
        execute(data_dir, "UPDATE server_leases SET holder = 'server', expires_at = ?", until)
        path.unlink(missing_ok=True)

    # Its key comes last, when others have been reported.
    (data_dir / "blobs" / "data").rename(data_dir / "blobs" / "zdata")
    path = data_dir / "blobs" / "zdata" / path.relative_to(data_dir / "blobs" / "data")
    execute(data_dir, "UPDATE blobs SET key = 'z' || key WHERE digest = ?", digest_of(b"new"))
    with pytest.raises(BackupFailed, match="run it again"):
        back_up(data_dir, dest, report)
    assert Manifest.read(dest) == last
    restore(dest, tmp_path / "copy", nothing)


def test_a_renewal_that_finds_the_database_busy_costs_nothing(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup_module, "_RENEWAL_SECONDS", 0.0)
    content = blobs(data_dir)
    writer = sqlite3.connect(data_dir / "layover.db", isolation_level=None)
    engines = []

    def impatient(url: str) -> Engines:
        engines.append(connect(url))
        with engines[0].writes.connect() as connection:
            connection.exec_driver_sql("PRAGMA busy_timeout=1")
        return engines[0]

    monkeypatch.setattr(backup_module, "connect", impatient)

    def report(progress: Progress) -> None:
        if progress.done_blobs == 1:
            writer.execute("BEGIN IMMEDIATE")
        if progress.done_blobs == 10:
            writer.execute("ROLLBACK")

    with closing(writer):
        back_up(data_dir, tmp_path / "dest", report)
    assert blobs(restored(tmp_path / "dest", tmp_path / "copy")) == content


# --- what is not whole ----------------------------------------------------------------------


def test_blobs_that_the_server_lost_are_named_and_the_rest_is_backed_up(
    data_dir: Path, elsewhere: Path, tmp_path: Path
) -> None:
    lost, damaged, short, *_ = execute(
        data_dir, "SELECT digest, key FROM blobs WHERE size_bytes > 3 ORDER BY key"
    )
    (data_dir / "blobs" / lost[1]).unlink()
    rotten = data_dir / "blobs" / damaged[1]
    rotten.write_bytes(bytes([rotten.read_bytes()[0] ^ 1]) + rotten.read_bytes()[1:])
    (data_dir / "blobs" / short[1]).write_bytes(b"x")
    dest = elsewhere / "dest"
    manifest = back_up(data_dir, dest, nothing).manifest
    assert set(manifest.damaged) == {lost[0], damaged[0], short[0]}
    assert not (dest / "blobs" / damaged[1]).exists()
    copy = restored(dest, tmp_path / "copy")
    assert tables(copy / "layover.db") == tables(data_dir / "layover.db")
    assert len(list((copy / "blobs").rglob("*/*/*"))) == manifest.blobs


def test_what_is_quarantined_is_not_backed_up(data_dir: Path, tmp_path: Path) -> None:
    ((digest, key),) = execute(data_dir, "SELECT digest, key FROM blobs LIMIT 1")
    execute(data_dir, "UPDATE blobs SET quarantined_at = 1 WHERE digest = ?", digest)
    summary = back_up(data_dir, tmp_path / "dest", nothing)
    assert summary.manifest.damaged == ()
    assert not (tmp_path / "dest" / "blobs" / key).exists()
    restore(tmp_path / "dest", tmp_path / "copy", nothing)


def test_a_damaged_database_is_no_backup(data_dir: Path, tmp_path: Path) -> None:
    execute(data_dir, "VACUUM")
    path = data_dir / "layover.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        ((page,),) = database.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'manifests'"
        ).fetchall()
        ((size,),) = database.execute("PRAGMA page_size").fetchall()
    content = bytearray(path.read_bytes())
    content[(page - 1) * size : page * size] = b"\xff" * size
    path.write_bytes(content)
    with pytest.raises(BackupFailed, match=r"damaged|malformed"):
        back_up(data_dir, tmp_path / "dest", nothing)
    with pytest.raises(FolderRefused, match="no finished backup"):
        restore(tmp_path / "dest", tmp_path / "copy", nothing)


# --- folders that are something else --------------------------------------------------------


def test_a_folder_with_something_else_in_it_is_refused_untouched(
    data_dir: Path, tmp_path: Path
) -> None:
    dest = tmp_path / "dest"
    (dest / "blobs").mkdir(parents=True)
    (dest / "blobs" / "mine").write_text("mine")
    with pytest.raises(FolderRefused, match="holds 'blobs', and no backup"):
        back_up(data_dir, dest, nothing)
    assert [path.name for path in dest.rglob("*")] == ["blobs", "mine"]


@pytest.mark.parametrize(
    ("dest", "reason"),
    [
        ("data", "is in the data folder"),
        ("data/backup", "is in the data folder"),
        (".", "holds the data folder"),
        ("data/../file", "is no folder"),
    ],
)
def test_a_folder_that_cannot_hold_a_backup_is_refused(
    data_dir: Path, tmp_path: Path, dest: str, reason: str
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FolderRefused, match=reason):
        back_up(data_dir, tmp_path / dest, nothing)


def test_a_backup_of_a_newer_format_is_refused(data_dir: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    dest.mkdir()
    (dest / "backup.json").write_text(json.dumps({"format": 2, "anything": "else"}))
    with pytest.raises(FolderRefused, match="newer release"):
        back_up(data_dir, dest, nothing)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 1, "taken_at": "noon"}', "\x00"])
def test_a_manifest_that_cannot_be_read_is_refused(
    data_dir: Path, tmp_path: Path, text: str
) -> None:
    dest = tmp_path / "dest"
    dest.mkdir()
    (dest / "backup.json").write_text(text)
    with pytest.raises(FolderRefused, match=r"backup\.json cannot be read"):
        back_up(data_dir, dest, nothing)


def test_two_backups_do_not_write_to_one_folder(data_dir: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    back_up(data_dir, dest, nothing)
    with claimed(dest / "lock") as is_ours:
        assert is_ours
        with pytest.raises(FolderRefused, match="another backup"):
            back_up(data_dir, dest, nothing)


def test_a_folder_without_a_server_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(FolderRefused, match="no server has its data in"):
        back_up(tmp_path / "data", tmp_path / "dest", nothing)
    assert not (tmp_path / "dest").exists()
    (tmp_path / "data" / "layover.db").write_bytes(b"no database" * 1000)
    with pytest.raises(FolderRefused, match="cannot read the database"):
        back_up(tmp_path / "data", tmp_path / "dest", nothing)
    assert not (tmp_path / "dest").exists()


@pytest.mark.parametrize("schema", ["0001", "9999"])
def test_a_database_of_another_release_is_refused(
    data_dir: Path, tmp_path: Path, schema: str
) -> None:
    execute(data_dir, "UPDATE alembic_version SET version_num = ?", schema)
    with pytest.raises(FolderRefused, match=f"has schema '{schema}'.* use the release"):
        back_up(data_dir, tmp_path / "dest", nothing)
