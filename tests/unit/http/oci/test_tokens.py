import pytest
from hypothesis import given
from hypothesis import strategies as st

from layover.http.oci.tokens import _MAX_SCOPES, _scopes
from layover.identity.registry_tokens import CATALOG, Scope


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("repository:p/app:pull", [("p/app", {"pull"})]),
        ("repository:p/app:pull,push", [("p/app", {"pull", "push"})]),
        ("repository:p/app:*", [("p/app", {"*", "pull", "push", "delete"})]),
        ("repository(plugin):p:pull", [("p", {"pull"})]),
        ("repository:a:pull repository:b:push", [("a", {"pull"}), ("b", {"push"})]),
        ("registry:catalog:pull", []),
        ("registry:other:*", []),
        ("repository:p", []),
        ("repository::pull", []),
        ("repository:p:", []),
        ("repository:p:PULL", []),
        ("nonsense", []),
        ("", []),
        ("repository:a:pull nonsense", [("a", {"pull"})]),
    ],
)
def test_scopes_are_those_repositories_that_were_asked_for(
    text: str, expected: list[tuple[str, set[str]]]
) -> None:
    assert _scopes([text]) == tuple(Scope(name, frozenset(actions)) for name, actions in expected)


def test_the_catalog_has_a_scope_of_its_own_that_is_no_repositorys() -> None:
    assert _scopes(["registry:catalog:*"]) == (CATALOG,)
    assert _scopes(["repository:catalog:*"])[0] != CATALOG


def test_scopes_come_from_several_parameters_too() -> None:
    assert len(_scopes(["repository:a:pull", "repository:b:pull repository:c:pull"])) == 3


def test_no_more_scopes_are_taken_than_fit_a_header() -> None:
    assert len(_scopes(["repository:a:pull " * 1000])) == _MAX_SCOPES


@given(text=st.text())
def test_any_text_gives_scopes_or_none(text: str) -> None:
    _scopes([text])
