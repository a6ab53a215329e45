"""A verification of what a server's settings name, whether or not the server runs."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from layover.adapters.blobs.opening import open_quarantine
from layover.adapters.sql.verification import SqlVerificationStore
from layover.maintenance.opening import NoServerData, opened
from layover.retention.findings import Finding, Progress, Verification
from layover.retention.verify import Verifier
from layover.settings import Settings

__all__ = ["Finding", "NoServerData", "Progress", "Verification", "verify"]


async def verify(
    settings: Settings, *, repair: bool, report: Callable[[Progress], None]
) -> Verification:
    """Verify all that the settings' server keeps.

    Raises NoServerData, SchemaUnknown, StorageError, SettingsError.
    """
    async with opened(settings) as (database, blob_store):
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


def _is_served(folder: Path) -> bool:
    """Whether a server of this machine holds the folder.

    Asked of the system: to try its lock is to hold it, and a server that starts would be refused.
    """
    try:
        inode = (folder / "lock").stat().st_ino
        locks = Path("/proc/locks").read_text()
    except OSError:
        return False
    # "1: FLOCK ADVISORY WRITE 4711 fd:01:131 0 EOF" (proc(5)).
    held = (line.split() for line in locks.splitlines() if " FLOCK " in line)
    return any(fields[-3].rpartition(":")[2] == str(inode) for fields in held)
