"""The referrers of a manifest at a registry that does not list them itself.

A client keeps the list then, as an index that a tag made of the subject's digest names
(distribution-spec v1.1.1, "Pushing Manifests with Subject" and "Referrers Tag Schema").
"""

import json
from typing import Any

from layover.oci.digest import Digest
from layover.oci.manifests import InvalidManifest, parse_manifest
from layover.oci.names import Tag
from layover.oci.references import Place
from layover.promotion.models import RegistryRefused
from layover.promotion.plan import PlannedManifest
from layover.promotion.ports import Registry

_INDEX = "application/vnd.oci.image.index.v1+json"


async def list_referrer(
    registry: Registry, place: Place, subject: Digest, referrer: PlannedManifest
) -> None:
    """Add the referrer to its subject's list there. Raises as the registry does."""
    tag = Tag(f"{subject.algorithm}-{subject.hex}"[:128])
    entries = _entries(place, tag, await registry.read_manifest(place, tag))
    if any(entry.get("digest") == str(referrer.digest) for entry in entries):
        return
    entries.append(_entry(referrer))
    document = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": entries}
    body = json.dumps(document, separators=(",", ":")).encode()
    await registry.put_manifest(place, tag, _INDEX, body)


def _entries(place: Place, tag: Tag, body: bytes | None) -> list[dict[str, Any]]:
    """What is listed by now. Raises RegistryRefused where the tag names no list: it is not ours to
    overwrite."""
    if body is None:
        return []
    try:
        # An index need not say that it is one (image-spec v1.1.1, "Image Index").
        parse_manifest(body, _INDEX)
    except InvalidManifest as error:
        doing, told = f"a referrer's entry in tag {tag}", f"it names no list of referrers: {error}"
        raise RegistryRefused(place, doing, 200, told) from error
    return list(json.loads(body).get("manifests", ()))


def _entry(referrer: PlannedManifest) -> dict[str, Any]:
    manifest = parse_manifest(referrer.body, referrer.media_type)
    entry: dict[str, Any] = {
        "mediaType": referrer.media_type,
        "digest": str(referrer.digest),
        "size": len(referrer.body),
    }
    if manifest.artifact_type is not None:
        entry["artifactType"] = manifest.artifact_type
    if manifest.annotations:
        entry["annotations"] = dict(manifest.annotations)
    return entry
