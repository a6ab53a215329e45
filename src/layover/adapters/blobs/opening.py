"""The blob store that the settings name."""

from typing import TYPE_CHECKING

from layover.adapters.blobs.files import FileBlobStore
from layover.adapters.blobs.quarantine import FileQuarantine, ObjectQuarantine
from layover.settings import Settings

if TYPE_CHECKING:
    from layover.adapters.blobs.objects import Bucket, ObjectBlobStore


def open_blob_store(settings: Settings) -> "FileBlobStore | ObjectBlobStore":
    """Open it; whoever does closes it. Raises StorageFull, StorageUnavailable.

    A bucket is not asked before its first use: `ping` does.
    """
    if not settings.blob_store_url:
        return FileBlobStore(settings.data_dir / "blobs")
    from layover.adapters.blobs.objects import ObjectBlobStore

    return ObjectBlobStore(_bucket(settings))


def open_quarantine(settings: Settings) -> FileQuarantine | ObjectQuarantine:
    """Where that store's bytes are set aside."""
    if not settings.blob_store_url:
        return FileQuarantine(settings.data_dir / "blobs")
    return ObjectQuarantine(_bucket(settings))


def _bucket(settings: Settings) -> "Bucket":
    # What it loads takes time, and is of no use without a bucket.
    from layover.adapters.blobs.objects import Bucket

    return Bucket(
        settings.blob_store_url,
        endpoint=settings.blob_store_endpoint or None,
        region=settings.blob_store_region or None,
        access_key_id=settings.blob_store_access_key.get_secret_value() or None,
        secret_access_key=settings.blob_store_secret_key.get_secret_value() or None,
    )
