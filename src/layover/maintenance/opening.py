"""A server's stores, opened beside it: what is not there is told, never made."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from layover.adapters.blobs.files import FileBlobStore
from layover.adapters.blobs.objects import ObjectBlobStore
from layover.adapters.blobs.opening import open_blob_store
from layover.adapters.sql.database import Database
from layover.adapters.sql.migrate import SchemaUnknown, current_revision, known_revision
from layover.errors import LayoverError
from layover.settings import Settings
from layover.startup import BACKUP_FILE, RESTORING_FILE
from layover.storage import open_database


class NoServerData(LayoverError):
    """There is no server's data where it should be, or not all of it."""


@asynccontextmanager
async def opened(
    settings: Settings,
) -> AsyncIterator[tuple[Database, FileBlobStore | ObjectBlobStore]]:
    """The stores of the settings' server, whether or not it runs.

    Raises NoServerData, SchemaUnknown, StorageError, SettingsError.
    """
    _check_folder(settings)
    blob_store = open_blob_store(settings)
    try:
        database = open_database(settings)
        try:
            await _check_schema(database)
            yield database, blob_store
        finally:
            database.close()
    finally:
        blob_store.close()


def _check_folder(settings: Settings) -> None:
    folder = settings.data_dir
    if (folder / RESTORING_FILE).exists():
        raise NoServerData(f"{folder} holds an unfinished restore: run it again first")
    if (folder / BACKUP_FILE).exists():
        raise NoServerData(f"{folder} is a backup: restore it first")
    # Opening them would make what is not there.
    if not settings.database_url.get_secret_value() and not (folder / "layover.db").is_file():
        raise NoServerData(f"{folder} is no server's data folder: name it with --data-dir")
    if not settings.blob_store_url and not (folder / "blobs").is_dir():
        raise NoServerData(f"{folder} has no folder of blobs: restore a backup")


async def _check_schema(database: Database) -> None:
    found = await database.read(current_revision)
    if found is None:
        raise NoServerData("the database is empty: no server has used it")
    if found != known_revision():
        raise SchemaUnknown(found)
