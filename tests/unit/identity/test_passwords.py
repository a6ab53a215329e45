import asyncio
import contextlib
import unicodedata
from collections.abc import Iterator

import pytest
from argon2 import PasswordHasher, extract_parameters
from hypothesis import given
from hypothesis import strategies as st

from layover.identity.passwords import MAX_LENGTH, Passwords, check_password
from layover.identity.sign_in_models import InvalidPassword
from layover.identity.throttle import TooManyAttempts

pytestmark = pytest.mark.anyio

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
PASSWORD = "correct horse battery"


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    with contextlib.closing(Passwords(CHEAP)) as passwords:
        yield passwords


async def test_a_password_opens_what_was_made_of_it_and_no_other_does(
    passwords: Passwords,
) -> None:
    encoded = await passwords.hash(PASSWORD)
    assert PASSWORD not in encoded
    assert encoded != await passwords.hash(PASSWORD)
    assert await passwords.verify(encoded, PASSWORD)
    for wrong in (
        "",
        PASSWORD.upper(),
        f"{PASSWORD} ",
        PASSWORD[:-1],
        "a" * 100_000,
        "\ud800" * 12,
    ):
        assert not await passwords.verify(encoded, wrong)


async def test_where_there_is_nobody_nothing_opens(passwords: Passwords) -> None:
    for password in (PASSWORD, "", "nobody signs in with this"):
        assert not await passwords.verify(None, password)
    assert not await passwords.verify("no encoding", PASSWORD)


async def test_a_password_is_the_same_on_every_keyboard(passwords: Passwords) -> None:
    composed = unicodedata.normalize("NFC", "señor señor señor")
    encoded = await passwords.hash(composed)
    assert await passwords.verify(encoded, unicodedata.normalize("NFD", composed))


async def test_a_password_is_as_long_as_it_reads(passwords: Passwords) -> None:
    syllables = "각난닫" * 40
    encoded = await passwords.hash(syllables)
    assert await passwords.verify(encoded, unicodedata.normalize("NFD", syllables))


@pytest.mark.parametrize(
    "password", ["", "elevenchars", "a" * 257, "abababababab", "x" * 12, "a\0b" * 5, "a\nb" * 5]
)
def test_what_is_no_password_is_refused_and_not_repeated(password: str) -> None:
    with pytest.raises(InvalidPassword) as refused:
        check_password(password)
    assert not password or password not in str(refused.value)


@given(st.text(max_size=300))
def test_a_password_is_taken_or_refused_and_nothing_else(password: str) -> None:
    try:
        taken = check_password(password)
    except InvalidPassword:
        return
    assert 12 <= len(taken) <= MAX_LENGTH
    assert check_password(taken) == taken


async def test_a_flood_is_refused_before_it_takes_the_memory(passwords: Passwords) -> None:
    results = await asyncio.gather(
        *(passwords.verify(None, PASSWORD) for _ in range(200)), return_exceptions=True
    )
    refused = [result for result in results if isinstance(result, TooManyAttempts)]
    assert len(refused) == 200 - 34
    assert results.count(False) == 34
    # And those who come after it are served.
    assert not await passwords.verify(None, PASSWORD)


async def test_whoever_leaves_leaves_room_only_when_the_thread_is_free(
    passwords: Passwords,
) -> None:
    for _ in range(5):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0):
                await passwords.verify(None, PASSWORD)
    assert not await passwords.verify(None, PASSWORD)


def test_hashes_cost_what_they_should() -> None:
    with contextlib.closing(Passwords()) as passwords:
        encoded = asyncio.run(passwords.hash(PASSWORD))
        cost = extract_parameters(encoded)
        assert encoded.startswith("$argon2id$")
        assert cost.memory_cost >= 19 * 1024
        assert cost.time_cost >= 2
        assert not passwords.is_outdated(encoded)
        assert passwords.is_outdated(CHEAP.hash(PASSWORD))
