"""A data folder from a backup: everything that was there when the backup was taken."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from layover.adapters.sql.migrate import known_revisions
from layover.maintenance.files import (
    DamagedFile,
    FileTransfer,
    inside,
    publish,
    sha256,
    size,
    write_durably,
)
from layover.maintenance.models import (
    BackupFailed,
    FolderRefused,
    Manifest,
    Progress,
    Report,
    Summary,
)
from layover.startup import ADMIN_TOKEN_FILE, BACKUP_FILE, RESTORING_FILE, locked

_BLOBS = "SELECT digest, key, size_bytes FROM blobs WHERE quarantined_at IS NULL ORDER BY key"


def restore(backup: Path, data_dir: Path, report: Report) -> Summary:
    """Make a data folder of the backup; one that was cut off goes on when it is done again.

    The backup stays as it is. Raises FolderRefused, with nothing done; BackupFailed.
    """
    manifest = _checked_backup(backup)
    _check_target(backup, data_dir)
    try:
        with locked(data_dir, restores=True):
            return _restore(backup, manifest, data_dir, report)
    except DamagedFile as error:
        raise BackupFailed(f"{error} is damaged: the backup is not whole") from error
    except (OSError, sqlite3.Error) as error:
        raise BackupFailed(f"the restore was not finished: {error}") from error


def _restore(backup: Path, manifest: Manifest, data_dir: Path, report: Report) -> Summary:
    database = backup / manifest.database
    if sha256(database, _nothing) != manifest.database_sha256:
        raise BackupFailed(f"{database} is damaged: it is not what the backup was")
    # Until it is gone no server starts here.
    write_durably(data_dir / RESTORING_FILE, f"{backup.resolve()}\n".encode())
    transfer = FileTransfer(_nothing)
    done_blobs = done_bytes = new_blobs = new_bytes = 0
    damaged = frozenset(manifest.damaged)
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as snapshot:
        for digest, key, size_bytes in snapshot.execute(_BLOBS):
            if digest in damaged:
                continue
            source, target = inside(backup / "blobs", key), inside(data_dir / "blobs", key)
            if size(target) != size_bytes:
                if size(source) != size_bytes:
                    raise BackupFailed(f"{source} is missing or damaged: the backup is not whole")
                transfer.bring(source, target, digest)
                new_blobs, new_bytes = new_blobs + 1, new_bytes + size_bytes
            done_blobs, done_bytes = done_blobs + 1, done_bytes + size_bytes
            report(Progress(done_blobs, manifest.blobs, done_bytes, manifest.size_bytes))
    transfer.finish()
    if (backup / ADMIN_TOKEN_FILE).exists():
        write_durably(data_dir / ADMIN_TOKEN_FILE, (backup / ADMIN_TOKEN_FILE).read_bytes())
    partial = data_dir / "layover.db.partial"
    partial.touch(mode=0o600)
    shutil.copyfile(database, partial)
    publish(partial, data_dir / "layover.db")
    (data_dir / RESTORING_FILE).unlink()
    return Summary(data_dir, manifest, new_blobs, new_bytes, 0)


def _checked_backup(backup: Path) -> Manifest:
    if not backup.is_dir():
        raise FolderRefused(f"no folder {backup}")
    manifest = Manifest.read(backup)
    if manifest is None:
        raise FolderRefused(f"{backup} holds no finished backup: there is no {BACKUP_FILE}")
    if manifest.schema not in known_revisions():
        raise FolderRefused(
            f"the backup in {backup} has schema {manifest.schema!r}, which this release does not"
            f" know: use Layover {manifest.layover} or a newer one"
        )
    if size(backup / manifest.database) is None:
        raise FolderRefused(f"{backup / manifest.database} is missing: the backup is not whole")
    return manifest


def _check_target(backup: Path, data_dir: Path) -> None:
    if data_dir.resolve().is_relative_to(backup.resolve()):
        raise FolderRefused(f"{data_dir} is in the backup: choose another place")
    if not data_dir.exists():
        return
    if not data_dir.is_dir():
        raise FolderRefused(f"{data_dir} is no folder")
    try:
        begun = (data_dir / RESTORING_FILE).read_text().strip()
    except FileNotFoundError:
        begun = ""
    if begun:
        if begun != str(backup.resolve()):
            raise FolderRefused(
                f"{data_dir} holds an unfinished restore of {begun}: go on with that, or empty it"
            )
        return
    # A new file system comes with a folder of its own.
    found = sorted({path.name for path in data_dir.iterdir()} - {"lock", "lost+found"})
    if found:
        raise FolderRefused(f"{data_dir} is not empty ({found[0]}): choose an empty folder")


def _nothing() -> None:
    """Nobody waits for a sign of life."""
