import base64

import pytest

from layover.http.oci.auth import basic_secret
from layover.http.oci.errors import InvalidRequest, UserNameRefused
from layover.identity.models import Unauthenticated


def basic(credentials: bytes) -> str:
    return base64.b64encode(credentials).decode()


def test_the_password_is_the_token() -> None:
    assert basic_secret(basic(b"x-token:secret")) == "secret"
    assert basic_secret(f" {basic(b'x-token:with:colons')} ") == "with:colons"


@pytest.mark.parametrize("credentials", [b"admin:secret", b":secret", b"X-TOKEN:secret", b"secret"])
def test_another_user_name_is_told_the_right_one(credentials: bytes) -> None:
    with pytest.raises(UserNameRefused, match="x-token"):
        basic_secret(basic(credentials))


@pytest.mark.parametrize("credentials", [b"x-token", b"x-token:"])
def test_no_password_is_no_token(credentials: bytes) -> None:
    with pytest.raises(Unauthenticated):
        basic_secret(basic(credentials))


@pytest.mark.parametrize("value", ["!", basic(b"x-token:\xff"), "\xe9", "YQ"])
def test_malformed_credentials_are_a_malformed_request(value: str) -> None:
    with pytest.raises(InvalidRequest):
        basic_secret(value)
