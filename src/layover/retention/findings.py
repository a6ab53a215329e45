"""What a verification finds, and what is to be done about it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class FindingKind(StrEnum):
    """What can be wrong."""

    DATABASE_DAMAGED = "database-damaged"
    ROW_DANGLING = "row-dangling"
    BLOB_MISSING = "blob-missing"
    BLOB_DAMAGED = "blob-damaged"
    BLOB_UNREADABLE = "blob-unreadable"
    BLOB_SIZE = "blob-size"
    BLOB_QUARANTINED = "blob-quarantined"
    BLOB_LOST = "blob-lost"
    BLOB_UNLINKED = "blob-unlinked"
    LINK_MISSING = "link-missing"
    LINK_FORGOTTEN = "link-forgotten"
    MANIFEST_DAMAGED = "manifest-damaged"
    MANIFEST_MISREAD = "manifest-misread"
    MANIFEST_LOST = "manifest-lost"
    MANIFEST_FORGOTTEN = "manifest-forgotten"
    REFERENCE_STRAY = "reference-stray"
    RETAINED_INCOMPLETELY = "retained-incompletely"
    TAG_LOST = "tag-lost"
    TAG_STRAY = "tag-stray"
    RETENTION_UNFOUNDED = "retention-unfounded"
    RETENTION_ENDLESS = "retention-endless"
    BUILD_UNRETAINED = "build-unretained"
    OBJECT_ORPHANED = "object-orphaned"
    UPLOAD_INCOMPLETE = "upload-incomplete"
    COLLECTION_LATE = "collection-late"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, where, and what a repair does about it."""

    kind: FindingKind
    reference: str
    """The digest, tag, build's ID or key that it is about."""
    problem: str
    repair: str
    """What a repair would do, or did."""
    project_id: str = ""
    repository: str = ""
    builds: tuple[str, ...] = ()
    """The builds that it affects, as far as they live."""
    is_repaired: bool = False


@dataclass(frozen=True, slots=True)
class BlobRow:
    """A blob as the database has it."""

    digest: str
    size_bytes: int
    key: str
    is_quarantined: bool


@dataclass(frozen=True, slots=True)
class Use:
    """Where a blob is needed."""

    project_id: str
    repository: str
    builds: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UploadRow:
    """An upload session as the database has it."""

    id: str
    project_id: str
    repository: str
    parts: tuple[tuple[str, int], ...]
    """What has been acknowledged, by its key and how many bytes it has."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a verification is; bytes are those of blobs."""

    stage: str
    done_bytes: int = 0
    total_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Verification:
    """What was looked at, in numbers, and what was found."""

    counts: Mapping[str, int]
    findings: tuple[Finding, ...]

    @property
    def is_well(self) -> bool:
        """Whether nothing is wrong, or nothing any more."""
        return all(finding.is_repaired for finding in self.findings)
