"""Durations and sizes are read as they are told."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layover.units import read_duration, read_size, told_duration, told_size


@given(st.integers(0, 36500 * 86400))
def test_a_duration_is_read_back_from_what_is_told(seconds: int) -> None:
    length = timedelta(seconds=seconds)
    assert read_duration(told_duration(length)) == length


@given(st.integers(0, 1 << 50))
def test_a_size_is_read_back_from_what_is_told(count: int) -> None:
    if count >= 10**15:
        count -= count % 1024
    assert read_size(told_size(count)) == count


@pytest.mark.parametrize(
    ("text", "told"), [("72h", "3d"), ("36h", "36h"), ("90s", "90s"), ("120s", "2m"), ("0s", "0s")]
)
def test_a_duration_is_told_in_the_largest_unit_that_is_exact(text: str, told: str) -> None:
    assert told_duration(read_duration(text)) == told


@pytest.mark.parametrize(
    "text", ["", "7", "d", "-1d", "1.5h", "1d12h", "1w", "9" * 20 + "s", "\u0661d"]
)
def test_what_is_no_duration_is_refused_with_what_was_given(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration such as 90s"):
        read_duration(text)


def test_a_duration_that_no_calendar_has_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at most 36500d, not '36501d'"):
        read_duration("36501d")
    with pytest.raises(ValueError, match="expected at most"):
        read_duration("999999999999999d")
