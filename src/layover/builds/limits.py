"""How much a build may report, and what is kept when it reports more.

A report never fails for being too long: a build must not fail for its log. What is over a
limit is left out, and the log says so once.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from layover.builds.models import Dockerfile, LogEntry

Item = TypeVar("Item")

MAX_STEPS = 20_000
MAX_LOG_BYTES = 16 * 1024 * 1024
MAX_TARGETS = 1_000
MAX_SAVE_TAGS = 100
MAX_DOCKERFILE_BYTES = 1024 * 1024
MAX_ERROR_CHARACTERS = 16 * 1024
MAX_NAME_CHARACTERS = 4 * 1024
# A SHA-512 digest has 135.
MAX_DIGEST_CHARACTERS = 160
# What its options hold in text: every listing reads them.
MAX_OPTIONS_CHARACTERS = 256 * 1024
# Of what is read whole to answer one request: a page of builds, a build's steps, its Dockerfiles.
MAX_READ_CHARACTERS = 8 * 1024 * 1024

# What an entry's row takes beside its message: without it, empty entries would be free.
ENTRY_OVERHEAD_BYTES = 32

_TRUNCATED = b"log truncated: it is longer than 16 MiB\n"


def admit_log(entries: Sequence[LogEntry], used_bytes: int) -> tuple[list[LogEntry], int]:
    """The entries that still fit into a log of `used_bytes`, and the log's size with them.

    The first that does not fit becomes one entry that says "log truncated"; a size above
    MAX_LOG_BYTES says that this was written, and nothing follows it.
    """
    kept: list[LogEntry] = []
    for entry in entries:
        if used_bytes > MAX_LOG_BYTES:
            break
        size = len(entry.message) + ENTRY_OVERHEAD_BYTES
        if used_bytes + size > MAX_LOG_BYTES:
            kept.append(replace(entry, message=_TRUNCATED))
            used_bytes = MAX_LOG_BYTES + 1
            break
        kept.append(entry)
        used_bytes += size
    return kept, used_bytes


def clean_entry(entry: LogEntry) -> LogEntry:
    """The entry as it is kept: the digest of its step is cut as the step's own is."""
    digest = clean_text(entry.step_digest, MAX_DIGEST_CHARACTERS)
    return entry if digest == entry.step_digest else replace(entry, step_digest=digest)


def within_read_limit(items: Iterable[Item], size_of: Callable[[Item], int]) -> Iterator[Item]:
    """The first of `items`, and those behind it that fit into what one request reads."""
    left = MAX_READ_CHARACTERS
    for number, item in enumerate(items):
        left -= size_of(item)
        if left < 0 and number:
            return
        yield item


def clean_text(text: str, limit: int) -> str:
    """`text` cut to `limit` characters, without the NUL that PostgreSQL cannot keep."""
    return text[:limit].replace("\0", "\N{REPLACEMENT CHARACTER}")


def clean_dockerfile(dockerfile: Dockerfile) -> Dockerfile:
    """The Dockerfile as it is kept: cut at 1 MiB, which a last line then says."""
    contents = dockerfile.contents.replace("\0", "\N{REPLACEMENT CHARACTER}")
    encoded = contents.encode()
    if len(encoded) > MAX_DOCKERFILE_BYTES:
        cut = encoded[:MAX_DOCKERFILE_BYTES].decode(errors="ignore")
        contents = f"{cut}\n# truncated: this Dockerfile is longer than 1 MiB\n"
    return Dockerfile(
        target=clean_text(dockerfile.target, MAX_NAME_CHARACTERS),
        filename=clean_text(dockerfile.filename, MAX_NAME_CHARACTERS),
        contents=contents,
    )
