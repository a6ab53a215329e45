"""The metadata file: what buildx writes, and which build it was."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from layover.client.errors import ClientError
from layover.client.login_file import replace_file

KEY = "depot.build"


def check_writable(path: Path) -> None:
    """See before the build that the file can be written after it."""
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ClientError(f"cannot write the metadata file {path}: no such folder")


def write(
    path: Path, buildx_file: Path, *, build_id: str, project_id: str, targets: Sequence[str]
) -> None:
    """Write buildx's facts and the build's at once, whole or not at all."""
    facts: dict[str, Any] = {}
    if buildx_file.is_file():
        facts = json.loads(buildx_file.read_text(encoding="utf-8"))
    build: dict[str, Any] = {"buildID": build_id, "projectID": project_id}
    if targets:
        build["targets"] = list(targets)
    facts[KEY] = build
    try:
        replace_file(path.absolute(), (json.dumps(facts, indent=2) + "\n").encode(), mode=0o644)
    except OSError as error:
        raise ClientError(f"cannot write the metadata file {path}: {error.strerror}") from error
