"""The distribution specification as a client speaks it, a request at a time."""

import base64
import hashlib
import http.client
import json
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import insert

from layover.adapters.sql.database import insert_or_ignore
from layover.adapters.sql.schema import (
    builds,
    memberships,
    organizations,
    projects,
    retentions,
    tokens,
    users,
)
from tests.e2e.server import LayoverServer, Response

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"

_RETENTION_SECONDS = 7 * 24 * 60 * 60

Headers = Mapping[str, str]


def digest_of(content: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def descriptor(media_type: str, content: bytes, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content), **more}


def image(*layers: bytes, **more: Any) -> bytes:
    """An image manifest of these layers and the config `{}`."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(CONFIG_TYPE, b"{}"),
        "layers": [descriptor(LAYER_TYPE, layer) for layer in layers],
    }
    return json.dumps({**document, **more}).encode()


def index(*manifests: bytes, **more: Any) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [descriptor(OCI_MANIFEST, manifest) for manifest in manifests],
    }
    return json.dumps({**document, **more}).encode()


def basic(token: str, user: str = "x-token") -> Headers:
    credentials = base64.b64encode(f"{user}:{token}".encode()).decode()
    return {"Authorization": f"Basic {credentials}"}


def bearer(token: str) -> Headers:
    return {"Authorization": f"Bearer {token}"}


class Registry:
    """One repository of a server, as a caller with these credentials sees it."""

    def __init__(self, server: LayoverServer, repository: str, credentials: Headers) -> None:
        self.server, self.repository, self.credentials = server, repository, credentials

    def as_(self, credentials: Headers) -> "Registry":
        return Registry(self.server, self.repository, credentials)

    def at(self, repository: str) -> "Registry":
        return Registry(self.server, repository, self.credentials)

    def __call__(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Headers | None = None,
    ) -> Response:
        """Send one request; a `path` without a slash in front is one of the repository."""
        if not path.startswith("/"):
            path = f"/v2/{self.repository}/{path}"
        return self.server.request(
            method,
            path,
            body=body,
            headers={**self.credentials, **(headers or {})},
            authenticate=False,
        )

    def start(self) -> str:
        """Open an upload session; return its path."""
        started = self("POST", "blobs/uploads/")
        assert started.status == 202, started
        return location(started)

    def push_blob(self, content: bytes, algorithm: str = "sha256") -> str:
        digest = digest_of(content, algorithm)
        pushed = self("POST", f"blobs/uploads/?digest={digest}", content)
        assert pushed.status == 201, pushed
        return digest

    def push_manifest(self, reference: str, body: bytes, **headers: str) -> Response:
        media_type = json.loads(body)["mediaType"]
        return self("PUT", f"manifests/{reference}", body, {"Content-Type": media_type, **headers})

    def push_image(self, tag: str, *layers: bytes) -> bytes:
        """Push an image whole; return its manifest."""
        for content in (b"{}", *layers):
            self.push_blob(content)
        body = image(*layers)
        pushed = self.push_manifest(tag, body)
        assert pushed.status == 201, pushed
        return body


def begin_chunked(registry: Registry, method: str, path: str) -> http.client.HTTPConnection:
    """Send a request up to its body, whose length is not said; chunks are the caller's to frame."""
    connection = registry.server.connect()
    connection.putrequest(method, path)
    for name, value in {**registry.credentials, "Transfer-Encoding": "chunked"}.items():
        connection.putheader(name, value)
    connection.endheaders()
    return connection


def location(response: Response) -> str:
    """The path, with its query, that a response leads to."""
    parts = urlsplit(response.headers["Location"])
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def code(response: Response) -> str:
    """The error's code, of a response in the specification's error form."""
    assert response.headers["Content-Type"] == "application/json", response
    (error,) = response.json()["errors"]
    assert set(error) == {"code", "message", "detail"}
    assert error["message"]
    return str(error["code"])


def raw(server: LayoverServer, *parts: bytes, timeout: float = 10) -> bytes:
    """Send bytes as they are and return all that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=timeout) as connection:
        for part in parts:
            try:
                connection.sendall(part)
            except (BrokenPipeError, ConnectionResetError):
                break
        answer = b""
        try:
            while piece := connection.recv(65536):
                answer += piece
        except ConnectionResetError:
            pass
        return answer


@dataclass(frozen=True)
class Tenant:
    """A project beside the first one, with tokens of every kind."""

    project_id: str
    user: str
    project: str
    pull: str
    build: str
    build_id: str


def add_tenant(
    server: LayoverServer, name: str, organization_id: str | None = None, tags: Sequence[str] = ()
) -> Tenant:
    """Make a project, in an organization of its own unless one is given, behind the server's back.

    Nothing on the wire makes projects yet; the server reads what another process wrote.
    """
    now = datetime.now(UTC)
    created_at, expires_at = now - timedelta(minutes=1), now + timedelta(hours=1)
    tenant = Tenant(
        project_id=name,
        user=f"layover_user_{name}",
        project=f"layover_project_{name}",
        pull=f"layover_pull_{name}",
        build=f"layover_build_{name}",
        build_id=f"build{name}",
    )
    organization = organization_id or f"organization-{name}"
    bindings: dict[str, dict[str, str]] = {
        "user": {"user_id": f"user-{name}"},
        "project": {"project_id": name},
        "pull": {"project_id": name},
        "build": {
            "project_id": name,
            "build_id": tenant.build_id,
            "tags": " ".join([f"{name}:{tenant.build_id}", *tags]),
        },
    }
    with server.transaction() as connection:
        insert_or_ignore(
            connection,
            organizations,
            id=organization,
            name=organization,
            created_at=created_at,
        )
        connection.execute(
            insert(projects).values(
                id=name,
                organization_id=organization,
                name=name,
                created_at=created_at,
                retention_seconds=_RETENTION_SECONDS,
                max_retention_seconds=_RETENTION_SECONDS,
                extends_on_pull=False,
            )
        )
        # Heard of until its token ends, so that it lives as long.
        connection.execute(
            insert(builds).values(
                id=tenant.build_id,
                project_id=name,
                status="running",
                command="build",
                save=True,
                retention_seconds=_RETENTION_SECONDS,
                options="[]",
                created_at=created_at,
                seen_at=expires_at,
                step_count=0,
                log_size_bytes=0,
            )
        )
        connection.execute(
            insert(retentions).values(
                project_id=name, build_id=tenant.build_id, created_at=created_at
            )
        )
        connection.execute(
            insert(users).values(
                id=f"user-{name}", name=f"user-{name}", is_admin=False, created_at=created_at
            )
        )
        connection.execute(
            insert(memberships).values(
                user_id=f"user-{name}",
                organization_id=organization,
                role="owner",
                created_at=created_at,
            )
        )
        for kind, bound in bindings.items():
            secret: str = getattr(tenant, kind)
            connection.execute(
                insert(tokens).values(
                    id=f"{kind}-{name}",
                    kind=kind,
                    secret_hash=hashlib.sha256(secret.encode()).digest(),
                    organization_id=None if kind == "user" else organization,
                    description="",
                    created_at=created_at,
                    expires_at=expires_at,
                    **bound,
                )
            )
    return tenant


def keep_alive(server: LayoverServer) -> http.client.HTTPConnection:
    """A connection for several requests."""
    return http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
