"""What is collected, and what a collected build leaves."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from layover.errors import LayoverError


class RetentionError(LayoverError):
    """The base of what retention/ raises."""


class BuildNotOver(RetentionError):
    """The build is there: there is no receipt of it yet."""

    def __init__(self, build_id: str) -> None:
        super().__init__(f"build {build_id} is still there: its receipt is made when it is gone")
        self.build_id = build_id


class ReceiptPending(RetentionError):
    """The build is gone, and what it held is being collected."""

    def __init__(self, build_id: str, expected_by: datetime) -> None:
        super().__init__(
            f"build {build_id} is being collected: ask again after {expected_by:%Y-%m-%dT%H:%M:%SZ}"
        )
        self.build_id, self.expected_by = build_id, expected_by


class Kind(StrEnum):
    """What can be collected."""

    BUILD = "build"
    TAG = "tag"
    MANIFEST = "manifest"
    LINK = "link"
    """A blob that a repository shows."""
    BLOB = "blob"
    """A blob's bytes."""


@dataclass(frozen=True, slots=True)
class Removal:
    """What the collector takes away, and why."""

    kind: Kind
    repository: str
    """Empty for a build, and for bytes, which repositories share."""
    reference: str
    """A build's ID, a tag or a digest."""
    size_bytes: int
    """What comes free on the medium: 0 for all but bytes."""
    reason: str
    due_at: datetime
    """Since when it may go."""


@dataclass(frozen=True, slots=True)
class Doomed:
    """Bytes that no row names any more."""

    key: str
    digest: str
    """Empty for what an upload brought that became no blob."""


@dataclass(frozen=True, slots=True)
class ReceiptItem:
    """One manifest or blob of a collected build, and what became of it."""

    digest: str
    kind: str
    """ "manifest" or "blob"."""
    size_bytes: int
    kept_by: str | None
    """What in the same project needs it still; None when it is gone from the project."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a build and of all that it held."""

    build_id: str
    project_id: str
    reason: str
    ended_at: datetime
    items: tuple[ReceiptItem, ...]


@dataclass(frozen=True, slots=True)
class StoredReceipt:
    """A receipt as it is kept: unsigned while the build lives, as a failed one does, and while
    something of it waits for a lease's end."""

    project_id: str
    document: bytes | None
    signature: bytes | None


@dataclass(frozen=True, slots=True)
class SignedReceipt:
    """A receipt that the server signed."""

    document: bytes
    """JSON in UTF-8, its keys sorted, without white space."""
    signature: bytes
    """Ed25519 (RFC 8032) over the document."""
    public_key: bytes
    """32 bytes."""
