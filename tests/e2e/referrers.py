"""What refers to a build's image, as a signature or an SBOM does."""

import json

from tests.e2e.registry import OCI_MANIFEST, Registry, basic, descriptor, digest_of
from tests.e2e.server import LayoverServer, SavedBuild


def push_referrer(server: LayoverServer, subject: SavedBuild) -> str:
    """Push a signature of the build's image; return its digest."""
    response = server.manifest(subject.id)
    registry = Registry(server, server.project_id, basic(server.token))
    registry.push_blob(b"{}")
    registry.push_blob(signature := f"signature of {subject.id}".encode())
    body = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": "application/vnd.example.signature",
            "config": descriptor("application/vnd.oci.empty.v1+json", b"{}"),
            "layers": [descriptor("application/octet-stream", signature)],
            "subject": {
                "mediaType": response.headers["Content-Type"],
                "digest": response.headers["Docker-Content-Digest"],
                "size": len(response.body),
            },
        }
    ).encode()
    digest = digest_of(body)
    pushed = registry.push_manifest(digest, body)
    assert pushed.status == 201, pushed
    return digest


def referrers_of(server: LayoverServer, digest: str) -> list[str]:
    response = server.request("GET", f"/v2/{server.project_id}/referrers/{digest}")
    return [found["digest"] for found in response.json().get("manifests", ())]
