"""What every IdentityStore does, on every database."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import cast

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from layover.adapters.sql.database import Database
from layover.adapters.sql.identity import SqlIdentityStore
from layover.adapters.sql.migrate import migrate
from layover.adapters.sql.schema import tokens
from layover.identity.models import (
    FirstTenant,
    NewToken,
    Principal,
    ProjectPolicy,
    Role,
    TokenKind,
)
from layover.identity.ports import IdentityStore
from tests.stores import NOW, Stores

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)
BUILD = Principal(
    "token",
    TokenKind.BUILD,
    "org",
    project_id="mine",
    build_id="build",
    tags=frozenset({"build", "main", "v1.0"}),
    name="a test's",
)
TENANT = FirstTenant(
    project_id="first",
    project_name="default",
    organization_name="default",
    user_name="admin",
    admin=Principal("admin-token", TokenKind.USER, user_id="first-user"),
    organization_id="first-org",
    created_at=NOW,
)


@pytest.fixture
def store(stores: Stores) -> IdentityStore:
    return stores.identity


async def add(
    store: IdentityStore, principal: Principal, secret: bytes, expires_in: timedelta | None = HOUR
) -> None:
    expires_at = None if expires_in is None else NOW + expires_in
    await store.add_token(NewToken(principal, secret, "a test's", NOW, expires_at))


async def test_a_token_is_found_by_its_hash_and_by_its_id_with_all_its_bindings(
    store: IdentityStore,
) -> None:
    await add(store, BUILD, b"hash")
    assert await store.find_principal(b"hash", NOW) == BUILD
    assert await store.find_principal_by_id("token", NOW) == BUILD
    assert await store.find_principal(b"another", NOW) is None
    assert await store.find_principal(b"", NOW) is None
    assert await store.find_principal_by_id("another", NOW) is None


async def test_a_token_is_worth_nothing_the_moment_it_expires(store: IdentityStore) -> None:
    await add(store, BUILD, b"hash")
    assert await store.find_principal(b"hash", NOW + HOUR - timedelta(microseconds=1))
    assert await store.find_principal(b"hash", NOW + HOUR) is None
    assert await store.find_principal_by_id("token", NOW + HOUR) is None


async def test_a_token_without_an_end_lasts(store: IdentityStore) -> None:
    user = Principal("token", TokenKind.ORGANIZATION, "org", name="a test's")
    await add(store, user, b"hash", None)
    assert await store.find_principal(b"hash", NOW + timedelta(days=36500)) == user
    assert await store.delete_over_tokens(NOW + timedelta(days=36500), NOW) == 0


async def test_expired_tokens_are_deleted_and_counted(store: IdentityStore) -> None:
    await add(store, BUILD, b"one")
    await add(store, replace(BUILD, token_id="other"), b"two", 2 * HOUR)
    assert await store.delete_over_tokens(NOW + HOUR, NOW) == 1
    # Asked as of before either expired, so that only what was deleted is missing.
    assert await store.find_principal(b"one", NOW) is None
    assert await store.find_principal(b"two", NOW)


async def test_a_builds_own_tokens_end_and_its_pull_tokens_stay(store: IdentityStore) -> None:
    await add(store, BUILD, b"own")
    await add(store, replace(BUILD, token_id="t2", kind=TokenKind.PULL, tags=frozenset()), b"pull")
    await add(store, replace(BUILD, token_id="t3", build_id="other"), b"others")
    await store.revoke_build_tokens("build", TokenKind.BUILD, NOW)
    assert await store.find_principal(b"own", NOW) is None
    assert await store.find_principal_by_id("token", NOW) is None
    assert await store.find_principal(b"pull", NOW)
    assert await store.find_principal(b"others", NOW)


async def test_what_a_revoked_token_made_is_revoked_with_it(store: IdentityStore) -> None:
    pull = replace(BUILD, token_id="child", kind=TokenKind.PULL, build_id=None, tags=frozenset())
    await add(store, BUILD, b"parent")
    for parent, child in (("token", "child"), ("child", "grandchild")):
        made = replace(pull, token_id=child)
        await store.add_token(NewToken(made, child.encode(), "", NOW, NOW + HOUR, parent_id=parent))
    await add(store, replace(pull, token_id="other"), b"other")
    await store.revoke_build_tokens("build", TokenKind.BUILD, NOW)
    for secret in (b"parent", b"child", b"grandchild"):
        assert await store.find_principal(secret, NOW) is None
    assert await store.find_principal(b"other", NOW)
    # What is gone takes what it made along.
    assert await store.delete_over_tokens(NOW, NOW) >= 1
    assert await store.delete_over_tokens(NOW + HOUR, NOW) == 1


async def test_an_ended_builds_client_is_known_by_its_token_for_a_while(
    store: IdentityStore,
) -> None:
    await add(store, BUILD, b"own")
    await add(store, replace(BUILD, token_id="t2", kind=TokenKind.PULL, tags=frozenset()), b"pull")
    assert await store.find_ended_build(b"own", NOW) is None
    for kind in (TokenKind.BUILD, TokenKind.PULL):
        await store.revoke_build_tokens("build", kind, NOW)
    assert await store.find_ended_build(b"own", NOW) == BUILD
    assert await store.find_ended_build(b"pull", NOW) is None
    assert await store.find_ended_build(b"another", NOW) is None
    assert await store.find_ended_build(b"own", NOW + HOUR) is None
    await store.delete_over_tokens(NOW, NOW)
    assert await store.find_ended_build(b"own", NOW) is None


async def test_when_a_token_was_used_is_kept(store: IdentityStore, stores: Stores) -> None:
    await add(store, BUILD, b"own")
    await store.mark_used({"token": NOW + HOUR, "unknown": NOW})
    used_at = await stores.database.read(
        lambda connection: connection.execute(select(tokens.c.last_used_at)).scalar_one()
    )
    assert used_at == NOW + HOUR


async def test_projects_are_found_and_listed_by_organization(store: IdentityStore) -> None:
    mine = await store.find_project("mine")
    assert mine is not None
    assert (mine.id, mine.organization_id, mine.organization_name) == ("mine", "org", "org")
    assert mine.created_at == NOW
    assert await store.find_project("unknown") is None
    assert await store.list_projects(["org"]) == [mine]
    assert await store.list_projects(["unknown"]) == []
    assert await store.list_projects([]) == []


@pytest.fixture
def empty(database_url: str) -> Iterator[Database]:
    """A database without an organization."""
    database = Database(database_url)
    migrate(database.engine)
    yield database
    database.close()


async def test_the_first_tenant_comes_to_be_whole(empty: Database) -> None:
    store = SqlIdentityStore(empty)
    assert not await store.has_organization()
    assert await store.create_first_tenant(TENANT, b"hash")
    assert await store.has_organization()
    assert await store.find_principal(b"hash", NOW) == replace(
        TENANT.admin, name="admin", roles={"first-org": Role.OWNER}, is_admin=True
    )
    (project,) = await store.list_projects(["first-org"])
    assert (project.id, project.name, project.organization_name) == (
        "first",
        "default",
        "default",
    )


async def test_a_tenant_that_cannot_be_made_whole_is_not_made_at_all(empty: Database) -> None:
    store = SqlIdentityStore(empty)
    nobody = replace(TENANT.admin, token_id=cast("str", None))
    # The last of its rows breaks a constraint.
    with pytest.raises(IntegrityError):
        await store.create_first_tenant(replace(TENANT, admin=nobody), b"hash")
    assert not await store.has_organization()
    assert await store.find_project("first") is None


async def test_of_servers_that_start_at_once_one_makes_the_first_tenant(
    empty: Database, database_url: str
) -> None:
    replicas = [Database(database_url) for _ in range(4)]
    made = await asyncio.gather(
        *(
            SqlIdentityStore(replica).create_first_tenant(
                replace(
                    TENANT,
                    project_id=f"project{number}",
                    admin=replace(
                        TENANT.admin,
                        token_id=f"token{number}",
                        user_id=f"user{number}",
                    ),
                    organization_id=f"org{number}",
                ),
                b"hash%d" % number,
            )
            for number, replica in enumerate(replicas)
        )
    )
    for replica in replicas:
        replica.close()
    assert sorted(made) == [False, False, False, True]
    first = made.index(True)
    store = SqlIdentityStore(empty)
    assert [bool(await store.list_projects([f"org{number}"])) for number in range(4)] == made
    assert await store.find_principal(b"hash%d" % first, NOW)


async def test_all_replicas_share_the_key_that_came_first(stores: Stores) -> None:
    with stores.replica() as replica:
        keys = await asyncio.gather(
            *(
                identity.server_key("name", candidate)
                for identity, candidate in ((stores.identity, b"one"), (replica.identity, b"two"))
                for _ in range(5)
            )
        )
    assert len(set(keys)) == 1
    assert await stores.identity.server_key("other", b"three") == b"three"


async def test_a_policy_is_changed_from_what_it_is(store: IdentityStore) -> None:
    def shorter(policy: ProjectPolicy) -> ProjectPolicy:
        return replace(policy, retention=policy.retention - HOUR)

    before = await store.find_project("mine")
    assert before is not None
    # At once: neither change is lost.
    await asyncio.gather(*(store.change_policy("mine", shorter) for _ in range(3)))
    changed = await store.change_policy(
        "mine", lambda policy: replace(policy, extends_on_pull=True, quota_bytes=5 << 40)
    )
    assert changed is not None
    assert changed.policy == ProjectPolicy(
        before.policy.retention - 3 * HOUR, before.policy.max_retention, True, 5 << 40
    )
    assert await store.find_project("mine") == changed
    assert await store.change_policy("nothing", shorter) is None


async def test_a_change_of_a_policy_that_raises_changes_nothing(store: IdentityStore) -> None:
    def refused(policy: ProjectPolicy) -> ProjectPolicy:
        raise ValueError

    before = await store.find_project("mine")
    with pytest.raises(ValueError):
        await store.change_policy("mine", refused)
    assert await store.find_project("mine") == before
