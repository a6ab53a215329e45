import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layover.identity.names import (
    MAX_DESCRIPTION,
    MAX_NAME,
    InvalidName,
    checked_description,
    checked_name,
)


@pytest.mark.parametrize("name", ["web", "Équipe № 1", "数据", "a b", "x" * MAX_NAME, "🐳"])
def test_a_name_that_can_be_read_is_kept(name: str) -> None:
    assert checked_name(f"  {name}\n", "a name") == name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "1 to 100 characters"),
        (" \t\n", "1 to 100 characters"),
        ("x" * (MAX_NAME + 1), "1 to 100 characters"),
        ("x" * 100_000, "1 to 100 characters"),
        (" " * 100_000 + "x", "1 to 100 characters"),
        ("two\nlines", "U+000A"),
        ("red\x1b[31m", "U+001B"),
        ("nothing\x00", "U+0000"),
        ("txt\u202egpj.exe", "U+202E"),
        ("left\u2066right\u2069", "U+2066"),
        ("in\u200bvisible", "U+200B"),
        ("line\u2028break", "U+2028"),
        ("private\ue000", "U+E000"),
    ],
)
def test_a_name_that_cannot_is_refused_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(InvalidName) as caught:
        checked_name(name, "a project's name")
    assert str(caught.value).startswith("a project's name has")
    assert reason in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_description_may_be_left_out_and_is_longer() -> None:
    assert checked_description("  ", "a note") == ""
    assert checked_description("x" * MAX_DESCRIPTION, "a note") == "x" * MAX_DESCRIPTION
    with pytest.raises(InvalidName, match="200 characters at most"):
        checked_description("x" * (MAX_DESCRIPTION + 1), "a note")


@given(st.text(max_size=300))
def test_whatever_passes_is_one_line_of_visible_characters(text: str) -> None:
    try:
        name = checked_name(text, "a name")
    except InvalidName:
        return
    assert 0 < len(name) <= MAX_NAME
    assert name == name.strip()
    assert len(name.splitlines()) == 1
    assert not any(unicodedata.category(character)[0] == "C" for character in name)
    assert checked_name(name, "a name") == name
