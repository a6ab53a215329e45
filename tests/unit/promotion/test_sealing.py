from datetime import UTC, datetime, timedelta

import pytest

from layover.oci.digest import Digest
from layover.oci.references import Destination
from layover.promotion.models import Authorization, AuthorizationScheme, Push, PushStatus
from layover.promotion.sealing import AuthorizationVault, new_key
from tests.unit.promotion.memory import MemoryPushStore

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 11, 25, tzinfo=UTC)
HERE = Destination.parse("r.io/app:1").place
THERE = Destination.parse("s.io/app:1").place
TOKEN = Authorization(AuthorizationScheme.BEARER, "token-abc", NOW + timedelta(minutes=5))
LOGIN = Authorization(AuthorizationScheme.BASIC, "dXNlcjpwYXNz")


@pytest.fixture
async def store() -> MemoryPushStore:
    store = MemoryPushStore()
    for push_id in ("push1", "push2"):
        await store.add(_push(push_id), 10)
    return store


def _push(push_id: str) -> Push:
    return Push(
        id=push_id,
        project_id="project123",
        build_id="build12345",
        target="",
        source=Digest.of(b"manifest"),
        destinations=(Destination.parse("r.io/app:1"),),
        created_at=NOW,
        created_by="ann",
    )


async def test_another_server_learns_the_token_and_never_the_login(store: MemoryPushStore) -> None:
    key = new_key()
    first, second = AuthorizationVault(store, key), AuthorizationVault(store, key)
    assert await first.put("push1", {HERE: TOKEN, THERE: LOGIN})
    assert (first.of("push1", HERE), first.of("push1", THERE)) == (TOKEN, LOGIN)
    await second.refresh("push1")
    assert second.of("push1", HERE) == TOKEN
    assert second.of("push1", THERE) is None


async def test_what_is_written_down_shows_no_secret(store: MemoryPushStore) -> None:
    vault = AuthorizationVault(store, new_key())
    await vault.put("push1", {HERE: TOKEN, THERE: LOGIN})
    sealed = await store.sealed("push1")
    assert set(sealed) == {HERE}
    assert TOKEN.secret.encode() not in sealed[HERE]
    assert TOKEN.secret not in repr(TOKEN)
    assert LOGIN.secret not in repr(vault.__dict__)


async def test_what_was_sealed_for_one_push_or_place_opens_no_other(
    store: MemoryPushStore,
) -> None:
    vault = AuthorizationVault(store, new_key())
    await vault.put("push1", {HERE: TOKEN})
    sealed = await store.sealed("push1")
    await store.keep_sealed("push2", sealed)
    await store.keep_sealed("push1", {THERE: sealed[HERE]})
    other = AuthorizationVault(store, new_key())
    for reader in (vault, other):
        await reader.refresh("push2")
        assert reader.of("push2", HERE) is None
    await vault.refresh("push1")
    assert vault.of("push1", THERE) is None
    await other.refresh("push1")
    assert other.of("push1", HERE) is None


async def test_a_push_that_ended_is_given_nothing(store: MemoryPushStore) -> None:
    vault = AuthorizationVault(store, new_key())
    claim = await store.claim("me", NOW, NOW + timedelta(seconds=10), 5)
    assert claim is not None
    await store.end(claim.push.id, "me", PushStatus.DONE, None, NOW)
    assert not await vault.put(claim.push.id, {HERE: LOGIN})
    assert vault.of(claim.push.id, HERE) is None
    assert not vault.given.is_set()


async def test_what_is_not_used_is_forgotten(store: MemoryPushStore) -> None:
    seconds = 0.0
    vault = AuthorizationVault(store, new_key(), lambda: seconds)
    await vault.put("push1", {HERE: LOGIN})
    seconds = 4000.0
    await vault.put("push2", {HERE: LOGIN})
    assert vault.of("push1", HERE) is None
    assert vault.of("push2", HERE) == LOGIN
    vault.forget("push2")
    assert vault.of("push2", HERE) is None


async def test_the_same_login_given_anew_is_to_be_tried_anew(store: MemoryPushStore) -> None:
    vault = AuthorizationVault(store, new_key())
    before = vault.key("push1", HERE)
    await vault.put("push1", {HERE: LOGIN})
    first = vault.key("push1", HERE)
    await vault.refresh("push1")
    assert vault.key("push1", HERE) == first != before
    await vault.put("push1", {THERE: LOGIN})
    assert vault.key("push1", HERE) == first
    await vault.put("push1", {HERE: LOGIN})
    assert vault.key("push1", HERE) != first


async def test_a_token_that_is_read_back_is_the_same(store: MemoryPushStore) -> None:
    vault = AuthorizationVault(store, new_key())
    await vault.put("push1", {HERE: TOKEN})
    first = vault.key("push1", HERE)
    await vault.refresh("push1")
    assert vault.key("push1", HERE) == first
