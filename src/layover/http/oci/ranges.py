"""Byte ranges and conditions on a blob that never changes (RFC 9110, sections 13 and 14)."""

import re
from dataclasses import dataclass

_RANGE = re.compile(r"bytes=(\d*)-(\d*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """The bytes from `start` up to and without `stop`."""

    start: int
    stop: int


class RangeUnsatisfiable(Exception):
    """The range lies behind the content's end."""


def parse_range(header: str | None, size_bytes: int) -> ByteRange | None:
    """The one range asked for, None for the whole.

    Several ranges, other units and malformed headers ask for the whole, which RFC 9110,
    section 14.2 allows. Raises RangeUnsatisfiable.
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        suffix = int(match[2])
        if suffix == 0:
            raise RangeUnsatisfiable
        return ByteRange(max(0, size_bytes - suffix), size_bytes)
    start = int(match[1])
    if match[2] and int(match[2]) < start:
        return None
    if start >= size_bytes:
        raise RangeUnsatisfiable
    stop = min(int(match[2]) + 1, size_bytes) if match[2] else size_bytes
    return ByteRange(start, stop)


def matches(header: str | None, etag: str) -> bool:
    """Whether an If-None-Match header names the entity tag (RFC 9110, section 13.1.2)."""
    if header is None:
        return False
    tags = (tag.strip().removeprefix("W/") for tag in header.split(","))
    return any(tag in ("*", etag) for tag in tags)
