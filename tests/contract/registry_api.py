"""The registry's HTTP surface over a test's stores, by a clock that the test moves."""

import asyncio
import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.types import Message

from layover.adapters.sql.audit_places import SqlAuditPlaces
from layover.adapters.sql.builds import SqlBuildStore
from layover.audit.log import AuditLog
from layover.http.middleware import surrounded
from layover.http.oci.routes import oci_routes
from layover.http.origin import TrustedProxies
from layover.identity.ids import new_secret
from layover.identity.models import NewToken, Principal, TokenKind
from layover.identity.registry_tokens import KEY_BYTES, RegistryTokens
from layover.identity.service import IdentityService
from layover.identity.throttle import Limits, LoginThrottle
from layover.registry.blobs import BlobService
from layover.registry.manifests import ManifestService
from layover.registry.uploads import UploadService
from tests.stores import LEASE, NOW, Stores

USER = Principal("user-token", TokenKind.ORGANIZATION, "org")
PROJECT = Principal("project-token", TokenKind.PROJECT, "org", project_id="mine")
PULLER = Principal("pull-token", TokenKind.PULL, "org", project_id="mine")
FOREIGNER = Principal("foreign-token", TokenKind.ORGANIZATION, "other-org")


def builder(build_id: str) -> Principal:
    """A running build's token, which may write the build's ID and the tag `saved`."""
    return Principal(
        f"token-of-{build_id}",
        TokenKind.BUILD,
        "org",
        project_id="mine",
        build_id=build_id,
        tags=frozenset({f"mine:{build_id}", "mine:saved"}),
    )


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The specification's code of an error."""
        (error,) = self.json()["errors"]
        assert set(error) == {"code", "message", "detail"}
        assert self.headers["content-type"] == "application/json"
        return str(error["code"])

    @property
    def detail(self) -> Any:
        return self.json()["errors"][0]["detail"]


@dataclass
class RegistryApi:
    """What clients see of the registry, in process."""

    stores: Stores
    now: datetime = NOW
    secrets: dict[str, str] = field(default_factory=dict)
    throttle: LoginThrottle = field(default_factory=lambda: LoginThrottle(Limits(failures=10_000)))

    def __post_init__(self) -> None:
        def clock() -> datetime:
            return self.now

        stores = self.stores
        self.builds = SqlBuildStore(stores.database)
        self.identity = IdentityService(stores.identity, clock)
        self.uploads = UploadService(stores.uploads, stores.blobs, clock, timedelta(days=1), LEASE)
        places = SqlAuditPlaces(stores.database)
        self.audit = AuditLog(stores.audit, places, self.identity, clock)
        self.app = Starlette(
            routes=list(
                oci_routes(
                    self.identity,
                    RegistryTokens(b"k" * KEY_BYTES, clock),
                    self.throttle,
                    self.audit,
                    BlobService(stores.registry, stores.blobs, clock, LEASE),
                    self.uploads,
                    ManifestService(stores.registry, clock, LEASE),
                    "http://registry.example",
                )
            )
        )
        self.app.router.redirect_slashes = False
        self.app.add_middleware(partial(surrounded, proxies=TrustedProxies(), https=False))

    def pass_by(self, time: timedelta) -> None:
        self.now += time

    async def token(self, principal: Principal, until: datetime | None = None) -> str:
        """A secret that stands for `principal`."""
        secret = self.secrets.get(principal.token_id)
        if secret is None:
            secret = self.secrets[principal.token_id] = new_secret()
            hashed = hashlib.sha256(secret.encode()).digest()
            await self.stores.identity.add_token(
                NewToken(principal, hashed, "a test's", self.now, until)
            )
        return secret

    async def registry_token(self, principal: Principal, *scopes: str) -> str:
        """What /token trades the principal's own for."""
        query = "&".join(f"scope={scope}" for scope in scopes)
        return str((await self.call(principal, "GET", f"/token?{query}")).json()["token"])

    async def policy(self, **changes: Any) -> None:
        """Change the policy of the project `mine`."""
        await self.stores.identity.change_policy("mine", lambda policy: replace(policy, **changes))

    async def call(
        self,
        caller: Principal | str | None,
        method: str,
        url: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request; `caller` is who, a registry token, or nobody."""
        fields = {name.lower(): value for name, value in (headers or {}).items()}
        if isinstance(caller, Principal):
            credentials = base64.b64encode(f"x-token:{await self.token(caller)}".encode()).decode()
            fields["authorization"] = f"Basic {credentials}"
        elif caller is not None:
            fields["authorization"] = f"Bearer {caller}"
        parts = urlsplit(url)
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": parts.path,
            "raw_path": parts.path.encode(),
            "query_string": parts.query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in fields.items()],
            "client": ("127.0.0.1", 1),
            "server": ("registry.example", 80),
        }
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        sent: list[Message] = []

        async def receive() -> Message:
            if not messages:
                # It waits for its answer.
                await asyncio.Event().wait()
            return messages.pop()

        async def send(message: Message) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        start, *rest = sent
        return Answer(
            start["status"],
            {name.decode().lower(): value.decode() for name, value in start["headers"]},
            b"".join(message.get("body", b"") for message in rest),
        )
