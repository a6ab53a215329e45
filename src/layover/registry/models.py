"""What the registry keeps, and why it refuses."""

from dataclasses import dataclass
from datetime import datetime

from layover.errors import LayoverError
from layover.oci.digest import Digest
from layover.oci.manifests import Descriptor
from layover.oci.names import Reference, RepositoryName, Tag
from layover.units import about


class RegistryError(LayoverError):
    """Why the registry refused a request."""


class BlobUnknown(RegistryError):
    """The repository shows no blob with this digest."""

    def __init__(self, repository: RepositoryName, digest: Digest) -> None:
        super().__init__(f"no blob {digest} in {repository}")
        self.repository, self.digest = repository, digest


class BlobInUse(RegistryError):
    """A manifest of the repository needs the blob."""

    def __init__(self, digest: Digest, manifest: str) -> None:
        super().__init__(f"manifest {manifest} needs {digest}: delete the manifest first")
        self.digest, self.manifest = digest, manifest


class ManifestUnknown(RegistryError):
    """The repository holds no manifest with this tag or digest."""

    def __init__(
        self, repository: RepositoryName, reference: Reference, gone: "Gone | None" = None
    ) -> None:
        super().__init__(
            f"no manifest {reference} in {repository}" + (f": it {gone}" if gone else "")
        )
        self.repository, self.reference, self.gone = repository, reference, gone


class ManifestInUse(RegistryError):
    """An index of the repository needs the manifest."""

    def __init__(self, digest: Digest, index: str) -> None:
        super().__init__(f"index {index} needs {digest}: delete the index first")
        self.digest, self.index = digest, index


class ManifestBlobUnknown(RegistryError):
    """A pushed manifest refers to content that its repository does not hold."""

    def __init__(self, repository: RepositoryName, missing: tuple[Digest, ...]) -> None:
        super().__init__(
            f"{repository} holds no {', '.join(map(str, missing[:10]))}: push what a manifest"
            " refers to before the manifest"
        )
        self.repository, self.missing = repository, missing


class ManifestTooLarge(RegistryError):
    """A pushed manifest is over the limit."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"the manifest is larger than {limit_bytes} bytes")
        self.limit_bytes = limit_bytes


class DigestMismatch(RegistryError):
    """The content has another digest than the one it was sent under."""

    def __init__(self, expected: Digest, actual: Digest) -> None:
        super().__init__(f"the content's digest is {actual}, not {expected}: send it again")
        self.expected, self.actual = expected, actual


def named_build(tag: str) -> str:
    """The ID of the build whose own tag it is, its ID or its ID and a target, if there is such a
    build: nobody else's, ever."""
    return tag.partition("-")[0]


class TagProtected(RegistryError):
    """The tag is a build's ID, under which nobody but the build saves an image."""

    def __init__(self, tag: Tag, build_id: str) -> None:
        super().__init__(f"tag {tag} is build {build_id}'s own and cannot be changed")
        self.tag, self.build_id = tag, build_id


class BuildOver(RegistryError):
    """A build's token pushes, and the build has ended or was deleted since it was let in."""

    def __init__(self, build_id: str) -> None:
        super().__init__(f"build {build_id} has ended: nothing more is saved under it")
        self.build_id = build_id


class UploadUnknown(RegistryError):
    """No such upload session in this repository: it ended, expired, or never was."""

    def __init__(self, upload_id: str) -> None:
        super().__init__(f"unknown upload {upload_id[:64]!r}: start a new one")
        self.upload_id = upload_id


class UploadBusy(RegistryError):
    """Another request is writing to the upload session."""

    def __init__(self, upload_id: str) -> None:
        super().__init__(f"another request is writing to upload {upload_id}")
        self.upload_id = upload_id


class UploadOutOfOrder(RegistryError):
    """A chunk does not start where the upload session ends."""

    def __init__(self, upload_id: str, size_bytes: int) -> None:
        super().__init__(f"the next chunk has to start at byte {size_bytes}")
        self.upload_id, self.size_bytes = upload_id, size_bytes


class UploadTruncated(RegistryError):
    """The request ended before the bytes that it announced."""

    def __init__(self) -> None:
        super().__init__("the request ended before its content did: send it again")


class QuotaExceeded(RegistryError):
    """What a client brings does not fit into what its project may take."""

    def __init__(self, project_id: str, used_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"it does not fit into the quota of project {project_id}:"
            f" {about(used_bytes)} of {about(limit_bytes)} are taken, uploads under way"
            " included. See `layover list builds`, delete what is not needed by `layover builds"
            " rm ID`, what docker pushed by `skopeo delete`, and push again"
        )
        self.project_id, self.used_bytes, self.limit_bytes = project_id, used_bytes, limit_bytes


@dataclass(frozen=True, slots=True)
class StoredObject:
    """Bytes that the blob store holds, whoever names them."""

    key: str
    size_bytes: int
    modified_at: datetime


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of an upload's bytes, by the key under which the blob store holds it."""

    key: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload session: bytes on their way to become a blob."""

    id: str
    repository: RepositoryName
    expires_at: datetime
    parts: tuple[Part, ...] = ()
    """What has been received and acknowledged, in order."""
    digest: Digest | None = None
    """The digest of those bytes, where they were hashed on their way."""
    places: frozenset[str] = frozenset()
    """The keys that its requests were let write to, parts or not."""
    is_limited: bool = False
    """Whether its project has a quota, so that what comes is reserved before."""

    @property
    def size_bytes(self) -> int:
        """How much has been received and acknowledged."""
        return sum(part.size_bytes for part in self.parts)


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A blob that a repository shows, and where the blob store has its bytes."""

    digest: Digest
    size_bytes: int
    key: str


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest as it was pushed."""

    digest: Digest
    media_type: str
    body: bytes
    expires_at: datetime | None = None
    """When it is gone, as far as is known; None while the build that saves it runs."""


@dataclass(frozen=True, slots=True)
class Gone:
    """What was there and is not any more."""

    is_deleted: bool
    """Whether somebody deleted it; its time was over otherwise."""
    at: datetime

    def __str__(self) -> str:
        return f"{'was deleted' if self.is_deleted else 'expired'} at {self.at:%Y-%m-%dT%H:%M:%SZ}"


@dataclass(frozen=True, slots=True)
class Referrer:
    """A manifest whose subject is another one (distribution-spec v1.1.1, "Listing Referrers")."""

    descriptor: Descriptor
    artifact_type: str | None


@dataclass(frozen=True, slots=True)
class ReferrerPage:
    """A page of a manifest's referrers, by digest."""

    referrers: tuple[Referrer, ...]
    has_more: bool


@dataclass(frozen=True, slots=True)
class RepositoryPage:
    """A page of the repositories that a caller may see, in lexical order."""

    repositories: tuple[RepositoryName, ...]
    has_more: bool


@dataclass(frozen=True, slots=True)
class TagPage:
    """A page of a repository's tags, in lexical order."""

    tags: tuple[Tag, ...]
    has_more: bool
