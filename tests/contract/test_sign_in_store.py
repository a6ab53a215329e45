"""What every SignInStore does, on every database."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import insert

from layover.adapters.sql.schema import memberships
from layover.adapters.sql.sign_in import SqlSignInStore
from layover.identity.models import Role
from layover.identity.ports import SignInStore
from layover.identity.sign_in_models import User, UserNameTaken
from tests.stores import NOW, Stores

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)
ANN = User("ann-id", "ann", password_hash="hash of ann's")
ISSUER = "https://login.example.com"
VISITOR = User("visitor-id", "visitor", oidc_issuer=ISSUER)


@pytest.fixture
def store(stores: Stores) -> SignInStore:
    return SqlSignInStore(stores.database)


def numbered(taken: int) -> str:
    return f"ann-{taken + 1}" if taken else "ann"


async def test_a_local_user_is_found_by_name_and_by_id(store: SignInStore) -> None:
    await store.add_user(ANN, NOW)
    assert await store.find_user_by_name("ann") == ANN
    assert await store.find_user("ann-id") == ANN
    assert await store.find_user_by_name("bob") is None
    assert await store.find_user("ann") is None


async def test_no_two_users_have_one_name(store: SignInStore) -> None:
    await store.add_user(ANN, NOW)
    with pytest.raises(UserNameTaken):
        await store.add_user(replace(ANN, id="another"), NOW)
    assert await store.find_user("another") is None


async def test_a_provider_s_user_is_made_once_and_found_by_issuer_and_subject(
    store: SignInStore,
) -> None:
    made = await asyncio.gather(
        *(
            store.ensure_oidc_user(replace(VISITOR, id=f"id{number}"), "subject", numbered, NOW)
            for number in range(3)
        )
    )
    assert sorted(is_new for _, is_new in made) == [False, False, True]
    assert len({user for user, _ in made}) == 1
    for other in (replace(VISITOR, id="a"), replace(VISITOR, id="b", oidc_issuer="https://o")):
        user, is_new = await store.ensure_oidc_user(other, f"{other.id}'s", numbered, NOW)
        assert is_new
        assert user.id == other.id
    # The same subject of another issuer is somebody else.
    stranger = replace(VISITOR, id="c", oidc_issuer="https://o")
    assert await store.ensure_oidc_user(stranger, "subject", numbered, NOW) == (
        replace(stranger, name="ann-4"),
        True,
    )


async def test_a_provider_s_user_gets_no_local_user_s_name_and_no_password_opens_it(
    store: SignInStore,
) -> None:
    await store.add_user(ANN, NOW)
    user, _ = await store.ensure_oidc_user(VISITOR, "ann", numbered, NOW)
    assert (user.id, user.name) == ("visitor-id", "ann-2")
    assert await store.find_user_by_name("ann") == ANN
    assert await store.find_user_by_name("ann-2") is None


async def test_a_session_shows_its_user_and_their_organizations_until_it_is_over(
    store: SignInStore, stores: Stores
) -> None:
    await store.add_user(ANN, NOW)
    assert await store.add_session(b"secret", ANN, NOW, NOW + HOUR)
    found = await store.find_session(b"secret", NOW)
    assert found is not None
    assert (found.user, found.expires_at, found.memberships) == (ANN, NOW + HOUR, ())
    rows = [
        {"user_id": ANN.id, "organization_id": name, "role": role.value, "created_at": NOW}
        for name, role in (("other-org", Role.VIEWER), ("org", Role.OWNER))
    ]
    await stores.database.write(
        lambda connection: connection.execute(insert(memberships).values(rows))
    )
    found = await store.find_session(b"secret", NOW)
    assert found is not None
    assert [(each.name, role) for each, role in found.memberships] == [
        ("org", Role.OWNER),
        ("other-org", Role.VIEWER),
    ]
    assert await store.find_session(b"another", NOW) is None
    assert await store.find_session(b"secret", NOW + HOUR) is None


async def test_a_session_ends_when_its_user_signs_out_and_others_do_not(
    store: SignInStore,
) -> None:
    await store.add_user(ANN, NOW)
    for secret in (b"one", b"two"):
        assert await store.add_session(secret, ANN, NOW, NOW + HOUR)
    await store.delete_session(b"one")
    await store.delete_session(b"one")
    assert await store.find_session(b"one", NOW) is None
    assert await store.find_session(b"two", NOW)
    assert await store.delete_over_sessions(NOW + HOUR) == 1
    assert await store.find_session(b"two", NOW) is None


async def test_a_new_password_ends_every_session_of_its_user(store: SignInStore) -> None:
    bob = replace(ANN, id="bob-id", name="bob")
    for user in (ANN, bob):
        await store.add_user(user, NOW)
        assert await store.add_session(user.id.encode(), user, NOW, NOW + HOUR)
    await store.set_password(ANN.id, "new")
    assert await store.find_session(b"ann-id", NOW) is None
    assert await store.find_session(b"bob-id", NOW)
    # Whoever was let in by the old one while it was changed stays out.
    assert not await store.add_session(b"late", ANN, NOW, NOW + HOUR)
    assert await store.find_session(b"late", NOW) is None


async def test_a_hash_is_renewed_only_while_the_password_is_still_that_one(
    store: SignInStore,
) -> None:
    await store.add_user(ANN, NOW)
    assert await store.add_session(b"secret", ANN, NOW, NOW + HOUR)
    await store.renew_password_hash(ANN.id, "another", "wrong")
    await store.renew_password_hash(ANN.id, "hash of ann's", "right")
    found = await store.find_user(ANN.id)
    assert found is not None
    assert found.password_hash == "right"
    assert await store.find_session(b"secret", NOW)
