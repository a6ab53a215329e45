"""What may pass is tried again, neither at once nor for ever."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layover.adapters.registries.retries import Passing, Patience, is_passing, told_seconds
from layover.oci.names import RepositoryName
from layover.oci.references import Place
from layover.promotion.models import RegistryUnavailable
from tests.unit.adapters.registries.fake import FakeTime

pytestmark = pytest.mark.anyio

PLACE = Place("registry.test", RepositoryName("acme/app"))
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
def test_what_a_registry_may_get_over_is_tried_again(status: int) -> None:
    assert is_passing(status)


@pytest.mark.parametrize("status", [200, 307, 400, 401, 403, 404, 413, 501, 505, 600])
def test_what_stays_as_it_is_is_not_tried_again(status: int) -> None:
    assert not is_passing(status)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("0", 0),
        (" 120 ", 120),
        ("Thu, 01 Jan 2026 00:01:30 GMT", 90),
        ("Thu, 01 Jan 2026 00:01:30 -0000", 90),
        ("Wed, 31 Dec 2025 23:00:00 GMT", 0),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("9" * 30, None),
        ("Thu, 99 Jan 2026 00:01:30 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str | None, seconds: float | None) -> None:
    assert told_seconds(text, NOW) == seconds


@given(text=st.text())
def test_no_retry_after_is_less_than_nothing(text: str) -> None:
    assert (told_seconds(text, NOW) or 0) >= 0


async def test_pauses_grow_up_to_a_bound_until_a_minute_is_over() -> None:
    time = FakeTime()
    patience = Patience(PLACE, time.time())
    with pytest.raises(RegistryUnavailable, match="takes no push now: 502"):
        while True:
            await patience.wait(Passing("502"))
    assert time.slept[:7] == [0.25, 0.5, 1, 2, 4, 8, 10]
    assert max(time.slept) == 10
    assert 50 < time.seconds <= 60


async def test_what_moves_has_the_time_that_it_takes() -> None:
    time = FakeTime()
    patience = Patience(PLACE, time.time())
    for _ in range(8):
        time.seconds += 50
        patience.moved()
        await patience.wait(Passing("broke"))
    # But however quickly they fail, not endlessly many times without getting further.
    with pytest.raises(RegistryUnavailable):
        for _ in range(8):
            patience.moved()
            await patience.wait(Passing("broke"))


async def test_progress_begins_the_count_anew() -> None:
    time = FakeTime()
    patience = Patience(PLACE, time.time())
    for _ in range(100):
        await patience.wait(Passing("broke"))
        patience.progressed()
    assert set(time.slept) == {0.25}


async def test_a_try_that_took_long_is_not_the_only_one() -> None:
    time = FakeTime()
    patience = Patience(PLACE, time.time())
    for _ in range(2):
        time.seconds += 600
        await patience.wait(Passing("no answer"))
    time.seconds += 600
    with pytest.raises(RegistryUnavailable):
        await patience.wait(Passing("no answer"))


async def test_what_a_registry_asks_to_wait_is_waited_and_counts_for_itself() -> None:
    time = FakeTime()
    patience = Patience(PLACE, time.time())
    for _ in range(3):
        await patience.wait(Passing("429", told_seconds=90))
    # A little longer each time, as others are told the same.
    assert time.slept == [90.25, 90.5, 91]
    with pytest.raises(RegistryUnavailable, match="429; it asks to wait 90 s"):
        await patience.wait(Passing("429", told_seconds=90))


async def test_one_that_asks_to_wait_too_long_is_not_waited_for() -> None:
    time = FakeTime()
    with pytest.raises(RegistryUnavailable, match="it asks to wait 21600 s"):
        await Patience(PLACE, time.time()).wait(Passing("429", told_seconds=21_600))
    assert time.slept == []


async def test_what_changed_is_tried_without_a_pause_but_not_endlessly() -> None:
    time = FakeTime()
    patience = Patience(PLACE, time.time())
    with pytest.raises(RegistryUnavailable):
        for _ in range(50):
            await patience.wait(Passing("401", is_at_once=True))
    assert time.slept == []
