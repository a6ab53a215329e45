"""Byte ranges and conditions on a blob that never changes (RFC 9110, sections 13 and 14)."""

import re
from dataclasses import dataclass

from layover.registry.models import RegistryError

# More digits than any file's size has are a range of no file.
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """The bytes from `start` up to and without `stop`."""

    start: int
    stop: int


class RangeUnsatisfiable(RegistryError):
    """The range lies behind the content's end."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__(f"the range lies behind the blob's {size_bytes} bytes")
        self.size_bytes = size_bytes


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
        if suffix == 0 or size_bytes == 0:
            raise RangeUnsatisfiable(size_bytes)
        return ByteRange(max(0, size_bytes - suffix), size_bytes)
    start = int(match[1])
    if match[2] and int(match[2]) < start:
        return None
    if start >= size_bytes:
        raise RangeUnsatisfiable(size_bytes)
    stop = min(int(match[2]) + 1, size_bytes) if match[2] else size_bytes
    return ByteRange(start, stop)


def matches(header: str | None, etag: str) -> bool:
    """Whether an If-None-Match header names the entity tag (RFC 9110, section 13.1.2)."""
    if header is None:
        return False
    tags = (tag.strip().removeprefix("W/") for tag in header.split(","))
    return any(tag in ("*", etag) for tag in tags)
