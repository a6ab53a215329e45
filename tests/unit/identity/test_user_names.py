import pytest
from hypothesis import given
from hypothesis import strategies as st

from layover.identity.sign_in_models import InvalidUserName
from layover.identity.user_names import parse_user_name, shown_name


@pytest.mark.parametrize(
    ("text", "name"),
    [("ann", "ann"), (" Ann ", "ann"), ("a.b-c_d9", "a.b-c_d9"), ("a" * 64, "a" * 64)],
)
def test_a_name_is_taken_in_lower_case(text: str, name: str) -> None:
    assert parse_user_name(text) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "-ann",
        ".ann",
        "a b",
        "ann@example.com",
        "\N{CYRILLIC SMALL LETTER A}nn",
        "ann\n\n!",
        "a" * 65,
        "<b>",
    ],
)
def test_what_could_pass_for_another_s_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidUserName):
        parse_user_name(text)


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        (("Ann", "ann@example.com", "sub"), "ann"),
        ((None, "Ann@Example.com", "sub"), "ann@example.com"),
        ((7, ["x"], "a subject|7"), "a-subject-7"),
        (("\N{RIGHT-TO-LEFT OVERRIDE}nimda", None, "s"), "nimda"),
        (("---", "@", "\N{SNOWMAN}"), "user"),
        (("ann<script>",), "ann-script"),
    ],
)
def test_a_provider_s_user_is_called_by_the_best_claim(
    claims: tuple[object, ...], name: str
) -> None:
    assert shown_name(*claims) == name


@given(st.lists(st.text(max_size=200) | st.none() | st.integers(), max_size=3))
def test_a_shown_name_is_always_a_short_plain_one(claims: list[object]) -> None:
    name = shown_name(*claims)
    assert 1 <= len(name) <= 48
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789._@+-")
