from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layover.identity.management import InvalidChange, InvalidPlace, Place
from layover.identity.paging import decode_place, encode_place, page_size


@given(st.datetimes(timezones=st.just(UTC)), st.from_regex(r"[a-z2-7]{10}", fullmatch=True))
def test_a_place_is_read_as_it_was_written(created_at: datetime, token_id: str) -> None:
    place = Place(created_at, token_id)
    assert decode_place(encode_place(place)) == place


@given(st.text(max_size=300))
def test_any_text_is_a_place_or_refused(text: str) -> None:
    try:
        decode_place(text)
    except InvalidPlace:
        return


@pytest.mark.parametrize(
    "token", ["x", "AAAA", "!", "é", "A" * 100_000, "OTk5OTk5OTk5OTk5OTk5OTk5OTphYg"]
)
def test_what_no_listing_gave_out_is_refused(token: str) -> None:
    with pytest.raises(InvalidPlace):
        decode_place(token)


def test_a_page_has_a_hundred_unless_told_otherwise_and_a_thousand_at_most() -> None:
    assert [page_size(asked) for asked in (0, 1, 1000, 1001, 2**31 - 1)] == [
        100,
        1,
        1000,
        1000,
        1000,
    ]
    with pytest.raises(InvalidChange):
        page_size(-1)
