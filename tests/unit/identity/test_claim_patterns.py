"""A pattern is a whole text with stars in it, and nothing else."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layover.identity.claim_patterns import claim_matches, find_claim, is_anything, matches

few = st.text(alphabet="ab/.*", max_size=12)


def naive(pattern: str, text: str) -> bool:
    """What a star means, said as plainly as can be."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(naive(pattern[1:], text[start:]) for start in range(len(text) + 1))
    return bool(text) and text[0] == pattern[0] and naive(pattern[1:], text[1:])


@given(pattern=few, text=few)
def test_a_star_stands_for_any_text(pattern: str, text: str) -> None:
    assert matches(pattern, text) == naive(pattern, text)


@given(text=st.text())
def test_a_text_without_stars_stands_for_itself_alone(text: str) -> None:
    pattern = text.replace("*", "")
    assert matches(pattern, pattern)
    assert not matches(pattern, f"{pattern}x")
    assert not matches(pattern, f"x{pattern}")
    assert not matches(pattern, f"{pattern}\n")


@given(parts=st.lists(st.text(), min_size=2, max_size=5), between=st.text())
def test_what_a_pattern_was_made_of_matches(parts: list[str], between: str) -> None:
    assert matches("*".join(parts), between.join(parts))


@pytest.mark.parametrize("pattern", [".", "a.c", "[abc]", "a|b", "(a)", "^a$", "\\w", "a?", "a+"])
def test_nothing_but_a_star_is_special(pattern: str) -> None:
    for text in ("a", "b", "abc", "axc", "aa", "x"):
        assert not matches(pattern, text)
    assert matches(pattern, pattern)


@pytest.mark.parametrize(
    ("pattern", "text", "does"),
    [
        ("acme/*", "acme/app", True),
        ("acme/*", "acme/app/more", True),
        ("acme/*", "acme/", True),
        ("acme/*", "acme", False),
        ("acme/*", "evil/acme/app", False),
        ("acme/*", "acme-evil/app", False),
        ("refs/heads/*", "refs/heads/main", True),
        ("refs/heads/release-*", "refs/heads/release-1/x", True),
        ("*", "", True),
        ("a*a", "a", False),
        ("ab*ba", "aba", False),
        ("Main", "main", False),
    ],
)
def test_examples(pattern: str, text: str, does: bool) -> None:
    assert matches(pattern, text) == does


def test_a_pattern_of_many_stars_comes_to_an_end() -> None:
    # With backtracking it would take longer than there has been time.
    assert not matches("a*" * 500 + "b", "a" * 16_000)
    assert not matches("*a" * 500 + "b*", "a" * 16_000)


def test_a_pattern_of_stars_alone_is_known() -> None:
    assert is_anything("*")
    assert is_anything("***")
    assert not is_anything("*a*")
    assert is_anything("")


CLAIMS: dict[str, Any] = {
    "repository": "acme/app",
    "build_number": 12,
    "protected": True,
    "step": None,
    "ratio": 0.5,
    "huge": 10**100,
    "groups": ["dev", "ops", 7, None, {"a": "b"}],
    "oidc.circleci.com/project-id": "p",
    "kubernetes.io": {"namespace": "web", "pod": {"name": "a"}, "a/b": {"~": "odd"}},
    "list": [{"name": "first"}, {"name": "second"}],
    "": "empty",
}


@pytest.mark.parametrize(
    ("name", "pattern", "does"),
    [
        ("repository", "acme/*", True),
        ("repository", "evil/*", False),
        ("build_number", "12", True),
        ("build_number", "1*", True),
        ("protected", "true", True),
        ("protected", "True", False),
        ("protected", "1", False),
        ("step", "*", False),
        ("ratio", "*", False),
        ("huge", "*", False),
        ("missing", "*", False),
        ("groups", "ops", True),
        ("groups", "7", True),
        ("groups", "admin", False),
        ("groups", "*dev*ops*", False),
        ("kubernetes.io", "*", False),
        ("oidc.circleci.com/project-id", "p", True),
        ("/kubernetes.io/namespace", "web", True),
        ("/kubernetes.io/pod/name", "a", True),
        ("/kubernetes.io/pod", "*", False),
        ("/kubernetes.io/a~1b/~0", "odd", True),
        ("kubernetes.io.namespace", "*", False),
        ("/list/1/name", "second", True),
        ("/list/2/name", "*", False),
        ("/list/-1/name", "*", False),
        ("/list/99999999999999999999/name", "*", False),
        ("/repository", "acme/app", True),
        ("/repository/0", "*", False),
        ("/", "empty", True),
    ],
)
def test_a_claim_is_found_by_its_name_or_a_pointer(name: str, pattern: str, does: bool) -> None:
    assert claim_matches(CLAIMS, name, pattern) == does


@given(name=st.text(alphabet="/~01ab.-", max_size=20), pattern=st.text(max_size=5))
def test_no_name_is_more_than_not_found(name: str, pattern: str) -> None:
    find_claim(CLAIMS, name)
    claim_matches(CLAIMS, name, pattern)
