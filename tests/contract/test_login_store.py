"""What every LoginStore does, on every database."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from layover.adapters.sql.logins import SqlLoginStore
from layover.adapters.sql.sign_in import SqlSignInStore
from layover.identity.models import NewToken, Principal, TokenKind
from layover.identity.ports import LoginStore
from layover.identity.sign_in_models import LoginRequest, LoginState, TooManyLogins, User
from tests.stores import NOW, Stores

pytestmark = pytest.mark.anyio

LIFETIME = timedelta(minutes=10)
REQUEST = LoginRequest("BCDF-GHJK", "203.0.113.7", "layover/1", NOW, NOW + LIFETIME)
OTHER = replace(REQUEST, user_code="LMNP-QRST", address="2001:db8::1")


@pytest.fixture
async def store(stores: Stores) -> LoginStore:
    users = SqlSignInStore(stores.database)
    for name in ("ann", "bob"):
        await users.add_user(User(name, name), NOW)
    return SqlLoginStore(stores.database)


def anybody(waiting: Sequence[str]) -> None:
    pass


def token_of(user_id: str, name: str = "token") -> NewToken:
    principal = Principal(name, TokenKind.USER, user_id=user_id)
    return NewToken(principal, name.encode(), "a login", NOW, NOW + LIFETIME, created_by=user_id)


async def test_a_login_waits_until_its_time_is_over(store: LoginStore) -> None:
    assert await store.add(b"id", REQUEST, anybody)
    assert await store.find_pending("BCDF-GHJK", NOW) == REQUEST
    assert await store.state(b"id", NOW) == (LoginState.PENDING, None)
    assert await store.find_pending("LMNP-QRST", NOW) is None
    assert await store.state(b"another", NOW) is None
    end = NOW + LIFETIME
    assert await store.find_pending("BCDF-GHJK", end) is None
    assert await store.state(b"id", end) is None
    assert not await store.decide("BCDF-GHJK", "ann", end, approve=True)
    assert await store.delete_over(end) == 1


async def test_no_two_logins_wait_under_one_code(store: LoginStore) -> None:
    assert await store.add(b"id", REQUEST, anybody)
    assert not await store.add(b"another", REQUEST, anybody)
    assert await store.state(b"another", NOW) is None
    # Once the first is over, its code is anybody's.
    later = replace(REQUEST, created_at=NOW + LIFETIME, expires_at=NOW + 2 * LIFETIME)
    assert await store.add(b"another", later, anybody)


async def test_who_waits_is_told_to_whoever_decides_about_one_more(store: LoginStore) -> None:
    seen: list[list[str]] = []

    def refuses(waiting: Sequence[str]) -> None:
        seen.append(sorted(waiting))
        if len(waiting) > 1:
            raise TooManyLogins

    assert await store.add(b"one", REQUEST, refuses)
    assert await store.add(b"two", OTHER, refuses)
    third = replace(REQUEST, user_code="VWXZ-BCDF")
    with pytest.raises(TooManyLogins):
        await store.add(b"three", third, refuses)
    assert await store.state(b"three", NOW) is None
    # Those that are over do not count.
    later = replace(third, created_at=NOW + LIFETIME, expires_at=NOW + 2 * LIFETIME)
    assert await store.add(b"three", later, refuses)
    assert seen == [[], [REQUEST.address], sorted([REQUEST.address, OTHER.address]), []]


async def test_a_login_is_decided_once(store: LoginStore) -> None:
    assert await store.add(b"id", REQUEST, anybody)
    decided = await asyncio.gather(
        *(store.decide("BCDF-GHJK", user, NOW, approve=True) for user in ("ann", "bob"))
    )
    assert sorted(decided) == [False, True]
    winner = ("ann", "bob")[decided.index(True)]
    assert await store.state(b"id", NOW) == (LoginState.APPROVED, winner)
    assert not await store.decide("BCDF-GHJK", "ann", NOW, approve=False)
    assert await store.find_pending("BCDF-GHJK", NOW) is None


async def test_a_denied_login_stays_denied_and_gives_nothing(
    store: LoginStore, stores: Stores
) -> None:
    assert await store.add(b"id", REQUEST, anybody)
    assert await store.decide("BCDF-GHJK", "ann", NOW, approve=False)
    assert await store.state(b"id", NOW) == (LoginState.DENIED, None)
    assert not await store.decide("BCDF-GHJK", "ann", NOW, approve=True)
    assert not await store.redeem(b"id", token_of("ann"), NOW)
    assert await stores.identity.find_principal(b"token", NOW) is None


async def test_an_approved_login_gives_one_token_to_its_own_user(
    store: LoginStore, stores: Stores
) -> None:
    assert await store.add(b"id", REQUEST, anybody)
    assert not await store.redeem(b"id", token_of("ann"), NOW)
    assert await store.decide("BCDF-GHJK", "ann", NOW, approve=True)
    assert not await store.redeem(b"id", token_of("bob"), NOW)
    assert not await store.redeem(b"id", token_of("ann"), NOW + LIFETIME)
    with stores.replica() as replica:
        other = SqlLoginStore(replica.database)
        redeemed = await asyncio.gather(
            *(
                each.redeem(b"id", token_of("ann", name), NOW)
                for each, name in ((store, "one"), (other, "two"))
            )
        )
    assert sorted(redeemed) == [False, True]
    found = [await stores.identity.find_principal(name, NOW) for name in (b"one", b"two")]
    assert [principal is not None for principal in found] == redeemed
    assert {principal.user_id for principal in found if principal} == {"ann"}
    assert await store.state(b"id", NOW) is None
