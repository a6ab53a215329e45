"""How lengths of time and sizes are written, in settings, flags and answers: 36h, 7d; 20GiB."""

import re
from datetime import timedelta

_DURATION = re.compile(r"(\d{1,15})([smhd])", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_SIZE = re.compile(r"(\d{1,15})(B|KiB|MiB|GiB|TiB)", re.ASCII | re.IGNORECASE)
_SIZES = {"b": 0, "kib": 10, "mib": 20, "gib": 30, "tib": 40}

# A time that is a duration away has to be one that a calendar has.
LONGEST = timedelta(days=36500)


def read_duration(text: str) -> timedelta:
    """Read `90s`, `15m`, `36h` or `7d`. Raises ValueError."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"expected a duration such as 90s, 15m, 36h or 7d, not {text!r}")
    try:
        duration = timedelta(**{_UNITS[match[2]]: int(match[1])})
    except OverflowError:
        duration = timedelta.max
    if duration > LONGEST:
        raise ValueError(f"expected at most {LONGEST.days}d, not {text!r}")
    return duration


def read_size(text: str) -> int:
    """Read `500MiB` or `20GiB` as a number of bytes. Raises ValueError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"expected a size such as 500MiB or 20GiB, not {text!r}")
    return int(match[1]) << _SIZES[match[2].lower()]


def told_duration(length: timedelta) -> str:
    """A length of time as `read_duration` reads it, in the largest unit that is exact."""
    seconds = int(length.total_seconds())
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def told_size(count: int) -> str:
    """A number of bytes as `read_size` reads it, in the largest unit that is exact."""
    for unit, shift in (("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count and count % (1 << shift) == 0:
            return f"{count >> shift}{unit}"
    return f"{count}B"


def about(count: int) -> str:
    """A number of bytes as a person wants it, such as 7.9 MiB."""
    for unit, shift in (("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count >> shift:
            return f"{count / (1 << shift):.1f} {unit}"
    return f"{count} B"
