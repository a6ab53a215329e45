"""A whole server in process, as `app.py` wires it, and every kind of caller that there is."""

import base64
import contextlib
import functools
import hashlib
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from string import Template
from typing import Any
from unittest import mock

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, insert
from starlette.applications import Starlette

from layover import app as application
from layover import signing_in
from layover.adapters.sql.builds import SqlBuildStore
from layover.adapters.sql.pushes import SqlPushStore
from layover.adapters.sql.schema import (
    builds,
    invitations,
    memberships,
    projects,
    retentions,
    sessions,
    tokens,
    trust_policies,
    users,
)
from layover.builds.models import BuildStatus
from layover.http.pages.cookies import Cookie
from layover.identity.ids import new_secret
from layover.identity.issuer_keys import VerificationKey
from layover.identity.logins import LoginService
from layover.identity.sign_in_models import LoginLimits
from layover.oci.digest import Digest
from layover.oci.names import RepositoryName
from layover.oci.references import Destination
from layover.promotion.models import Push, PushStatus
from layover.settings import BuilderSettings, Settings
from tests.access.wire import Answer, Call, rpc, send
from tests.stores import Stores, image, opened, push_blob, put_manifest

PROJECT, FOREIGN_PROJECT = "mine", "foreign"
ORGANIZATION, FOREIGN_ORGANIZATION = "org", "other-org"
SAVES = RepositoryName(PROJECT)
ISSUER = "https://ci.example"
URL = "http://127.0.0.1:5000"

# What every call may name; see `World.call`.
BUILD, OTHER_BUILD, FOREIGN_BUILD = "bcdefghijk", "cdefghijkl", "fghijklmno"

# A registry that no server may dial, so that none is dialled for a test.
NOWHERE = "169.254.169.254"

_YEAR = timedelta(days=365)


class _Keys:
    """The keys of one issuer, without a network."""

    def __init__(self, *_: object) -> None:
        self.key = Ed25519PrivateKey.generate()

    async def keys(self, issuer: str, key_id: str | None = None) -> tuple[VerificationKey, ...]:
        assert issuer == ISSUER
        return (VerificationKey(None, frozenset({"EdDSA"}), self.key.public_key()),)

    async def close(self) -> None:
        pass


@dataclass
class World:
    """The server, and two organizations on it with a project each."""

    app: Starlette
    stores: Stores
    keys: _Keys
    # Each caller's secret, by its name; nobody has none.
    secrets: dict[str, str | None] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    async def send(self, caller: str, call: Call) -> Answer:
        """One request, with the caller's credentials as its kind of client sends them."""
        return await send(self.app, self.authorized(caller, call))

    def authorized(self, caller: str, call: Call) -> Call:
        secret = self.secrets[caller]
        if secret is None:
            return call
        if caller == "cookie":
            return call.with_header("cookie", f"{Cookie.SESSION}={secret}")
        is_registry = call.path.startswith(("/v2", "/token"))
        if not is_registry or secret.count(".") == 2:
            return call.with_header("authorization", f"Bearer {secret}")
        basic = base64.b64encode(f"x-token:{secret}".encode()).decode()
        return call.with_header("authorization", f"Basic {basic}")

    async def names(self, wanted: str) -> dict[str, str]:
        """What a call's template may name: IDs of things that are there for this call alone."""
        number = next(self._numbers)
        found = {name: value for name, value in self.ids.items() if f"${name}" in wanted}
        now = datetime.now(UTC)
        if "$tag" in wanted:
            found["tag"] = f"tag{number:07}"
            await put_manifest(self.stores, SAVES, image(), found["tag"], now=now)
        if "$unnamed" in wanted:
            body = image(annotations={"number": str(number)})
            found["unnamed"] = str(await put_manifest(self.stores, SAVES, body, now=now))
        if "$blob" in wanted:
            content = f"content {number}".encode()
            found["blob"] = str(await push_blob(self.stores, SAVES, content, now))
        if "$upload" in wanted:
            path = f"/v2/{SAVES}/blobs/uploads/"
            started = await self.send("project", Call("POST", path))
            found["upload"] = started.headers["docker-upload-uuid"]
        if "$ended" in wanted:
            found["ended"] = await self._ended_build(f"ended{number:05}", now)
        if "$policy" in wanted:
            found["policy"] = f"policy{number:04}"
            await self._write(
                lambda connection: add_policy(connection, found["policy"], PROJECT, {}, "pull")
            )
        if "$doomed" in wanted:
            found["doomed"] = f"doomed{number:04}"
            await self._write(lambda connection: add_project(connection, found["doomed"]))
        if "$user" in wanted:
            found["user"] = f"user{number:06}"
            await self._write(lambda connection: add_user(connection, found["user"], "viewer"))
        if "$invitation" in wanted:
            found["invitation"] = f"invite{number:04}"
            await self._write(lambda connection: add_invitation(connection, found["invitation"]))
        if "$token" in wanted:
            found["token"] = f"token{number:05}"
            await self._write(lambda connection: add_token(connection, found["token"]))
        if "$push" in wanted:
            found["push"] = await self._push(f"push{number:06}", now)
        if "$driven" in wanted:
            # What the client is told when it begins, of this very build.
            call = rpc(
                "/depot.cli.v1.PushService/StartPush",
                {"buildId": found["ended"], "tag": f"{NOWHERE}/app:v1"},
            )
            found["driven"] = json.loads((await self.send("project", call)).body)["pushId"]
        if "$fresh" in wanted:
            found["fresh"] = f"fresh{number:05}"
            await self._write(lambda connection: add_build(connection, found["fresh"], PROJECT))
        return found

    async def _ended_build(self, build_id: str, now: datetime) -> str:
        """A build that saved an image and ended."""
        store = self.stores.database
        await store.write(lambda connection: add_build(connection, build_id, PROJECT))
        await put_manifest(self.stores, SAVES, image(), build_id, build_id, now)
        await SqlBuildStore(store).end(build_id, BuildStatus.FINISHED, None, now)
        return build_id

    async def _push(self, push_id: str, now: datetime) -> str:
        """A push that has ended."""
        push = Push(
            id=push_id,
            project_id=PROJECT,
            build_id=OTHER_BUILD,
            target="",
            source=Digest.of(image(OTHER_BUILD.encode())),
            destinations=(Destination.parse(f"{NOWHERE}/app:v1"),),
            created_at=now,
            created_by="a test",
            status=PushStatus.DONE,
            finished_at=now,
        )
        await SqlPushStore(self.stores.database).add(push, 1_000)
        return push_id

    async def _write(self, work: Any) -> None:
        await self.stores.database.write(work)

    def job(self, **claims: Any) -> str:
        """An ID token as a CI system gives one to a job."""
        now = datetime.now(UTC)
        told = {"iss": ISSUER, "sub": "a job", "aud": URL, "iat": now, "exp": now + _YEAR}
        return jwt.encode({**told, **claims}, self.keys.key, "EdDSA")


def missing(names: dict[str, str], kept: frozenset[str]) -> dict[str, str]:
    """As `names`, each as long as it was, of things that never were; but for those `kept`."""
    return {name: value if name in kept else _never(value) for name, value in names.items()}


def _never(value: str) -> str:
    prefix, colon, digits = value.rpartition(":")
    return f"{prefix}{colon}{('0' if colon else 'q') * len(digits)}"


def filled(template: str, names: dict[str, str]) -> str:
    return Template(template).substitute(names)


@contextlib.asynccontextmanager
async def opened_world(folder: Path) -> AsyncIterator[World]:
    """A server on a data folder of its own, with all that the callers of the table need."""
    keys = _Keys()
    settings = Settings(
        data_dir=folder,
        listen="127.0.0.1:5000",
        # Nobody builds; an embedded builder would be started.
        builders=(BuilderSettings(name="none", address="tcp://127.0.0.1:1"),),
        builder_wait=timedelta(0),
        # A build that was heard of now is not silent before the last test.
        build_client_timeout=_YEAR,
        # So many are refused that each would wait.
        failed_logins=1_000_000_000,
    )
    # Every caller starts a login, and all of them are at one address.
    many = functools.partial(LoginService, limits=LoginLimits(pending_per_address=1000))
    with (
        opened(folder) as stores,
        mock.patch.object(application, "HttpIssuerKeys", lambda _: keys),
        mock.patch.object(signing_in, "LoginService", many),
    ):
        async with application.running(settings, {}) as (app, _):
            world = World(app, stores, keys)
            await _fill(world)
            yield world


def add_build(connection: Connection, build_id: str, project_id: str) -> None:
    """A build that runs, and was heard of for a year."""
    now = datetime.now(UTC)
    connection.execute(
        insert(builds).values(
            id=build_id,
            project_id=project_id,
            status="running",
            command="build",
            save=True,
            retention_seconds=_YEAR // timedelta(seconds=1),
            options="[]",
            created_at=now,
            seen_at=now + _YEAR,
            step_count=0,
            log_size_bytes=0,
        )
    )
    connection.execute(
        insert(retentions).values(
            project_id=project_id,
            build_id=build_id,
            created_at=now,
        )
    )


async def _fill(world: World) -> None:
    now = datetime.now(UTC)
    await world.stores.database.write(lambda connection: _add_callers(world, connection, now))
    await world.stores.database.write(_add_policies)
    world.secrets |= {
        "none": None,
        "bad": new_secret(),
        "ci": world.job(role="work"),
        "ci-pull": world.job(role="pull"),
        "f-ci": world.job(role="foreign"),
    }
    for project_id, build_id in (
        (PROJECT, BUILD),
        (PROJECT, OTHER_BUILD),
        (FOREIGN_PROJECT, FOREIGN_BUILD),
    ):
        repository = RepositoryName(project_id)
        for content in (b"{}", build_id.encode()):
            await push_blob(world.stores, repository, content, now, _YEAR)
        body = image(build_id.encode())
        await put_manifest(world.stores, repository, body, build_id, build_id, now)
    own = image(BUILD.encode())
    world.ids |= {
        "organization": ORGANIZATION,
        "project": PROJECT,
        "build": BUILD,
        "other": OTHER_BUILD,
        "manifest": str(Digest.of(own)),
        "layer": str(Digest.of(BUILD.encode())),
    }


def _add_callers(world: World, connection: Connection, now: datetime) -> None:
    for prefix, organization_id, project_id, build_id in (
        ("", ORGANIZATION, PROJECT, BUILD),
        ("f-", FOREIGN_ORGANIZATION, FOREIGN_PROJECT, FOREIGN_BUILD),
    ):
        add_build(connection, build_id, project_id)
        of_project: dict[str, Any] = {
            "organization_id": organization_id,
            "project_id": project_id,
        }
        for role in ("owner", "member", "viewer"):
            user_id = f"{prefix}{role}-id"
            connection.execute(
                insert(users).values(id=user_id, name=user_id, is_admin=False, created_at=now)
            )
            connection.execute(
                insert(memberships).values(
                    user_id=user_id, organization_id=organization_id, role=role, created_at=now
                )
            )
            _add_token(world, connection, f"{prefix}{role}", "user", user_id=user_id)
        _add_token(
            world, connection, f"{prefix}org", "organization", organization_id=organization_id
        )
        _add_token(world, connection, f"{prefix}project", "project", **of_project)
        _add_token(world, connection, f"{prefix}pull", "pull", **of_project)
        _add_token(
            world, connection, f"{prefix}pull-build", "pull", build_id=build_id, **of_project
        )
        _add_token(
            world,
            connection,
            f"{prefix}build",
            "build",
            build_id=build_id,
            tags=f"{project_id}:{build_id}",
            **of_project,
        )
    add_build(connection, OTHER_BUILD, PROJECT)
    here = {"organization_id": ORGANIZATION, "project_id": PROJECT}
    _add_token(world, connection, "pull-other", "pull", build_id=OTHER_BUILD, **here)
    connection.execute(
        insert(users).values(id="admin-id", name="admin-id", is_admin=True, created_at=now)
    )
    _add_token(world, connection, "admin", "user", user_id="admin-id")
    session = world.secrets["cookie"] = new_secret()
    connection.execute(
        insert(sessions).values(
            secret_hash=hashlib.sha256(session.encode()).digest(),
            user_id="owner-id",
            created_at=now,
            expires_at=now + _YEAR,
        )
    )
    past = now - timedelta(hours=1)
    _add_token(world, connection, "expired", "project", expires_at=past, **here)
    _add_token(world, connection, "revoked", "project", revoked_at=past, **here)


def _add_token(world: World, connection: Connection, name: str, kind: str, **values: Any) -> None:
    secret = world.secrets[name] = new_secret()
    connection.execute(
        insert(tokens).values(
            **{
                "id": f"{name}-token",
                "kind": kind,
                "secret_hash": hashlib.sha256(secret.encode()).digest(),
                "description": "a test's",
                "created_at": datetime.now(UTC),
                **values,
            }
        )
    )


def add_project(connection: Connection, project_id: str) -> None:
    """One more project of the organization."""
    connection.execute(
        insert(projects).values(
            id=project_id,
            organization_id=ORGANIZATION,
            name="a test's",
            created_at=datetime.now(UTC),
            retention_seconds=1,
            max_retention_seconds=1,
            extends_on_pull=False,
        )
    )


def add_user(connection: Connection, user_id: str, role: str) -> None:
    """One more member of the organization."""
    now = datetime.now(UTC)
    connection.execute(
        insert(users).values(id=user_id, name=user_id, is_admin=False, created_at=now)
    )
    connection.execute(
        insert(memberships).values(
            user_id=user_id, organization_id=ORGANIZATION, role=role, created_at=now
        )
    )


def add_invitation(connection: Connection, invitation_id: str) -> None:
    """An invitation to the organization."""
    now = datetime.now(UTC)
    connection.execute(
        insert(invitations).values(
            id=invitation_id,
            secret_hash=invitation_id.encode(),
            organization_id=ORGANIZATION,
            role="viewer",
            note="",
            created_by="owner-id",
            created_at=now,
            expires_at=now + _YEAR,
        )
    )


def add_token(connection: Connection, token_id: str) -> None:
    """One more token of the project, which none of the callers made."""
    connection.execute(
        insert(tokens).values(
            id=token_id,
            kind="project",
            secret_hash=token_id.encode(),
            organization_id=ORGANIZATION,
            project_id=PROJECT,
            description="a test's",
            created_at=datetime.now(UTC),
        )
    )


def add_policy(
    connection: Connection, policy_id: str, project_id: str, claims: dict[str, str], grants: str
) -> None:
    """Trust tokens of the issuer with these claims in the project; without any nobody's."""
    connection.execute(
        insert(trust_policies).values(
            id=policy_id,
            project_id=project_id,
            name="a test's",
            provider="generic",
            issuer=ISSUER,
            audience="",
            claims=json.dumps(claims or {"role": "nobody's"}),
            grants=grants,
            created_at=datetime.now(UTC),
        )
    )


def _add_policies(connection: Connection) -> None:
    add_policy(connection, "trusts-work", PROJECT, {"role": "work"}, "project")
    add_policy(connection, "trusts-pull", PROJECT, {"role": "pull"}, "pull")
    add_policy(connection, "trusts-far", FOREIGN_PROJECT, {"role": "foreign"}, "project")
