import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layover.promotion.authorizing import MAX_SECRET_BYTES, basic, basic_encoded, bearer
from layover.promotion.models import AuthorizationScheme, InvalidPush
from tests.unit.builds.memory import START


def test_a_token_is_shown_as_it_is() -> None:
    authorization = bearer("abc.def-_~+/=", START)
    assert authorization.header == "Bearer abc.def-_~+/="
    assert (authorization.expires_at, authorization.is_kept) == (START, True)


def test_a_user_and_a_password_are_shown_in_base64_and_never_kept() -> None:
    authorization = basic("ada", "pass:wörd")
    assert authorization.scheme is AuthorizationScheme.BASIC
    assert base64.b64decode(authorization.secret).decode() == "ada:pass:wörd"
    assert not authorization.is_kept
    assert basic_encoded(authorization.secret) == authorization


@pytest.mark.parametrize("token", ["", "a b", "a\r\nHost: evil", "a\x00", "tökén", "a\x7f", "a\n"])
def test_what_could_break_a_header_is_no_token(token: str) -> None:
    with pytest.raises(InvalidPush) as caught:
        bearer(token)
    assert not token or token not in str(caught.value)


@pytest.mark.parametrize(
    ("username", "password"),
    [
        ("", "secret"),
        ("a:b", "secret"),
        ("a", "se\ncret"),
        ("a\x00", "secret"),
        ("a", "\ud800secret"),
    ],
)
def test_what_is_no_user_or_password_is_refused_unquoted(username: str, password: str) -> None:
    with pytest.raises(InvalidPush) as caught:
        basic(username, password)
    assert "cret" not in str(caught.value)


def test_secrets_are_not_without_end() -> None:
    assert bearer("x" * MAX_SECRET_BYTES)
    too_long = r"longer than 65536 bytes"
    with pytest.raises(InvalidPush, match=too_long):
        bearer("x" * (MAX_SECRET_BYTES + 1))
    with pytest.raises(InvalidPush, match=too_long):
        basic("a", "x" * MAX_SECRET_BYTES)
    with pytest.raises(InvalidPush, match=too_long):
        basic_encoded("A" * (MAX_SECRET_BYTES + 1))


@pytest.mark.parametrize("secret", ["", "!", "YQ", base64.b64encode(b"no colon").decode(), "/w=="])
def test_what_is_not_user_and_password_in_base64_is_refused_unquoted(secret: str) -> None:
    with pytest.raises(InvalidPush) as caught:
        basic_encoded(secret)
    assert not secret or secret not in str(caught.value)
    assert caught.value.__cause__ is None


@given(text=st.text(max_size=40))
def test_whatever_is_taken_makes_one_header_and_no_repr_has_it(text: str) -> None:
    for read in (bearer, lambda secret: basic("user", secret), basic_encoded):
        try:
            authorization = read(text)
        except InvalidPush:
            continue
        assert authorization.header.isascii()
        assert authorization.header.isprintable()
        assert "secret" not in repr(authorization)
