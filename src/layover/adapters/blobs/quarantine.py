"""Where bytes are set aside that nobody is to see any more: kept for who wants to look at them.

DATA/quarantine/data/UP/UPLOAD_ID...      beside the folder of the blobs
BUCKET/quarantine/data/UP/UPLOAD_ID...    in the bucket of the blobs
"""

import asyncio
import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore
import structlog
from obstore.exceptions import BaseError
from obstore.store import from_url

from layover.adapters.blobs.keys import check_key
from layover.errors import StorageFull, StorageUnavailable

if TYPE_CHECKING:
    from layover.adapters.blobs.objects import Bucket

_FOLDER = "quarantine"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

_log = structlog.get_logger(__name__)


class FileQuarantine:
    """The Quarantine beside a folder of blobs."""

    def __init__(self, root: Path) -> None:
        """`root` is the blobs' folder."""
        self._root, self._aside = root, root.parent / _FOLDER

    async def set_aside(self, key: str) -> str | None:
        check_key(key)
        try:
            return await asyncio.to_thread(self._move, key)
        except OSError as error:
            if error.errno in _FULL:
                raise StorageFull from error
            _log.error("blob_not_set_aside", key=key, error=str(error))
            raise StorageUnavailable from error

    def _move(self, key: str) -> str | None:
        source, target = self._root / key, self._aside / key
        if not source.exists():
            return str(target) if target.exists() else None
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            source.rename(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # The blobs' folder is another file system; cut off, it is copied once more.
            shutil.copy2(source, target)
            source.unlink()
        for folder in (target.parent, source.parent):
            _sync(folder)
        return str(target)


class ObjectQuarantine:
    """The Quarantine in a bucket of blobs."""

    def __init__(self, bucket: "Bucket") -> None:
        config: Any = bucket.config() if bucket.is_s3 else None
        options: Any = {"allow_http": (bucket.endpoint or "").startswith("http://")}
        self._store: Any = from_url(bucket.url, config=config, client_options=options)

    async def set_aside(self, key: str) -> str | None:
        check_key(key)
        target = f"{_FOLDER}/{key}"
        try:
            try:
                await obstore.copy_async(self._store, key, target)
            except FileNotFoundError:
                with suppress(FileNotFoundError):
                    await obstore.head_async(self._store, target)
                    return target
                return None
            # Copied first: cut off in between it is done again.
            await obstore.delete_async(self._store, key)
        except (BaseError, OSError) as error:
            _log.error("blob_not_set_aside", key=key, error=str(error).split("\n", 1)[0])
            raise StorageUnavailable from error
        return target


def _sync(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
