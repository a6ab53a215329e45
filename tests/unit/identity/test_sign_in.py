import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from structlog.testing import capture_logs

from layover.adapters.sql.sign_in import SqlSignInStore
from layover.identity.models import ActionDenied, Principal, TokenKind
from layover.identity.passwords import Passwords
from layover.identity.sign_in import SignInService
from layover.identity.sign_in_models import (
    InvalidPassword,
    InvalidUserName,
    PasswordNotAllowed,
    SignInRefused,
    UserNameTaken,
)
from layover.identity.throttle import LoginThrottle
from tests.stores import Stores, opened
from tests.unit.identity.clock import Clock

pytestmark = pytest.mark.anyio

ADDRESS = "203.0.113.9"
PASSWORD, OTHER = "correct horse battery", "another horse battery"
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


async def at_once(_seconds: float) -> None:
    """Nobody waits in a test."""


class World:
    def __init__(self, stores: Stores, passwords: Passwords) -> None:
        self.stores, self.clock = stores, Clock()
        self.throttle = LoginThrottle(sleep=at_once)
        self.service = self.with_passwords(passwords)

    def with_passwords(self, passwords: Passwords) -> SignInService:
        return SignInService(
            SqlSignInStore(self.stores.database), passwords, self.throttle, self.clock
        )


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with opened(tmp_path) as stores, contextlib.closing(Passwords(CHEAP)) as passwords:
        yield World(stores, passwords)


def token_of(user_id: str | None, kind: TokenKind = TokenKind.USER) -> Principal:
    return Principal("token", kind, user_id=user_id)


async def test_a_session_is_its_users(world: World) -> None:
    user = await world.service.create_local_user("Ann", PASSWORD)
    secret = await world.service.sign_in(" ANN ", PASSWORD, ADDRESS)
    session = await world.service.session(secret)
    assert session is not None
    assert (session.user.id, session.user.name) == (user.id, "ann")
    assert len(secret) == 32
    assert "password_hash" not in repr(session)
    for nothing in ("", "a" * 32, "x" * 100_000, "\ud800"):
        assert await world.service.session(nothing) is None


async def test_users_are_made_with_a_name_and_a_password_that_are_good(world: World) -> None:
    with pytest.raises(InvalidUserName):
        await world.service.create_local_user("-", PASSWORD)
    with pytest.raises(InvalidPassword):
        await world.service.create_local_user("ann", "short")
    await world.service.create_local_user("ann", PASSWORD)
    with pytest.raises(UserNameTaken):
        await world.service.create_local_user("ANN", OTHER)


async def test_a_new_password_signs_every_browser_out_and_the_old_one_in_no_more(
    world: World,
) -> None:
    user = await world.service.create_local_user("ann", PASSWORD)
    secret = await world.service.sign_in("ann", PASSWORD, ADDRESS)
    await world.service.set_password(token_of(user.id), OTHER)
    assert await world.service.session(secret) is None
    with pytest.raises(SignInRefused):
        await world.service.sign_in("ann", PASSWORD, ADDRESS)
    assert await world.service.sign_in("ann", OTHER, ADDRESS)


async def test_nobody_but_a_local_user_in_person_sets_a_password(world: World) -> None:
    user = await world.service.create_local_user("ann", PASSWORD)
    for kind in (TokenKind.ORGANIZATION, TokenKind.PROJECT, TokenKind.PULL, TokenKind.CI):
        with pytest.raises(ActionDenied):
            await world.service.set_password(token_of(user.id, kind), OTHER)
    for user_id in (None, "nobody"):
        with pytest.raises(ActionDenied):
            await world.service.set_password(token_of(user_id), OTHER)
    secret = await world.service.sign_in_by_provider("https://issuer", "subject", ("eve",))
    session = await world.service.session(secret)
    assert session is not None
    with pytest.raises(PasswordNotAllowed):
        await world.service.set_password(token_of(session.user.id), OTHER)


async def test_a_password_of_another_cost_is_hashed_anew_at_the_next_sign_in(
    world: World,
) -> None:
    user = await world.service.create_local_user("ann", PASSWORD)
    before = await world.service.sign_in("ann", PASSWORD, ADDRESS)
    dearer = PasswordHasher(time_cost=2, memory_cost=16, parallelism=1)
    with contextlib.closing(Passwords(dearer)) as passwords:
        service = world.with_passwords(passwords)
        assert await service.sign_in("ann", PASSWORD, ADDRESS)
        found = await SqlSignInStore(world.stores.database).find_user(user.id)
        assert found is not None
        assert found.password_hash is not None
        assert not passwords.is_outdated(found.password_hash)
        # Nobody is signed out by it.
        assert await service.session(before)


async def test_a_password_that_is_changed_while_the_old_one_is_looked_at_keeps_it_out(
    world: World,
) -> None:
    user = await world.service.create_local_user("ann", PASSWORD)
    await world.service.set_password(token_of(user.id), OTHER)
    with pytest.raises(SignInRefused):
        await world.service.start_session(replace(user), "password")


async def test_no_password_and_no_secret_is_logged(world: World) -> None:
    with capture_logs() as logs:
        user = await world.service.create_local_user("ann", PASSWORD)
        secret = await world.service.sign_in("ann", PASSWORD, ADDRESS)
        with pytest.raises(SignInRefused):
            await world.service.sign_in("ann", OTHER, ADDRESS)
        await world.service.set_password(token_of(user.id), OTHER)
        # Typed into the wrong field.
        with pytest.raises(SignInRefused) as refused:
            await world.service.sign_in(OTHER, "", ADDRESS)
    text = f"{logs} {vars(refused.value)}"
    assert "signed_in" in text
    for hidden in (PASSWORD, OTHER, secret, "argon2"):
        assert hidden not in text


async def test_secrets_are_stored_as_hashes_alone(world: World, tmp_path: Path) -> None:
    await world.service.create_local_user("ann", PASSWORD)
    secret = await world.service.sign_in("ann", PASSWORD, ADDRESS)
    stored = b"".join((tmp_path / name).read_bytes() for name in ("layover.db", "layover.db-wal"))
    assert b"$argon2id$" in stored
    assert secret.encode() not in stored
    assert PASSWORD.encode() not in stored
