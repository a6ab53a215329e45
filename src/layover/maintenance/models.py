"""A backup: what it is, what it holds, and why one cannot be made or used.

DEST/backup.json              what the backup is; written last, and at first that it is none yet
DEST/layover-TIME.db          the database at that time
DEST/blobs/KEY                the blobs that it names, as they lie in a data folder
DEST/admin-token              as in the data folder
DEST/lock                     held by who works here
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from layover.errors import LayoverError
from layover.startup import BACKUP_FILE

FORMAT = 1
_UNFINISHED = {"format": FORMAT, "unfinished": True}


class MaintenanceError(LayoverError):
    """Work on a data folder could not be done."""


class FolderRefused(MaintenanceError):
    """A folder is not what the command needs it to be; nothing was done."""


class BackupFailed(MaintenanceError):
    """The backup, or the restore, was not finished. What the last one left is still whole."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the blobs are."""

    done_blobs: int
    total_blobs: int
    done_bytes: int
    total_bytes: int


Report = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup says of itself."""

    layover: str
    """The release that made it."""
    schema: str
    taken_at: datetime
    """The database is as it was then."""
    database: str
    """The database's file."""
    database_sha256: str
    builds: int
    manifests: int
    blobs: int
    size_bytes: int
    """Of the blobs."""
    damaged: tuple[str, ...]
    """Digests of blobs that the server itself had lost."""

    def to_json(self) -> bytes:
        document = {"format": FORMAT, **asdict(self), "taken_at": self.taken_at.isoformat()}
        return _json(document)

    @classmethod
    def read(cls, folder: Path) -> "Manifest | None":
        """What the folder says of itself; None when no backup was finished in it.

        Raises FolderRefused.
        """
        try:
            document: dict[str, Any] = json.loads((folder / BACKUP_FILE).read_bytes())
            if document.pop("format") != FORMAT:
                raise FolderRefused(f"{folder} holds a backup of a newer release: use that one")
            if document == {"unfinished": True}:
                return None
            taken_at = datetime.fromisoformat(document.pop("taken_at"))
            damaged = tuple(document.pop("damaged"))
            return cls(**document, taken_at=taken_at, damaged=damaged)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise FolderRefused(f"{folder / BACKUP_FILE} cannot be read: {error}") from error


def unfinished() -> bytes:
    """What a folder says of itself until its first backup is finished."""
    return _json(_UNFINISHED)


def _json(document: dict[str, Any]) -> bytes:
    return f"{json.dumps(document, indent=2)}\n".encode()


@dataclass(frozen=True, slots=True)
class Summary:
    """What a backup or a restore did."""

    folder: Path
    manifest: Manifest
    new_blobs: int
    new_bytes: int
    removed_blobs: int
