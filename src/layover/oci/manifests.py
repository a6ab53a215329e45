"""What a manifest's bytes say: image manifests and indexes, OCI's and Docker schema 2's.

A manifest is the bytes that a client pushed, served untouched; what is parsed here stands
beside them (image-spec v1.1.1, "Image Manifest" and "Image Index").
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from layover.errors import LayoverError
from layover.oci.digest import Digest, InvalidDigest

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_MANIFEST_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"

IMAGE_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_MANIFEST_LIST})
MANIFEST_TYPES = IMAGE_TYPES | INDEX_TYPES

# Layers of these types may stay at their own addresses and need not be pushed
# (image-spec v1.1.1, "Non-Distributable Layers"; Docker's foreign layers).
_FOREIGN = (
    "application/vnd.oci.image.layer.nondistributable.",
    "application/vnd.docker.image.rootfs.foreign.",
)

# Far more than any image has; each is a row in the database.
_MAX_DESCRIPTORS = 10_000


class InvalidManifest(LayoverError):
    """The bytes are not a manifest of the type they claim."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"invalid manifest: {reason}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A typed reference to content (image-spec v1.1.1, "Content Descriptors")."""

    media_type: str
    digest: Digest
    size_bytes: int
    platform: str | None = None
    annotations: tuple[tuple[str, str], ...] = ()

    @property
    def is_foreign(self) -> bool:
        """Whether the content may stay elsewhere, at the addresses its descriptor names."""
        return self.media_type.startswith(_FOREIGN)

    @property
    def is_attestation(self) -> bool:
        """Whether this is BuildKit's attestation manifest rather than an image."""
        return dict(self.annotations).get("vnd.docker.reference.type") == "attestation-manifest"


@dataclass(frozen=True, slots=True)
class Manifest:
    """The parsed facts of a manifest or an index."""

    media_type: str
    blobs: tuple[Descriptor, ...]
    """Of an image: its config, then its layers."""
    manifests: tuple[Descriptor, ...]
    """Of an index: its children."""
    subject: Descriptor | None
    artifact_type: str | None
    annotations: tuple[tuple[str, str], ...]

    @property
    def needed_blobs(self) -> tuple[Descriptor, ...]:
        """Those that have to be where the manifest is: not the layers that may stay elsewhere."""
        return self.blobs[:1] + tuple(blob for blob in self.blobs[1:] if not blob.is_foreign)

    @property
    def config(self) -> Descriptor | None:
        return self.blobs[0] if self.blobs else None


def parse_manifest(body: bytes, content_type: str | None) -> Manifest:
    """Read a manifest pushed with `content_type`, None where the client sent none.

    Raises InvalidManifest where the JSON, its types, or the type that it claims are wrong.
    """
    document = _load(body)
    media_type = _media_type(document, content_type)
    subject = document.get("subject")
    artifact_type = _text(document, "artifactType")
    if media_type in INDEX_TYPES:
        if "layers" in document or "config" in document:
            raise InvalidManifest("an index has no layers and no config")
        blobs: tuple[Descriptor, ...] = ()
        manifests = tuple(_descriptors(document, "manifests"))
    else:
        if "manifests" in document:
            raise InvalidManifest("an image manifest has no manifests")
        config = _descriptor(document.get("config"), "config")
        blobs = (config, *_descriptors(document, "layers"))
        manifests = ()
        # image-spec v1.1.1, "Image Manifest": the artifact type falls back to the config's type.
        artifact_type = artifact_type or config.media_type
    return Manifest(
        media_type=media_type,
        blobs=blobs,
        manifests=manifests,
        subject=_descriptor(subject, "subject") if subject is not None else None,
        artifact_type=artifact_type,
        annotations=_annotations(document, "annotations"),
    )


def _load(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(
            # Decoded here: json itself would take UTF-16 and UTF-32 too, which clients do not.
            body.decode(),
            object_pairs_hook=_unambiguous,
            parse_constant=_refuse_constant,
        )
        if b"\\u" in body:
            # Half of a surrogate pair is text to json, and to nobody else.
            json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise InvalidManifest(f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidManifest("expected a JSON object")
    version = document.get("schemaVersion")
    if type(version) is not int or version != 2:
        raise InvalidManifest("schemaVersion has to be 2; Docker schema 1 is not supported")
    return document


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names are unique: readers disagree on which one of a repeated name counts."""
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a name is repeated in an object")
    return value


def _refuse_constant(name: str) -> Any:
    """Python reads NaN and Infinity, which are not JSON (RFC 8259, section 6)."""
    raise ValueError(f"{name} is no number")


def _media_type(document: dict[str, Any], content_type: str | None) -> str:
    """The type on which header and body agree (distribution-spec v1.1.1, "Pushing Manifests")."""
    declared = _text(document, "mediaType")
    header = content_type.split(";", 1)[0].strip().lower() if content_type else None
    if header and declared and header != declared:
        raise InvalidManifest(f"Content-Type is {header!r} but mediaType is {declared!r}")
    media_type = header or declared
    if media_type is None:
        raise InvalidManifest("neither a Content-Type header nor a mediaType")
    if media_type not in MANIFEST_TYPES:
        raise InvalidManifest(
            f"unsupported type {media_type[:150]!r}:"
            f" expected one of {', '.join(sorted(MANIFEST_TYPES))}"
        )
    return media_type


def _descriptors(document: dict[str, Any], field: str) -> Iterator[Descriptor]:
    if field not in document:
        raise InvalidManifest(f"{field} is missing")
    values = document[field]
    if values is None:
        # An empty list as Go writes it, where nobody made it a list.
        return
    if not isinstance(values, list):
        raise InvalidManifest(f"{field} has to be a list")
    if len(values) > _MAX_DESCRIPTORS:
        raise InvalidManifest(f"{field} has more than {_MAX_DESCRIPTORS} entries")
    for index, value in enumerate(values):
        yield _descriptor(value, f"{field}[{index}]")


def _descriptor(value: object, where: str) -> Descriptor:
    if not isinstance(value, dict):
        raise InvalidManifest(f"{where} has to be a descriptor")
    media_type = _text(value, "mediaType", where)
    if not media_type:
        raise InvalidManifest(f"{where} has no mediaType")
    size = value.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 2**63:
        raise InvalidManifest(f"{where}.size has to be a number of bytes")
    try:
        digest = Digest.parse(_text(value, "digest", where) or "")
    except InvalidDigest as error:
        raise InvalidManifest(f"{where}: {error}") from error
    return Descriptor(
        media_type=media_type,
        digest=digest,
        size_bytes=size,
        platform=_platform(value.get("platform"), where),
        annotations=_annotations(value, where),
    )


def _platform(value: object, where: str) -> str | None:
    """`os/architecture[/variant]`, the text that Docker's --platform takes."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise InvalidManifest(f"{where}.platform has to be an object")
    parts = (_text(value, key, f"{where}.platform") for key in ("os", "architecture", "variant"))
    return "/".join(part for part in parts if part)


def _annotations(value: dict[str, Any], where: str) -> tuple[tuple[str, str], ...]:
    annotations = value.get("annotations")
    if annotations is None:
        return ()
    if not isinstance(annotations, dict) or not all(
        isinstance(v, str) for v in annotations.values()
    ):
        raise InvalidManifest(f"{where}: annotations have to map text to text")
    return tuple(annotations.items())


def _text(value: dict[str, Any], key: str, where: str = "") -> str | None:
    text = value.get(key)
    if text is not None and (not isinstance(text, str) or "\0" in text):
        raise InvalidManifest(f"{where}{'.' if where else ''}{key} has to be text")
    return text
