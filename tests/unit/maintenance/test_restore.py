import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from layover.maintenance.backup import back_up
from layover.maintenance.models import BackupFailed, FolderRefused, Progress
from layover.maintenance.restore import restore
from layover.settings import SettingsError
from layover.startup import locked
from tests.unit.maintenance.conftest import blobs, tables


def nothing(_: Progress) -> None:
    """A report that nobody reads."""


@pytest.fixture
def backup(data_dir: Path, tmp_path: Path) -> Path:
    back_up(data_dir, tmp_path / "backup", nothing)
    return tmp_path / "backup"


def test_a_restore_that_is_cut_off_serves_nothing_and_goes_on(
    data_dir: Path, backup: Path, tmp_path: Path
) -> None:
    def cut_off(progress: Progress) -> None:
        if progress.done_blobs == 5:
            raise KeyboardInterrupt

    target = tmp_path / "target"
    with pytest.raises(KeyboardInterrupt):
        restore(backup, target, cut_off)
    with pytest.raises(SettingsError, match="unfinished restore"), locked(target):
        pass
    summary = restore(backup, target, nothing)
    assert summary.new_blobs == summary.manifest.blobs - 5
    assert blobs(target) == blobs(data_dir)
    assert tables(target / "layover.db") == tables(data_dir / "layover.db")
    with locked(target):
        pass


def test_a_restore_of_one_backup_does_not_go_on_with_another(
    data_dir: Path, backup: Path, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "restoring").write_text("/mnt/other\n")
    with pytest.raises(FolderRefused, match="unfinished restore of /mnt/other"):
        restore(backup, target, nothing)


def test_a_folder_with_data_is_refused_untouched(
    data_dir: Path, backup: Path, tmp_path: Path
) -> None:
    before = sorted(data_dir.rglob("*"))
    with pytest.raises(FolderRefused, match="is not empty"):
        restore(backup, data_dir, nothing)
    assert sorted(data_dir.rglob("*")) == before


def test_an_empty_folder_is_taken_also_a_new_file_systems(backup: Path, tmp_path: Path) -> None:
    (tmp_path / "target" / "lost+found").mkdir(parents=True)
    restore(backup, tmp_path / "target", nothing)


def test_a_folder_that_a_server_has_just_taken_is_refused(backup: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    with locked(target), pytest.raises(SettingsError, match="another server is using"):
        restore(backup, target, nothing)


def test_the_backup_stays_as_it_is(backup: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in backup.rglob("*") if path.is_file()}
    restore(backup, tmp_path / "target", nothing)
    assert {path: path.read_bytes() for path in backup.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("target", ["backup", "backup/data"])
def test_a_folder_in_the_backup_is_refused(backup: Path, tmp_path: Path, target: str) -> None:
    with pytest.raises(FolderRefused, match="is in the backup"):
        restore(backup, tmp_path / target, nothing)


def test_what_is_no_backup_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FolderRefused, match="no folder"):
        restore(tmp_path / "backup", tmp_path / "target", nothing)
    (tmp_path / "backup").mkdir()
    with pytest.raises(FolderRefused, match="no finished backup"):
        restore(tmp_path / "backup", tmp_path / "target", nothing)
    assert not (tmp_path / "target").exists()


def test_a_backup_of_a_newer_schema_is_refused(backup: Path, tmp_path: Path) -> None:
    manifest = json.loads((backup / "backup.json").read_text())
    (backup / "backup.json").write_text(json.dumps({**manifest, "schema": "9999"}))
    with pytest.raises(FolderRefused, match=r"schema '9999'.*use Layover 0\.1\.0 or a newer one"):
        restore(backup, tmp_path / "target", nothing)
    assert not (tmp_path / "target").exists()


def test_a_backup_that_is_not_whole_is_told(backup: Path, tmp_path: Path, elsewhere: Path) -> None:
    (database,) = backup.glob("layover-*.db")
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as snapshot:
        key, other, *_ = (
            key for (key,) in snapshot.execute("SELECT key FROM blobs WHERE size_bytes > 2")
        )
    whole = tmp_path / "whole"
    shutil.copytree(backup, whole)

    (backup / "blobs" / key).unlink()
    with pytest.raises(BackupFailed, match=f"{key} is missing or damaged"):
        restore(backup, elsewhere / "target", nothing)
    # Copied back, the same restore goes on.
    shutil.copy(whole / "blobs" / key, backup / "blobs" / key)
    restore(backup, elsewhere / "target", nothing)

    # What is copied is checked.
    content = (whole / "blobs" / other).read_bytes()
    (whole / "blobs" / other).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BackupFailed, match=f"{other} is damaged"):
        restore(whole, elsewhere / "damaged", nothing)
    assert not (elsewhere / "damaged" / "layover.db").exists()


def test_a_damaged_database_is_told(backup: Path, tmp_path: Path) -> None:
    (database,) = backup.glob("layover-*.db")
    content = database.read_bytes()
    database.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BackupFailed, match="is damaged"):
        restore(backup, tmp_path / "target", nothing)
    database.unlink()
    with pytest.raises(FolderRefused, match="is missing"):
        restore(backup, tmp_path / "target", nothing)


@pytest.mark.parametrize("key", ["../outside", "data/../../outside", "/etc/outside", "", "data//x"])
def test_no_key_leads_out_of_the_folder(
    data_dir: Path, tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(sqlite3.connect(data_dir / "layover.db")) as database, database:
        digest, size_bytes = database.execute("SELECT digest, size_bytes FROM blobs").fetchone()
        database.execute("UPDATE blobs SET key = ? WHERE digest = ?", (key, digest))
    for outside in (data_dir / "outside", tmp_path / "outside"):
        outside.write_bytes(b"x" * size_bytes)
    with pytest.raises(BackupFailed):
        back_up(data_dir, tmp_path / "dest", nothing)
