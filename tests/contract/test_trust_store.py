"""What every TrustStore does, on every database."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import insert, select, update

from layover.adapters.sql.schema import projects, tokens, users
from layover.adapters.sql.trust import SqlTrustStore
from layover.identity.models import Grant, NewToken, Principal, TokenKind, Unauthenticated
from layover.identity.ports import TrustStore
from layover.identity.trust import Provider, TrustPolicy, TrustRule
from tests.stores import NOW, Stores

pytestmark = pytest.mark.anyio

GITHUB = "https://token.actions.githubusercontent.com"
POLICY = TrustPolicy(
    id="policy",
    project_id="mine",
    name="main",
    rule=TrustRule(
        Provider.GITHUB,
        GITHUB,
        "",
        {"repository": "acme/app", "ref": 'refs/heads/ü"\\*'},
        Grant.PROJECT,
    ),
    created_at=NOW,
    created_by=None,
)


@pytest.fixture
def store(stores: Stores) -> TrustStore:
    return SqlTrustStore(stores.database)


async def trade(stores: Stores, secret: bytes, policy_id: str = "policy") -> None:
    principal = Principal(secret.decode(), TokenKind.PROJECT, "org", project_id="mine")
    expires_at = NOW + timedelta(hours=1)
    await stores.identity.add_token(
        NewToken(principal, secret, "", NOW, expires_at, trust_policy_id=policy_id)
    )


async def test_a_policy_is_found_as_it_was_made(store: TrustStore) -> None:
    assert await store.add_trust_policy(POLICY, 100)
    assert await store.list_trust_policies("mine") == [POLICY]
    assert await store.find_trust_policies(GITHUB) == [POLICY]
    assert await store.trusts_issuer(GITHUB)


async def test_who_made_a_policy_is_told_by_name(stores: Stores, store: TrustStore) -> None:
    user = insert(users).values(id="alice-id", name="alice", is_admin=False, created_at=NOW)
    await stores.database.write(lambda connection: connection.execute(user))
    await store.add_trust_policy(replace(POLICY, created_by="alice-id"), 100)
    (found,) = await store.list_trust_policies("mine")
    assert (found.created_by, found.created_by_name) == ("alice-id", "alice")


async def test_a_projects_policies_are_listed_by_name_and_no_others(store: TrustStore) -> None:
    for name in ("b", "c", "a"):
        await store.add_trust_policy(replace(POLICY, id=name, name=name), 100)
    await store.add_trust_policy(replace(POLICY, id="other", project_id="foreign"), 100)
    assert [policy.id for policy in await store.list_trust_policies("mine")] == ["a", "b", "c"]
    assert [policy.id for policy in await store.list_trust_policies("foreign")] == ["other"]
    assert await store.list_trust_policies("unknown") == []


async def test_an_issuer_is_found_exactly_as_it_is_named(store: TrustStore) -> None:
    await store.add_trust_policy(POLICY, 100)
    for issuer in (f"{GITHUB}/", GITHUB.upper(), GITHUB[:-1], "", "%", f"{GITHUB}%"):
        assert await store.find_trust_policies(issuer) == []
        assert not await store.trusts_issuer(issuer)


async def test_a_deleted_project_trusts_nobody(stores: Stores, store: TrustStore) -> None:
    await store.add_trust_policy(POLICY, 100)
    gone = update(projects).where(projects.c.id == "mine").values(deleted_at=NOW)
    await stores.database.write(lambda connection: connection.execute(gone))
    assert await store.find_trust_policies(GITHUB) == []
    assert not await store.trusts_issuer(GITHUB)
    assert await store.list_trust_policies("mine") == []


async def test_a_policy_is_deleted_only_as_its_own_projects(store: TrustStore) -> None:
    await store.add_trust_policy(POLICY, 100)
    assert not await store.delete_trust_policy("foreign", "policy")
    assert not await store.delete_trust_policy("mine", "another")
    assert await store.list_trust_policies("mine") == [POLICY]
    assert await store.delete_trust_policy("mine", "policy")
    assert not await store.delete_trust_policy("mine", "policy")
    assert await store.list_trust_policies("mine") == []


async def test_what_was_traded_for_by_a_policy_ends_with_it(
    stores: Stores, store: TrustStore
) -> None:
    await store.add_trust_policy(POLICY, 100)
    await store.add_trust_policy(replace(POLICY, id="other"), 100)
    await trade(stores, b"traded")
    await trade(stores, b"others", "other")
    made = Principal("made", TokenKind.PULL, "org", project_id="mine")
    await stores.identity.add_token(NewToken(made, b"made", "", NOW, None, parent_id="traded"))
    assert await stores.identity.find_principal(b"made", NOW)
    await store.delete_trust_policy("mine", "policy")
    for secret in (b"traded", b"made"):
        assert await stores.identity.find_principal(secret, NOW) is None
    assert await stores.identity.find_principal(b"others", NOW)


async def test_nothing_is_traded_for_by_a_policy_that_is_gone(
    stores: Stores, store: TrustStore
) -> None:
    with pytest.raises(Unauthenticated):
        await trade(stores, b"traded")
    await store.add_trust_policy(POLICY, 100)
    await store.delete_trust_policy("mine", "policy")
    with pytest.raises(Unauthenticated):
        await trade(stores, b"traded")
    assert await stores.identity.find_principal(b"traded", NOW) is None


async def test_a_trade_that_meets_the_end_of_its_policy_leaves_no_token(
    stores: Stores, store: TrustStore
) -> None:
    for number in range(5):
        policy_id = f"p{number}"
        await store.add_trust_policy(replace(POLICY, id=policy_id), 100)
        trades = [trade(stores, f"{policy_id}-{each}".encode(), policy_id) for each in range(4)]
        deleted = store.delete_trust_policy("mine", policy_id)
        outcomes = await asyncio.gather(*trades, deleted, return_exceptions=True)
        assert all(each in (None, True) or isinstance(each, Unauthenticated) for each in outcomes)
    count = select(tokens.c.id)
    assert await stores.database.read(lambda connection: connection.execute(count).all()) == []


async def test_a_project_has_no_more_policies_than_said(store: TrustStore) -> None:
    made = [store.add_trust_policy(replace(POLICY, id=f"p{number}"), 3) for number in range(6)]
    assert sorted(await asyncio.gather(*made)) == [False, False, False, True, True, True]
    assert len(await store.list_trust_policies("mine")) == 3
    assert await store.add_trust_policy(replace(POLICY, id="other", project_id="foreign"), 3)


async def test_an_id_that_no_database_holds_is_of_no_policy(store: TrustStore) -> None:
    await store.add_trust_policy(POLICY, 100)
    assert not await store.delete_trust_policy("mine", "policy\x00")
    assert not await store.delete_trust_policy("mine\x00", "policy")
