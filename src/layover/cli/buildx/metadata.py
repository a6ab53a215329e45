"""The metadata file: what buildx writes, and which build it was."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from layover.client.errors import ClientError
from layover.client.login_file import replace_file

KEY = "depot.build"


class MetadataUnwritable(ClientError):
    """The metadata cannot be put where it was asked for."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"cannot write the metadata file {path}: {reason}")
        self.path = path


def check_writable(path: Path) -> None:
    """See before the build that the file can be written after it. Raises MetadataUnwritable."""
    if path.is_dir():
        raise MetadataUnwritable(path, "it is a folder")
    folder = path.resolve().parent
    if not path.exists() and not folder.is_dir():
        raise MetadataUnwritable(path, "no such folder")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise MetadataUnwritable(path, "permission denied")


def content_of(
    buildx_file: Path, *, build_id: str, project_id: str, targets: Sequence[str]
) -> bytes:
    """buildx's facts and the build's, as they are written."""
    facts: dict[str, Any] = {}
    if buildx_file.is_file():
        facts = json.loads(buildx_file.read_text(encoding="utf-8"))
    build: dict[str, Any] = {"buildID": build_id, "projectID": project_id}
    if targets:
        build["targets"] = list(targets)
    facts[KEY] = build
    return (json.dumps(facts, indent=2) + "\n").encode()


def write(path: Path, content: bytes) -> None:
    """Write all of it at once. Raises MetadataUnwritable."""
    try:
        _put(path, content)
    except OSError as error:
        raise MetadataUnwritable(path, error.strerror or str(error)) from error


def _put(path: Path, content: bytes) -> None:
    if _is_stream(path):
        with path.open("ab") as stream:
            stream.write(content)
        return
    try:
        replace_file(path.resolve(), content, mode=0o644)
    except OSError:
        # A file may be writable in a folder that is not, or be mounted by itself, as containers
        # have it; it is not replaced there.
        if not path.is_file():
            raise
        path.write_bytes(content)


def _is_stream(path: Path) -> bool:
    """Whether this is a pipe or device, as /dev/stdout: replaced, it would be lost to everybody.

    A standard stream that is a file is held open by the shell, which wants what it gets in there.
    """
    is_named_so = path.absolute().parent in (Path("/dev"), Path("/dev/fd"))
    return path.exists() and (is_named_so or not path.is_file())
