import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from layover.adapters.sql.logins import SqlLoginStore
from layover.adapters.sql.sign_in import SqlSignInStore
from layover.identity.logins import CODE_ALPHABET, TOKEN_LIFETIME, LoginService, read_code
from layover.identity.models import Principal, TokenKind, Unauthenticated
from layover.identity.origin import Origin
from layover.identity.service import IdentityService
from layover.identity.sign_in_models import (
    LoginDenied,
    LoginLimits,
    LoginUnknown,
    TooManyLogins,
    User,
)
from layover.identity.throttle import Limits, LoginThrottle, TooManyAttempts
from tests.stores import NOW, Stores, opened
from tests.unit.identity.clock import Clock

pytestmark = pytest.mark.anyio

CLI = Origin("198.51.100.4", "layover/1")
BROWSER = "203.0.113.9"
ANN = User("ann-id", "ann")
LIMITS = LoginLimits(pending=5, pending_per_address=2, streams=3, streams_per_address=2)


class World:
    def __init__(self, stores: Stores) -> None:
        self.stores, self.clock = stores, Clock()
        self.identity = IdentityService(stores.identity, self.clock)
        # What happens while a stream waits for a second.
        self.meanwhile: list[str] = []
        self.polls = asyncio.Event()
        self.service = LoginService(
            SqlLoginStore(stores.database),
            LoginThrottle(Limits(failures=5), sleep=self._at_once),
            self.clock,
            LIMITS,
            self._sleep,
        )

    async def _at_once(self, _seconds: float) -> None:
        """No refusal waits."""

    async def _sleep(self, seconds: float) -> None:
        assert seconds == 1
        self.polls.set()
        if self.meanwhile:
            await self.service.decide(self.meanwhile.pop(), ANN, BROWSER, approve=True)
        await asyncio.sleep(0)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    with opened(tmp_path) as stores:
        await SqlSignInStore(stores.database).add_user(ANN, NOW)
        yield World(stores)


async def test_whoever_started_it_gets_the_token_of_who_approved_it(world: World) -> None:
    started = await world.service.start(CLI)
    assert (await world.service.find(started.user_code, BROWSER)).user_agent == "layover/1"
    world.meanwhile.append(started.user_code)
    token = await world.service.finish(started.id, CLI)
    principal = await world.identity.authenticate(token)
    assert (principal.kind, principal.user_id) == (TokenKind.USER, "ann-id")
    assert isinstance(principal, Principal)
    # Once.
    with pytest.raises(LoginUnknown):
        await world.service.finish(started.id, CLI)
    world.clock.advance(TOKEN_LIFETIME)
    with pytest.raises(Unauthenticated):
        await world.identity.authenticate(token)


async def test_of_streams_that_wait_for_one_login_one_gets_the_token(world: World) -> None:
    started = await world.service.start(CLI)
    world.meanwhile.append(started.user_code)
    results = await asyncio.gather(
        *(world.service.finish(started.id, CLI) for _ in range(2)), return_exceptions=True
    )
    assert sorted(type(result).__name__ for result in results) == ["LoginUnknown", "str"]


async def test_the_code_is_not_what_the_token_is_given_for(world: World) -> None:
    started = await world.service.start(CLI)
    await world.service.decide(started.user_code, ANN, BROWSER, approve=True)
    for guess in (started.user_code, "", started.id.upper(), f"{started.id} ", "\ud800"):
        with pytest.raises(LoginUnknown):
            await world.service.finish(guess, CLI)
    assert started.user_code not in started.id
    assert await world.service.finish(started.id, CLI)


async def test_a_denied_login_and_one_that_is_over_end_their_streams(world: World) -> None:
    denied, late = await world.service.start(CLI), await world.service.start(CLI)
    await world.service.decide(denied.user_code, ANN, BROWSER, approve=False)
    with pytest.raises(LoginDenied):
        await world.service.finish(denied.id, CLI)
    waiting = asyncio.create_task(world.service.finish(late.id, CLI))
    await world.polls.wait()
    world.clock.advance(LIMITS.lifetime)
    with pytest.raises(LoginUnknown):
        await waiting


async def test_so_many_may_wait_of_an_address_and_in_all(world: World) -> None:
    for _ in range(2):
        await world.service.start(CLI)
    with pytest.raises(TooManyLogins):
        await world.service.start(CLI)
    # Of IPv6 a customer's network is one.
    for end in ("1", "2"):
        await world.service.start(Origin(f"2001:db8::{end}"))
    with pytest.raises(TooManyLogins):
        await world.service.start(Origin("2001:db8::ffff:3"))
    await world.service.start(Origin("192.0.2.1"))
    with pytest.raises(TooManyLogins):
        await world.service.start(Origin("192.0.2.2"))
    world.clock.advance(LIMITS.lifetime)
    assert await world.service.start(CLI)


async def test_so_many_streams_may_be_open_and_one_that_ends_makes_room(world: World) -> None:
    started = await world.service.start(CLI)
    waiting = [asyncio.create_task(world.service.finish(started.id, CLI)) for _ in range(2)]
    await world.polls.wait()
    with pytest.raises(TooManyLogins):
        await world.service.finish(started.id, CLI)
    third = asyncio.create_task(world.service.finish(started.id, Origin("192.0.2.1")))
    await asyncio.sleep(0)
    with pytest.raises(TooManyLogins):
        await world.service.finish(started.id, Origin("192.0.2.2"))
    # A client that leaves.
    for task in (*waiting, third):
        task.cancel()
    await asyncio.gather(*waiting, third, return_exceptions=True)
    await world.service.decide(started.user_code, ANN, BROWSER, approve=True)
    assert await world.service.finish(started.id, CLI)


async def test_guessing_codes_and_ids_is_refused_before_long(world: World) -> None:
    for number in range(5):
        with pytest.raises(LoginUnknown):
            await world.service.find(f"BCDF-GHJ{CODE_ALPHABET[number]}", BROWSER)
    with pytest.raises(TooManyAttempts):
        await world.service.find("BCDF-GHJK", BROWSER)
    with pytest.raises(TooManyAttempts):
        await world.service.finish("a" * 32, Origin(BROWSER))


async def test_neither_the_id_nor_the_token_is_logged_or_shown(
    world: World, tmp_path: Path
) -> None:
    with capture_logs() as logs:
        started = await world.service.start(CLI)
        await world.service.decide(started.user_code, ANN, BROWSER, approve=True)
        token = await world.service.finish(started.id, CLI)
    stored = b"".join((tmp_path / name).read_bytes() for name in ("layover.db", "layover.db-wal"))
    assert started.user_code.encode() in stored
    for secret in (started.id, token):
        assert secret not in repr(logs)
        assert secret.encode() not in stored
    assert started.id not in repr(started)


async def test_what_is_over_is_forgotten(world: World) -> None:
    await world.service.start(CLI)
    assert await world.service.forget_over() == 0
    world.clock.advance(LIMITS.lifetime)
    assert await world.service.forget_over() == 1


def test_codes_have_no_letter_that_is_read_as_another() -> None:
    assert set(CODE_ALPHABET).isdisjoint("AEIOUY0123456789")
    assert len(set(CODE_ALPHABET)) == 20


@given(st.text(max_size=40))
def test_what_is_typed_is_a_code_or_nothing(text: str) -> None:
    found = read_code(text)
    assert found is None or (len(found) == 9 and read_code(found) == found)


@given(st.lists(st.sampled_from(CODE_ALPHABET), min_size=8, max_size=8))
def test_a_code_is_read_however_it_is_typed(letters: list[str]) -> None:
    code = "".join(letters)
    shown = f"{code[:4]}-{code[4:]}"
    for typed in (code, code.lower(), shown, f" {code[:4]} {code[4:]} ", " ".join(code)):
        assert read_code(typed) == shown
