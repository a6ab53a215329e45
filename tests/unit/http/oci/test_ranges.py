import pytest
from hypothesis import given
from hypothesis import strategies as st

from layover.http.oci.ranges import ByteRange, RangeUnsatisfiable, matches, parse_range

ETAG = '"sha256:abc"'


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", ByteRange(0, 1)),
        ("bytes=0-9", ByteRange(0, 10)),
        ("bytes=0-99999999999999999", ByteRange(0, 10)),
        ("bytes=3-", ByteRange(3, 10)),
        ("bytes=-3", ByteRange(7, 10)),
        ("bytes=-10", ByteRange(0, 10)),
        ("bytes=-11", ByteRange(0, 10)),
        ("BYTES=1-2", ByteRange(1, 3)),
        (" bytes=1-2 ", ByteRange(1, 3)),
    ],
)
def test_one_range_is_read_up_to_the_contents_end(header: str, expected: ByteRange) -> None:
    assert parse_range(header, 10) == expected


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=5-3",
        "bytes=--5",
        "bytes=0-1,3-4",
        "bytes=0-1, 3-4",
        "items=0-1",
        "bytes=0x1-2",
        "bytes=1.5-2",
        "bytes=+1-2",
        "bytes=\N{SUPERSCRIPT TWO}-3",
        "bytes=\N{ARABIC-INDIC DIGIT ONE}-",
        "bytes=0-" + "9" * 5_000,
        "bytes=" + "9" * 5_000 + "-",
        "bytes=-" + "9" * 5_000,
    ],
)
def test_what_is_no_single_range_asks_for_the_whole(header: str | None) -> None:
    assert parse_range(header, 10) is None


@pytest.mark.parametrize(
    ("header", "size_bytes"),
    [
        ("bytes=10-", 10),
        ("bytes=10-20", 10),
        ("bytes=-0", 10),
        ("bytes=0-", 0),
        ("bytes=0-0", 0),
        ("bytes=-1", 0),
    ],
)
def test_a_range_behind_the_end_cannot_be_satisfied(header: str, size_bytes: int) -> None:
    with pytest.raises(RangeUnsatisfiable) as refused:
        parse_range(header, size_bytes)
    assert refused.value.size_bytes == size_bytes


@given(header=st.from_regex(r"bytes=\d{0,22}-\d{0,22}"), size_bytes=st.integers(0, 2**63))
def test_a_range_is_never_empty_and_never_outside(header: str, size_bytes: int) -> None:
    try:
        part = parse_range(header, size_bytes)
    except RangeUnsatisfiable:
        return
    assert part is None or 0 <= part.start < part.stop <= size_bytes


@pytest.mark.parametrize(
    "header", [ETAG, f"W/{ETAG}", "*", f'"other", {ETAG}', f'"other",W/{ETAG}']
)
def test_a_condition_that_names_the_entity_tag_matches(header: str) -> None:
    assert matches(header, ETAG)


@pytest.mark.parametrize("header", [None, "", '"other"', "sha256:abc", '"sha256:abcd"', "w/*"])
def test_a_condition_that_names_another_does_not_match(header: str | None) -> None:
    assert not matches(header, ETAG)
