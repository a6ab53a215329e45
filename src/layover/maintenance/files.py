"""Files that are there whole or not at all, and folders that one process at a time works in."""

import errno
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_BLOCK_BYTES = 1 << 20

# Why a file cannot have a second name there: another file system, one that knows no links, or
# more links than it takes.
_NO_LINKS = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EACCES})


class FileTransfer:
    """Brings files to a folder: as links where its file system allows, else as copies.

    Each appears under its name when its bytes are on the disk; `finish` makes the names durable.
    """

    def __init__(self, beat: Callable[[], None]) -> None:
        """`beat` is called at least once a mebibyte."""
        self._beat = beat
        self._links = True
        self._folders: set[Path] = set()

    def bring(self, source: Path, target: Path, digest: str) -> None:
        """Let `target` be what `source` is. What is copied is checked against `digest`.

        Raises FileNotFoundError when there is no source, DamagedFile when it is not the digest's.
        """
        self._make_folders(target.parent)
        if not self._linked(source, target):
            self._copy(source, target, digest)
        self._folders.add(target.parent)

    def finish(self) -> None:
        """Make the names durable."""
        for folder in self._folders:
            sync_folder(folder)
        self._folders.clear()

    def _make_folders(self, folder: Path) -> None:
        if not folder.is_dir():
            self._make_folders(folder.parent)
            folder.mkdir(mode=0o700, exist_ok=True)
            self._folders.add(folder.parent)

    def _linked(self, source: Path, target: Path) -> bool:
        if not self._links:
            return False
        # It may be there with another length, of an attempt that was cut off.
        target.unlink(missing_ok=True)
        try:
            os.link(source, target)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # One file of somebody else's, or with too many names, says nothing of the others.
            self._links = error.errno != errno.EXDEV
            return False
        return True

    def _copy(self, source: Path, target: Path, digest: str) -> None:
        algorithm, _, expected = digest.partition(":")
        content = hashlib.new(algorithm)
        partial = target.with_name(f"{target.name}.partial")
        with source.open("rb") as reader, _created(partial) as writer:
            while block := os.read(reader.fileno(), _BLOCK_BYTES):
                content.update(block)
                _write(writer, block)
                self._beat()
            if content.hexdigest() != expected:
                partial.unlink()
                raise DamagedFile(source)
            os.fsync(writer)
        partial.rename(target)


class DamagedFile(Exception):
    """The file's bytes are not those of its digest."""


def write_durably(path: Path, content: bytes) -> None:
    """Let the file be these bytes, or what it was before; readable by its owner alone."""
    partial = path.with_name(f"{path.name}.partial")
    with _created(partial) as file:
        _write(file, content)
        os.fsync(file)
    partial.rename(path)
    sync_folder(path.parent)


def publish(partial: Path, path: Path) -> None:
    """Give a file that is written its name, durably."""
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.rename(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Let what was named in the folder outlive a power cut."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def sha256(path: Path, beat: Callable[[], None]) -> str:
    """The file's SHA-256, in hexadecimal."""
    content = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            content.update(block)
            beat()
    return content.hexdigest()


def inside(folder: Path, key: str) -> Path:
    """The file of a key. Whatever a database says, it is in the folder: else DamagedFile."""
    parts = key.split("/")
    if not all(part.strip(".") for part in parts):
        raise DamagedFile(folder / key)
    return folder.joinpath(*parts)


def size(path: Path) -> int | None:
    """The file's length, None when it is not there."""
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return None


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Lock a file, made when missing, for as long; False when another process has it."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


@contextmanager
def _created(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        yield file
    finally:
        os.close(file)


def _write(file: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(file, view) :]
