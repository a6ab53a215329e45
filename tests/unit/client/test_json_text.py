"""One member of a JSON document is changed, and every other byte stays."""

import json
import string
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from layover.client import json_text

KEYS = st.text(alphabet=string.ascii_letters + 'é"\\\n\U0001f600', max_size=8)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
STYLES: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "indent": st.sampled_from([None, 0, 1, 2, 4, "\t"]),
        "separators": st.sampled_from([(",", ":"), (", ", ": "), (" , ", " :\t")]),
        "ensure_ascii": st.booleans(),
    }
)
SPACE = st.text(alphabet=" \t\r\n", max_size=3)


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    value = draw(st.dictionaries(KEYS, VALUES, max_size=4))
    text = draw(SPACE) + json.dumps(value, **draw(STYLES)) + draw(SPACE)
    if draw(st.booleans()):
        text = text.replace("\n", "\r\n")
    return text, value


@given(document=documents(), value=st.text(max_size=5) | st.just({"a": "b", "c": "d"}))
def test_a_member_that_is_added_and_taken_away_leaves_no_trace(
    document: tuple[str, dict[str, Any]], value: str | dict[str, str]
) -> None:
    text, content = document
    added = json_text.with_member(text, json_text.read_object(text), "the new", value)
    assert json.loads(added) == {**content, "the new": value}
    assert list(json.loads(added))[-1] == "the new"
    owner = json_text.read_object(added)
    member = owner.find("the new")
    assert member is not None
    assert json_text.without_member(added, owner, member) == text


@given(document=documents(), data=st.data())
def test_whichever_member_is_taken_away_the_others_stay(
    document: tuple[str, dict[str, Any]], data: st.DataObject
) -> None:
    text, content = document
    if not content:
        return
    owner = json_text.read_object(text)
    assert [member.key for member in owner.members] == list(content)
    member = data.draw(st.sampled_from(owner.members))
    left = json.loads(json_text.without_member(text, owner, member))
    assert left == {key: value for key, value in content.items() if key != member.key}
    assert list(left) == [key for key in content if key != member.key]


def _no_constant(name: str) -> Any:
    raise ValueError(name)


@given(text=st.text(alphabet='{}[]",:\\ntrue0-.eN \ud800\x00', max_size=30) | st.text())
@example(text="Infinity")
@example(text='{"a": NaN}')
def test_what_is_no_json_is_a_value_error_and_nothing_else(text: str) -> None:
    try:
        expected = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        with pytest.raises(ValueError):
            json_text.parse(text)
        return
    parsed = json_text.parse(text)
    assert isinstance(parsed, dict) == isinstance(expected, dict)
    if isinstance(parsed, dict):
        json_text.read_object(text)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000])
def test_nesting_without_end_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        json_text.parse(text)


def test_of_a_key_that_is_there_twice_the_last_counts() -> None:
    text = '{"a": 1, "a": 2}'
    member = json_text.read_object(text).find("a")
    assert member is not None
    assert text[member.value_start : member.value_end] == "2"
