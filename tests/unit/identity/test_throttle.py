import asyncio
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layover.identity.ids import TOKEN_PREFIX, new_secret, public_part
from layover.identity.throttle import Limits, LoginThrottle, TooManyAttempts

pytestmark = pytest.mark.anyio

ADDRESS = "203.0.113.9"
OTHER = "198.51.100.1"
LIMITS = Limits(failures=10, waiting=6, waiting_per_address=4, tracked=40)


class Throttled:
    """A throttle by a clock that stands still until a test moves it; nobody really waits."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.seconds = 1000.0
        self.waited: list[float] = []
        self.throttle = LoginThrottle(limits, lambda: self.seconds, self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.waited.append(seconds)

    async def fail(self, address: str = ADDRESS, secret: str = "") -> float:
        """How long the refusal of a token waits."""
        await self.throttle.failed(address, secret or new_secret())
        return self.waited[-1]

    async def attempt(self, address: str, user: str, *, right: bool = False) -> float:
        """How long a password waits until it is looked at."""
        attempt = await self.throttle.attempt(address, user)
        if right:
            attempt.succeeded()
        return self.waited[-1]


async def test_each_failure_of_an_address_is_answered_later_up_to_two_seconds() -> None:
    throttled = Throttled()
    waits = [await throttled.fail() for _ in range(10)]
    assert waits == sorted(waits)
    assert len(set(waits)) == 10
    assert waits[0] < 0.05
    assert waits[-1] == 2.0


async def test_past_the_limit_it_is_told_when_to_come_again() -> None:
    throttled = Throttled()
    for _ in range(10):
        await throttled.fail()
    for _ in range(100):
        with pytest.raises(TooManyAttempts) as caught:
            await throttled.fail()
        # Who goes on has not to wait the longer for it.
        assert caught.value.retry_after_seconds == 10
    throttled.seconds += 9.9
    with pytest.raises(TooManyAttempts, match="1 s"):
        await throttled.fail()
    throttled.seconds += 0.1
    assert await throttled.fail() == 2.0


async def test_failures_are_forgotten_one_by_one() -> None:
    throttled = Throttled()
    first = await throttled.fail()
    for _ in range(9):
        await throttled.fail()
    throttled.seconds += 10 * 10
    assert await throttled.fail() == first


async def test_an_address_is_not_slowed_down_by_another() -> None:
    throttled = Throttled()
    first = await throttled.fail("203.0.113.8")
    for _ in range(10):
        await throttled.fail()
    assert await throttled.fail("203.0.113.7") == first


async def test_of_ipv6_a_network_counts_as_one() -> None:
    throttled = Throttled()
    for number in range(10):
        await throttled.fail(f"2001:db8:1:2:{number}::{number}")
    with pytest.raises(TooManyAttempts):
        await throttled.fail("2001:db8:1:2:ffff::")
    assert await throttled.fail("2001:db8:1:3::") < 0.05


async def test_tokens_that_begin_alike_count_together_wherever_they_come_from() -> None:
    throttled = Throttled()
    secret = new_secret()
    beginning = public_part(secret)
    assert beginning is not None
    for number in range(10):
        await throttled.fail(f"203.0.113.{number}", beginning + new_secret()[-28:])
    with pytest.raises(TooManyAttempts):
        await throttled.fail("198.51.100.1", secret)
    assert await throttled.fail("198.51.100.1") < 0.05


async def test_of_what_is_no_token_of_ours_nothing_is_told_apart() -> None:
    throttled = Throttled()
    for number in range(20):
        await throttled.fail(f"203.0.113.{number}", "hunter2")
    assert public_part("hunter2") is None


def test_what_may_be_told_of_a_token_is_a_small_part_of_it() -> None:
    secret = new_secret()
    assert secret.startswith(TOKEN_PREFIX)
    # Five bits a character; more than 128 are left.
    assert len(secret) - len(public_part(secret) or "") >= 26


async def test_no_token_is_no_guess() -> None:
    throttled = Throttled()
    for _ in range(100):
        await throttled.throttle.failed(ADDRESS, "")
    assert throttled.waited == []


async def test_a_refused_address_fills_no_counts() -> None:
    throttled = Throttled()
    victim = new_secret()
    for number in range(9):
        await throttled.fail(f"198.51.100.{number}", victim)
    for _ in range(10):
        await throttled.fail()
    for _ in range(1000):
        with pytest.raises(TooManyAttempts):
            await throttled.fail()
    assert await throttled.fail("198.51.100.77", victim) == 2.0


async def test_a_flood_of_addresses_drives_out_none_that_matters() -> None:
    throttled = Throttled()
    for _ in range(10):
        await throttled.fail()
    for number in range(1000):
        await throttled.fail(f"10.0.{number // 256}.{number % 256}")
    with pytest.raises(TooManyAttempts):
        await throttled.fail()


@given(addresses=st.lists(st.integers(0, 200), max_size=300))
async def test_memory_is_bounded(addresses: list[int]) -> None:
    throttled = Throttled()
    for number in addresses:
        try:
            await throttled.fail(f"10.0.0.{number}")
            await throttled.attempt(f"10.0.1.{number}", f"user{number}", right=True)
        except TooManyAttempts:
            pass
    throttle = throttled.throttle
    for counts in (throttle._addresses, throttle._tokens, throttle._users, throttle._known):
        assert len(counts._counts) <= LIMITS.tracked


class Crowded:
    """A throttle whose answers wait until they are released, if they wait at all."""

    def __init__(self, limits: Limits) -> None:
        self.released = asyncio.Event()
        self.throttle = LoginThrottle(limits, lambda: 0.0, self._sleep)

    async def _sleep(self, seconds: float) -> None:
        if seconds >= 0.05:
            await self.released.wait()

    async def begin(self, *addresses: str) -> None:
        """Let these addresses fail so often that their next answers wait for long enough."""
        for address in addresses:
            await self.throttle.failed(address, new_secret())

    def start(self, address: str, count: int) -> list[asyncio.Task[None]]:
        return [
            asyncio.create_task(self.throttle.failed(address, new_secret())) for _ in range(count)
        ]


async def test_as_many_answers_wait_at_once_as_may_and_the_others_are_refused() -> None:
    crowded = Crowded(LIMITS)
    await crowded.begin(ADDRESS, OTHER)
    tasks = crowded.start(ADDRESS, 6) + crowded.start(OTHER, 4)
    await asyncio.sleep(0)
    # Four of the one address, and two of the other: six in all.
    refused = [task for task in tasks if task.done()]
    assert [tasks.index(task) for task in refused] == [4, 5, 8, 9]
    assert all(isinstance(task.exception(), TooManyAttempts) for task in refused)
    # Who has hardly failed is answered all the same, and may sign in.
    await crowded.throttle.failed("192.0.2.1", new_secret())
    await crowded.throttle.attempt("192.0.2.2", "ada")
    crowded.released.set()
    await asyncio.wait(tasks)
    # And then there is room again.
    await crowded.throttle.failed(ADDRESS, new_secret())


async def test_a_canceled_answer_makes_room() -> None:
    crowded = Crowded(Limits(failures=10, waiting=1))
    await crowded.begin(ADDRESS)
    for _ in range(2):
        (task,) = crowded.start(ADDRESS, 1)
        await asyncio.sleep(0)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


# --- passwords -----------------------------------------------------------------------------------


async def test_a_password_waits_before_it_is_looked_at_right_or_wrong() -> None:
    throttled = Throttled()
    for _ in range(9):
        await throttled.attempt(ADDRESS, "ada")
    assert await throttled.attempt(ADDRESS, "ada", right=True) == 2.0


async def test_guessing_a_users_password_is_slow_from_many_addresses() -> None:
    throttled = Throttled()
    for number in range(10):
        await throttled.attempt(f"10.0.0.{number}", "ada")
    for name in ("ada", "ADA", "\N{FULLWIDTH LATIN SMALL LETTER A}da"):
        with pytest.raises(TooManyAttempts):
            await throttled.throttle.attempt("10.0.1.1", name)
    assert await throttled.attempt("10.0.1.1", "grace") < 0.05


async def test_guessing_many_users_passwords_from_one_address_is_slow() -> None:
    throttled = Throttled()
    for number in range(10):
        await throttled.attempt(ADDRESS, f"user{number}")
    with pytest.raises(TooManyAttempts):
        await throttled.throttle.attempt(ADDRESS, "ada")


async def test_who_signs_in_between_guesses_gains_nothing() -> None:
    throttled = Throttled()
    for _ in range(9):
        await throttled.attempt(ADDRESS, "ada")
        await throttled.attempt(ADDRESS, "mallory", right=True)
    await throttled.attempt(ADDRESS, "ada")
    with pytest.raises(TooManyAttempts):
        await throttled.throttle.attempt(ADDRESS, "ada")


async def test_signing_in_often_is_no_guessing() -> None:
    throttled = Throttled()
    waits = {await throttled.attempt(ADDRESS, "ada", right=True) for _ in range(100)}
    assert max(waits) < 0.05


async def test_nobody_locks_a_user_out_from_afar() -> None:
    throttled = Throttled()
    await throttled.attempt(ADDRESS, "ada", right=True)
    for number in range(10):
        await throttled.attempt(f"10.0.0.{number}", "ada")
    assert await throttled.attempt(ADDRESS, "ada", right=True) < 0.05
    with pytest.raises(TooManyAttempts):
        await throttled.throttle.attempt("10.0.1.1", "ada")


async def test_the_address_of_a_user_is_no_way_to_guess_it() -> None:
    throttled = Throttled()
    await throttled.attempt(ADDRESS, "ada", right=True)
    for _ in range(10):
        await throttled.attempt(ADDRESS, "ada")
    with pytest.raises(TooManyAttempts):
        await throttled.throttle.attempt(ADDRESS, "ada")


async def test_attempts_that_come_together_are_counted_before_any_is_looked_at() -> None:
    released = asyncio.Event()
    limits = Limits(failures=10, waiting=100, waiting_per_address=100)
    throttle = LoginThrottle(limits, lambda: 0.0, lambda _: released.wait())
    tasks = [asyncio.create_task(throttle.attempt(ADDRESS, "ada")) for _ in range(50)]
    await asyncio.sleep(0)
    released.set()
    await asyncio.wait(tasks)
    assert sum(task.exception() is None for task in tasks) == 10


def test_what_is_told_has_whole_seconds() -> None:
    assert TooManyAttempts(timedelta(milliseconds=1)).retry_after_seconds == 1
    assert TooManyAttempts(timedelta(seconds=9.2)).retry_after_seconds == 10
