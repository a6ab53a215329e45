"""The texts of the Dockerfiles that are built, for the build's record on the server."""

import codecs
from pathlib import Path
from typing import BinaryIO

from layover.cli.buildx.bakefile import Target, is_remote
from layover.rpc.depot.cli.v1 import build_pb as wire

# A record of a build needs no more, and a request carries no more.
_MOST_BYTES = 512 * 1024
# What an archive begins with: gzip, bzip2, xz, zstd; a tar names itself later.
_ARCHIVES = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")
_TAR_MAGIC_OFFSET = 257


def of_build(context: str, file: str, stdin: BinaryIO | None) -> list[wire.Dockerfile]:
    """The Dockerfile of a plain build; none when it lies in a context that is elsewhere."""
    if file == "-" or (context == "-" and not file):
        if stdin is None:
            return []
        stdin.seek(0)
        content = stdin.read(_MOST_BYTES)
        return [] if is_archive(content) else [_entry("", "-", _text(content))]
    if file:
        return _read("", Path(file))
    if context == "-" or is_remote(context):
        return []
    return _read("", Path(context) / "Dockerfile")


def of_target(target: Target) -> list[wire.Dockerfile]:
    """The Dockerfile of a bake's target, which is relative to the target's context."""
    if target.inline_dockerfile is not None:
        return [_entry(target.name, "dockerfile-inline", target.inline_dockerfile)]
    if is_remote(target.context) or target.context == "-":
        return []
    return _read(target.name, Path(target.context) / target.dockerfile)


def is_archive(content: bytes) -> bool:
    """Whether standard input holds a build context rather than a Dockerfile."""
    tar = content[_TAR_MAGIC_OFFSET : _TAR_MAGIC_OFFSET + 5]
    return content.startswith(_ARCHIVES) or tar == b"ustar"


def _read(target: str, path: Path) -> list[wire.Dockerfile]:
    try:
        with path.open("rb") as file:
            return [_entry(target, str(path), _text(file.read(_MOST_BYTES)))]
    except OSError:
        return []  # buildx says what is wrong with it.


def _text(content: bytes) -> str:
    return content[:_MOST_BYTES].removeprefix(codecs.BOM_UTF8).decode(errors="replace")


def _entry(target: str, name: str, contents: str) -> wire.Dockerfile:
    return wire.Dockerfile(target=target, filename=name, contents=contents)
