"""What a blob's key looks like, in every store.

    data/UP/UPLOAD_ID...        what an upload brought
    sha256/ab/abcdef...         as the first release named a blob, by its digest
    sha512/ab/abcdef...

Keys come from the database. Whatever a row says there, a key names something inside of the
store: three names, with nothing in or between them that leads elsewhere.
"""

import re

import structlog

from layover.errors import StorageUnavailable

# The folders of all keys.
FOLDERS = ("data", "sha256", "sha512")

_KEY = re.compile(rf"(?:{'|'.join(FOLDERS)})(?:/[A-Za-z0-9][A-Za-z0-9._-]*){{2}}", re.ASCII)

_log = structlog.get_logger(__name__)


def key_of(upload_id: str, suffix: str = "") -> str:
    """A key for what an upload brings, spread over 256 folders by its random ID."""
    return f"data/{upload_id[:2]}/{upload_id}{suffix}"


def check_key(key: str) -> None:
    """Raise StorageUnavailable, and log why, unless `key` is one."""
    if _KEY.fullmatch(key) is None:
        _log.error("blob_key_refused", key=key)
        raise StorageUnavailable
