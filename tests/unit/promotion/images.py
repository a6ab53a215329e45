"""Images in a MemoryPushSource."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from layover.oci.digest import Digest
from layover.oci.manifests import OCI_INDEX, OCI_MANIFEST
from layover.oci.names import RepositoryName
from tests.unit.promotion.memory import MemoryPushSource


@dataclass(frozen=True)
class Image:
    digest: Digest
    body: bytes
    blobs: tuple[Digest, ...]
    """Those that are there."""


class Images:
    """Puts images into one repository of a source."""

    def __init__(self, source: MemoryPushSource, repository: RepositoryName) -> None:
        self.source, self._repository = source, repository

    def image(
        self, name: str, layers: int = 1, *, foreign: bool = False, subject: Digest | None = None
    ) -> Image:
        """An image whose layers are those of every other image, as far as it has as many."""
        contents = [f"config of {name}".encode(), *(f"layer {at}".encode() for at in range(layers))]
        blobs = tuple(self.source.add_blob(self._repository, content) for content in contents)
        described = [
            _descriptor("application/octet-stream", digest, len(content))
            for digest, content in zip(blobs, contents, strict=True)
        ]
        if foreign:
            elsewhere = Digest.of(b"elsewhere")
            kind = "application/vnd.oci.image.layer.nondistributable.v1.tar"
            described.append(_descriptor(kind, elsewhere, 9))
        document: dict[str, object] = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": described[0],
            "layers": described[1:],
        }
        if subject is not None:
            document["subject"] = _descriptor(OCI_MANIFEST, subject, 100)
        body = json.dumps(document).encode()
        digest = self.source.add_manifest(self._repository, body, OCI_MANIFEST, subject)
        return Image(digest, body, blobs)

    def referrer(self, name: str, subject: Digest) -> Image:
        return self.image(name, subject=subject)

    def index(
        self, images: Mapping[str, Image], attested: Mapping[Image, Image] | None = None
    ) -> Digest:
        """An index of images by platform, and of attestations with what each is of."""
        children = []
        for platform, image in images.items():
            system, architecture, *variant = platform.split("/")
            child = _descriptor(OCI_MANIFEST, image.digest, len(image.body))
            child["platform"] = {"os": system, "architecture": architecture} | (
                {"variant": variant[0]} if variant else {}
            )
            children.append(child)
        for proof, of in (attested or {}).items():
            child = _descriptor(OCI_MANIFEST, proof.digest, len(proof.body))
            child["platform"] = {"os": "unknown", "architecture": "unknown"}
            child["annotations"] = {
                "vnd.docker.reference.type": "attestation-manifest",
                "vnd.docker.reference.digest": str(of.digest),
            }
            children.append(child)
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}
        return self.source.add_manifest(self._repository, json.dumps(document).encode(), OCI_INDEX)


def _descriptor(media_type: str, digest: Digest, size: int) -> dict[str, object]:
    return {"mediaType": media_type, "digest": str(digest), "size": size}
