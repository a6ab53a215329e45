"""A verification of what a server's settings name, whether or not the server runs."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from alembic.runtime.migration import MigrationContext

from layover.adapters.blobs.opening import open_blob_store, open_quarantine
from layover.adapters.sql.database import Database
from layover.adapters.sql.migrate import SchemaUnknown, known_revision
from layover.adapters.sql.verification import SqlVerificationStore
from layover.errors import LayoverError
from layover.retention.findings import Finding, Progress, Verification
from layover.retention.verify import Verifier
from layover.settings import Settings
from layover.startup import BACKUP_FILE, RESTORING_FILE
from layover.storage import open_database

__all__ = ["Finding", "NothingToVerify", "Progress", "Verification", "verify"]


class NothingToVerify(LayoverError):
    """There is no server's data where it should be, or not all of it."""


async def verify(
    settings: Settings, *, repair: bool, report: Callable[[Progress], None]
) -> Verification:
    """Verify all that the settings' server keeps.

    Raises NothingToVerify, SchemaUnknown, StorageError, SettingsError.
    """
    _check_folder(settings)
    blob_store = open_blob_store(settings)
    database = open_database(settings)
    try:
        await _check_schema(database)
        verifier = Verifier(
            SqlVerificationStore(database, may_miss_blobs=settings.sparse_images),
            blob_store,
            open_quarantine(settings),
            lambda: datetime.now(UTC),
            settings.gc_grace,
        )
        return await verifier.run(
            repair=repair, is_served=_is_served(settings.data_dir), report=report
        )
    finally:
        database.close()
        blob_store.close()


def _check_folder(settings: Settings) -> None:
    folder = settings.data_dir
    if (folder / RESTORING_FILE).exists():
        raise NothingToVerify(f"{folder} holds an unfinished restore: run it again first")
    if (folder / BACKUP_FILE).exists():
        raise NothingToVerify(f"{folder} is a backup: restore it, and verify what comes of it")
    # Opening them would make what is not there.
    if not settings.database_url.get_secret_value() and not (folder / "layover.db").is_file():
        raise NothingToVerify(f"{folder} is no server's data folder: name it with --data-dir")
    if not settings.blob_store_url and not (folder / "blobs").is_dir():
        raise NothingToVerify(f"{folder} has no folder of blobs: restore a backup")


async def _check_schema(database: Database) -> None:
    found = await database.read(
        lambda connection: MigrationContext.configure(connection).get_current_revision()
    )
    if found is None:
        raise NothingToVerify("the database is empty: no server has used it")
    if found != known_revision():
        raise SchemaUnknown(found)


def _is_served(folder: Path) -> bool:
    """Whether a server of this machine holds the folder.

    Asked of the system: to try its lock is to hold it, and a server that starts would be refused.
    """
    try:
        inode = (folder / "lock").stat().st_ino
        locks = Path("/proc/locks").read_text()
    except OSError:
        return False
    return any(
        "FLOCK" in line.split() and f":{inode}" in line and line.split()[5].endswith(f":{inode}")
        for line in locks.splitlines()
        if len(line.split()) > 5
    )
