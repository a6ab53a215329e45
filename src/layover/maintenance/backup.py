"""A backup of a data folder whose server runs: its database, and the blobs that this names.

The database is copied as it is at one moment. The blobs follow; they never change, and nobody
takes one away meanwhile, because the backup holds the collector's lease. What the folder of an
earlier backup has already stays as it is, and what the new database no longer names goes last:
at any moment the folder holds a backup that is whole.
"""

import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from secrets import token_hex

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from layover.adapters.sql import server_leases
from layover.adapters.sql.engines import connect
from layover.adapters.sql.migrate import known_revision
from layover.maintenance.files import (
    DamagedFile,
    FileTransfer,
    claimed,
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
    unfinished,
)
from layover.startup import ADMIN_TOKEN_FILE, BACKUP_FILE

# Of the collector's lease: what a backup that dies costs the collector, at most.
_LEASE = timedelta(minutes=2)
_RENEWAL_SECONDS = 20.0

# A collection gives its lease back after each round.
PATIENCE = timedelta(minutes=10)
_POLL_SECONDS = 0.1

# Pages of the database that are copied between two looks at the lease.
_PAGES = 4096

# What a copy of the database does not need: leases of the server that runs, uploads whose bytes
# are not copied, bytes that are to be removed, and what opens other registries.
_NOT_COPIED = ("server_leases", "uploads", "doomed_objects", "push_authorizations")

# A server that is restored must not go on with what another one, or it itself, has long done: tags
# of other registries would be what they were when the backup was taken.
_END_PUSHES = (
    "UPDATE pushes SET status = 'canceled', error = 'it had not ended when the backup was taken',"
    " finished_at = ?, waits_for = '[]', holder = NULL, leased_until = NULL"
    " WHERE status IN ('queued', 'running')"
)

_COUNTS = "SELECT (SELECT count(*) FROM builds), (SELECT count(*) FROM manifests)"
_BLOBS = "SELECT digest, key, size_bytes FROM blobs WHERE quarantined_at IS NULL ORDER BY key"
_BLOB_COUNTS = (
    "SELECT count(*), coalesce(sum(size_bytes), 0) FROM blobs WHERE quarantined_at IS NULL"
)


def back_up(data_dir: Path, dest: Path, report: Report, patience: timedelta = PATIENCE) -> Summary:
    """Make or renew the backup in `dest` of a data folder, whether or not its server runs.

    Raises FolderRefused, with nothing done; BackupFailed, with the last backup kept.
    """
    database = _checked_source(data_dir)
    _check_destination(data_dir, dest)
    try:
        dest.mkdir(mode=0o700, parents=True, exist_ok=True)
        with claimed(dest / "lock") as is_ours:
            if not is_ours:
                raise FolderRefused(f"another backup is being written to {dest}")
            if not (dest / BACKUP_FILE).exists():
                write_durably(dest / BACKUP_FILE, unfinished())
            engine = connect(f"sqlite:///{database}").writes
            try:
                with _collection_held(engine, patience) as lease:
                    return _back_up(data_dir, dest, report, lease)
            finally:
                engine.dispose()
    except (OSError, sqlite3.Error, DBAPIError, DamagedFile) as error:
        reason = error.orig if isinstance(error, DBAPIError) else error
        raise BackupFailed(f"the backup was not finished: {reason}") from error


def _back_up(data_dir: Path, dest: Path, report: Report, lease: "_Lease") -> Summary:
    taken_at = datetime.now(UTC)
    database = dest / f"layover-{taken_at:%Y%m%dT%H%M%S.%fZ}.db"
    _clear_away(dest)
    partial = database.with_suffix(".partial")
    _copy_database(data_dir / "layover.db", partial, lease.keep)
    publish(partial, database)
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as snapshot:
        ((builds, manifests),) = snapshot.execute(_COUNTS)
        copied = _copy_blobs(snapshot, data_dir / "blobs", dest / "blobs", report, lease)
    if (data_dir / ADMIN_TOKEN_FILE).exists():
        write_durably(dest / ADMIN_TOKEN_FILE, (data_dir / ADMIN_TOKEN_FILE).read_bytes())
    manifest = Manifest(
        layover=version("layover"),
        schema=known_revision(),
        taken_at=taken_at,
        database=database.name,
        database_sha256=sha256(database, lease.keep),
        builds=builds,
        manifests=manifests,
        blobs=len(copied.keys),
        size_bytes=copied.size_bytes,
        damaged=tuple(copied.damaged),
    )
    # From here on this is the folder's backup; before, it was the last one.
    write_durably(dest / BACKUP_FILE, manifest.to_json())
    removed = _remove_rest(dest, database, copied.keys)
    return Summary(dest, manifest, copied.new_blobs, copied.new_bytes, removed)


class _Copied:
    """What became of the blobs."""

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self.size_bytes = 0
        self.new_blobs = self.new_bytes = 0
        self.damaged: list[str] = []


def _copy_blobs(
    snapshot: sqlite3.Connection, source: Path, target: Path, report: Report, lease: "_Lease"
) -> _Copied:
    ((total_blobs, total_bytes),) = snapshot.execute(_BLOB_COUNTS)
    copied = _Copied()
    done_blobs = done_bytes = 0
    transfer = FileTransfer(lease.keep)
    for digest, key, size_bytes in snapshot.execute(_BLOBS):
        lease.keep()
        place = inside(target, key)
        is_there = size(place) == size_bytes
        if not is_there and _bring(transfer, source / key, place, digest, size_bytes):
            is_there = True
            copied.new_blobs += 1
            copied.new_bytes += size_bytes
        if is_there:
            copied.keys.add(key)
            copied.size_bytes += size_bytes
        elif lease.was_lost:
            raise BackupFailed(
                "the backup was held up for so long that the server collected what it was"
                " copying: run it again, it goes on where it stopped"
            )
        else:
            copied.damaged.append(digest)
        done_blobs, done_bytes = done_blobs + 1, done_bytes + size_bytes
        report(Progress(done_blobs, total_blobs, done_bytes, total_bytes))
    transfer.finish()
    return copied


def _bring(
    transfer: FileTransfer, source: Path, target: Path, digest: str, size_bytes: int
) -> bool:
    """Bring a blob; False when the server itself has lost it."""
    try:
        if size(source) != size_bytes:
            return False
        transfer.bring(source, target, digest)
    except (DamagedFile, FileNotFoundError):
        return False
    return True


def _copy_database(source: Path, target: Path, beat: Callable[[], None]) -> None:
    """Copy what the database is at this moment, while others write to it."""
    target.touch(mode=0o600)
    with (
        closing(sqlite3.connect(f"file:{source}?mode=rw", uri=True, isolation_level=None)) as read,
        closing(sqlite3.connect(target, isolation_level=None)) as written,
    ):
        # In a transaction, what others write meanwhile does not make SQLite begin again.
        read.execute("BEGIN")
        read.execute("SELECT count(*) FROM sqlite_master").fetchone()
        read.backup(written, pages=_PAGES, progress=lambda *_: beat())
        # One file from now on, that a copy of it holds everything.
        written.execute("PRAGMA journal_mode=DELETE")
        for table in _NOT_COPIED:
            written.execute(f"DELETE FROM {table}")  # noqa: S608  # names of our own
        written.execute(_END_PUSHES, [time.time_ns() // 1_000])
        found = written.execute("PRAGMA quick_check(1)").fetchone()
        if found != ("ok",):
            raise BackupFailed(f"the database is damaged: {found[0]}")


def _clear_away(dest: Path) -> None:
    """Remove what a backup that was cut off had not finished."""
    kept = Manifest.read(dest)
    for path in (*dest.glob("layover-*.db"), *dest.glob("layover-*.partial*")):
        if kept is None or path.name != kept.database:
            path.unlink()


def _remove_rest(dest: Path, database: Path, keys: set[str]) -> int:
    """Remove what the backup no longer names; return how many blobs that were."""
    for path in dest.glob("layover-*.db"):
        if path != database:
            path.unlink()
    removed = 0
    blobs = dest / "blobs"
    for path in blobs.rglob("*"):
        if path.is_file() and path.relative_to(blobs).as_posix() not in keys:
            path.unlink()
            removed += 1
    return removed


# --- the folders ----------------------------------------------------------------------------


def _checked_source(data_dir: Path) -> Path:
    """The database of the data folder, of the schema that this release knows."""
    database = data_dir / "layover.db"
    if not database.is_file():
        raise FolderRefused(f"no server has its data in {data_dir}: give it with --data-dir")
    known = known_revision()
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=rw", uri=True)) as connection:
            (found,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except (sqlite3.Error, TypeError) as error:
        raise FolderRefused(f"cannot read the database {database}: {error}") from error
    if found != known:
        raise FolderRefused(
            f"the database in {data_dir} has schema {found!r} and this release works with"
            f" {known!r}: use the release that its server is"
        )
    return database


def _check_destination(data_dir: Path, dest: Path) -> None:
    if dest.resolve().is_relative_to(data_dir.resolve()):
        raise FolderRefused(f"{dest} is in the data folder: choose another place")
    if data_dir.resolve().is_relative_to(dest.resolve()):
        raise FolderRefused(f"{dest} holds the data folder: choose a folder of its own")
    if dest.exists() and not dest.is_dir():
        raise FolderRefused(f"{dest} is no folder")
    if (dest / BACKUP_FILE).exists():
        Manifest.read(dest)
    elif dest.is_dir():
        # A new file system comes with a folder of its own.
        found = sorted({path.name for path in dest.iterdir()} - {"lock", "lost+found"})
        if found:
            raise FolderRefused(f"{dest} holds {found[0]!r}, and no backup: choose an empty folder")


# --- the collector's lease ------------------------------------------------------------------


class _Lease:
    """The collector's lease while it is ours; `keep` is to be called often."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.holder = f"backup-{socket.gethostname()}-{token_hex(4)}"
        self._renew_at = 0.0
        self.was_lost = False

    def take(self) -> bool:
        """Take it; False while it is another's."""
        now = datetime.now(UTC)
        self._renew_at = time.monotonic() + _RENEWAL_SECONDS
        with self._engine.begin() as connection:
            return server_leases.take(
                connection, server_leases.COLLECTOR, self.holder, now, now + _LEASE
            )

    def keep(self) -> None:
        """Renew it when it is time."""
        if time.monotonic() < self._renew_at or self.was_lost:
            return
        self._renew_at = time.monotonic() + _RENEWAL_SECONDS
        # A database that is too busy, or has no room, is asked again: the lease outlives that.
        with suppress(DBAPIError), self._engine.begin() as connection:
            # As after the machine slept. What was collected meanwhile will be found missing.
            self.was_lost = not server_leases.renew(
                connection, server_leases.COLLECTOR, self.holder, datetime.now(UTC) + _LEASE
            )

    def release(self) -> None:
        with self._engine.begin() as connection:
            server_leases.release(connection, server_leases.COLLECTOR, self.holder)


@contextmanager
def _collection_held(engine: Engine, patience: timedelta) -> Iterator[_Lease]:
    """Keep the server from removing blobs; a round that is under way ends first."""
    lease = _Lease(engine)
    deadline = time.monotonic() + patience.total_seconds()
    while not lease.take():
        if time.monotonic() > deadline:
            raise BackupFailed(
                f"the server has been collecting for {patience}: try again later, and see its log"
            )
        time.sleep(_POLL_SECONDS)
    try:
        yield lease
    finally:
        # It ends by itself where the database does not answer any more.
        with suppress(DBAPIError):
            lease.release()
