"""What the soak pushes: bytes that a name makes again, and the manifests that name them."""

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
SIGNATURE_TYPE = "application/vnd.example.signature"


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes that are made when they are needed: a run names more than memory holds."""

    name: str
    size_bytes: int
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", digest_of(self.content()))

    def content(self) -> bytes:
        return random.Random(self.name).randbytes(self.size_bytes)

    def descriptor(self, media_type: str) -> dict[str, Any]:
        return {"mediaType": media_type, "digest": self.digest, "size": self.size_bytes}


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest or an index, and what it refers to."""

    body: bytes
    media_type: str
    blobs: tuple[Blob, ...] = ()
    children: tuple["Manifest", ...] = ()
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", digest_of(self.body))

    def descriptor(self) -> dict[str, Any]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.body)}


def image(config: Blob, layers: Sequence[Blob], subject: Manifest | None = None) -> Manifest:
    """An image; with a `subject`, a signature of it."""
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config.descriptor(CONFIG_TYPE),
        "layers": [layer.descriptor(LAYER_TYPE) for layer in layers],
    }
    if subject is not None:
        document["artifactType"] = SIGNATURE_TYPE
        document["subject"] = subject.descriptor()
    return Manifest(json.dumps(document).encode(), OCI_MANIFEST, (config, *layers))


def index(children: Sequence[Manifest]) -> Manifest:
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [child.descriptor() for child in children],
    }
    return Manifest(json.dumps(document).encode(), OCI_INDEX, children=tuple(children))
