import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from layover.adapters.sql.database import Database
from layover.adapters.sql.identity import SqlIdentityStore
from layover.adapters.sql.migrate import migrate
from layover.identity.access import Action
from layover.identity.ids import new_id, new_secret
from layover.identity.models import (
    ActionDenied,
    FirstTenant,
    NewToken,
    Principal,
    Project,
    ProjectUnknown,
    Role,
    TokenKind,
    Unauthenticated,
)
from layover.identity.service import (
    BUILD_TOKEN_LIFETIME,
    PULL_TOKEN_LIFETIME,
    IdentityService,
)
from tests.stores import NOW, opened
from tests.unit.identity.clock import Clock

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def identity(tmp_path: Path, clock: Clock) -> Iterator[IdentityService]:
    with opened(tmp_path) as stores:
        asyncio.run(stores.identity.add_token(NewToken(CREATOR, b"", "", NOW, expires_at=None)))
        yield IdentityService(stores.identity, clock)


@pytest.fixture
def empty(tmp_path: Path, clock: Clock) -> Iterator[IdentityService]:
    """On a database without an organization."""
    database = Database(f"sqlite:///{tmp_path / 'empty.db'}")
    migrate(database.engine)
    yield IdentityService(SqlIdentityStore(database), clock)
    database.close()


USER = Principal("t", TokenKind.USER, user_id="user", roles={"org": Role.OWNER})
CREATOR = Principal("creator", TokenKind.ORGANIZATION, "org")


async def mine(identity: IdentityService) -> Project:
    return await identity.authorize(USER, Action.SEE_PROJECT, "mine")


async def test_the_first_start_makes_a_tenant_once(empty: IdentityService) -> None:
    kept: list[str] = []
    tenant = await empty.bootstrap(kept.append, kept.clear)
    assert isinstance(tenant, FirstTenant)
    (secret,) = kept
    principal = await empty.authenticate(secret)
    assert principal == replace(
        tenant.admin, name="admin", roles={tenant.organization_id: Role.OWNER}, is_admin=True
    )
    assert [project.id for project in await empty.list_projects(principal)] == [tenant.project_id]
    assert await empty.bootstrap(kept.append, kept.clear) is None
    assert kept == [secret]


async def test_a_server_that_was_too_late_to_make_the_tenant_keeps_no_token(
    empty: IdentityService, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[str] = []
    first: list[str] = []

    async def is_empty_yet() -> bool:
        # And another one makes it right now.
        monkeypatch.undo()
        assert await empty.bootstrap(first.append, first.clear)
        return False

    monkeypatch.setattr(empty._store, "has_organization", is_empty_yet)
    assert await empty.bootstrap(kept.append, kept.clear) is None
    assert kept == []
    assert await empty.authenticate(first[0])


async def test_a_token_that_could_not_be_kept_is_no_token(empty: IdentityService) -> None:
    # Kept first, stored second: never a server that nobody can enter.
    def fails(_secret: str) -> None:
        raise OSError

    with pytest.raises(OSError):
        await empty.bootstrap(fails, lambda: None)
    kept: list[str] = []
    assert await empty.bootstrap(kept.append, kept.clear)
    assert await empty.authenticate(kept[0])


@pytest.mark.parametrize("secret", ["", "unknown", "layover_", "\N{SNOWMAN}", "x" * 100_000])
async def test_an_unknown_token_is_refused(identity: IdentityService, secret: str) -> None:
    with pytest.raises(Unauthenticated):
        await identity.authenticate(secret)


async def test_unknown_expired_and_revoked_tokens_are_refused_alike(
    identity: IdentityService, clock: Clock
) -> None:
    project = await mine(identity)
    pull = await identity.create_pull_token(CREATOR, project)
    build = await identity.create_build_token(CREATOR, project, "b1", frozenset({"b1"}))
    await identity.end_build_token("b1")
    clock.advance(PULL_TOKEN_LIFETIME)
    refusals = []
    for secret in (pull, build, "unknown"):
        with pytest.raises(Unauthenticated) as refused:
            await identity.authenticate(secret)
        refusals.append(str(refused.value))
    assert len(set(refusals)) == 1


async def test_a_builds_token_is_bound_to_it_and_ends_with_it(identity: IdentityService) -> None:
    project = await mine(identity)
    secret = await identity.create_build_token(CREATOR, project, "b1", frozenset({"b1", "main"}))
    principal = await identity.authenticate(secret)
    assert (principal.kind, principal.project_id, principal.build_id, principal.tags) == (
        TokenKind.BUILD,
        "mine",
        "b1",
        frozenset({"b1", "main"}),
    )
    assert await identity.principal_of(principal.token_id) == principal
    await identity.end_build_token("b1")
    # What a registry token stands for is asked anew on each request.
    with pytest.raises(Unauthenticated):
        await identity.principal_of(principal.token_id)


async def test_a_builds_token_does_not_outlast_its_lifetime(
    identity: IdentityService, clock: Clock
) -> None:
    secret = await identity.create_build_token(
        CREATOR, await mine(identity), "b1", frozenset({"b1"})
    )
    clock.advance(BUILD_TOKEN_LIFETIME - timedelta(seconds=1))
    assert await identity.authenticate(secret)
    clock.advance(timedelta(seconds=1))
    with pytest.raises(Unauthenticated):
        await identity.authenticate(secret)
    assert await identity.forget_expired_tokens() == 1


async def test_a_pull_token_outlives_the_builds_own(identity: IdentityService) -> None:
    secret = await identity.create_pull_token(CREATOR, await mine(identity), "b1")
    await identity.end_build_token("b1")
    principal = await identity.authenticate(secret)
    assert await identity.authorize(principal, Action.PULL, "mine")
    with pytest.raises(ActionDenied):
        await identity.authorize(principal, Action.PUSH, "mine")


async def test_what_a_token_made_ends_with_it(identity: IdentityService) -> None:
    project = await mine(identity)
    build = await identity.authenticate(
        await identity.create_build_token(CREATOR, project, "b1", frozenset({"b1"}))
    )
    made = await identity.create_pull_token(build, project)
    assert await identity.authenticate(made)
    await identity.end_build_token("b1")
    with pytest.raises(Unauthenticated):
        await identity.authenticate(made)


async def test_a_project_of_others_reads_as_one_that_is_not_there(
    identity: IdentityService,
) -> None:
    assert [project.id for project in await identity.list_projects(USER)] == ["mine"]
    for action in Action:
        texts = set()
        for project_id in ("foreign", "missing"):
            with pytest.raises(ProjectUnknown) as refused:
                await identity.authorize(USER, action, project_id)
            texts.add(str(refused.value).replace(project_id, "ID"))
        assert len(texts) == 1


async def test_secrets_are_stored_as_hashes_alone(
    identity: IdentityService, tmp_path: Path
) -> None:
    # Invariant 7.
    secret = await identity.create_pull_token(CREATOR, await mine(identity))
    stored = b"".join((tmp_path / name).read_bytes() for name in ("layover.db", "layover.db-wal"))
    assert b"pull from project mine" in stored
    assert secret.encode() not in stored
    assert secret.removeprefix("layover_").encode() not in stored


def test_ids_and_secrets_are_lower_case_and_never_the_same() -> None:
    ids = {new_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(
        len(id_) == 10 and set(id_) <= set("abcdefghijklmnopqrstuvwxyz234567") for id_ in ids
    )
    assert len({new_secret() for _ in range(1000)}) == 1000
    assert new_secret().startswith("layover_")
    assert len(new_secret()) == len("layover_") + 32
