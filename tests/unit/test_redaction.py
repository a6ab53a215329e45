import base64
import json
import secrets
from typing import Any

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layover.identity.ids import new_secret
from layover.redaction import REDACTED, redact, redact_value

TOKEN = new_secret()
JWT = jwt.encode({"sub": "x", "aud": "y"}, "k" * 32, "HS256")
BASIC = base64.b64encode(f"x-token:{TOKEN}".encode()).decode()
PEM = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIABC\nDEF==\n-----END EC PRIVATE KEY-----\n"

# What a secret's text may not leave anything of.
SECRETS = (TOKEN, JWT, BASIC, BASIC.rstrip("="))


def hidden(text: str, *secret: str) -> bool:
    """Whether no part of a secret of a dozen characters is left."""
    return not any(
        part[start : start + 12] in text for part in secret for start in range(len(part) - 11)
    )


@settings(deadline=None)
@given(before=st.text(), after=st.text(), secret=st.sampled_from(SECRETS))
def test_no_token_is_left_whatever_stands_around_it(before: str, after: str, secret: str) -> None:
    assert hidden(redact(f"{before}{secret}{after}"), secret)


VALUES: Any = st.recursive(
    st.one_of(st.none(), st.integers(), st.text(), st.binary(), st.sampled_from(SECRETS)),
    lambda inner: st.one_of(
        st.lists(inner), st.dictionaries(st.one_of(st.text(), st.sampled_from(SECRETS)), inner)
    ),
)


@settings(deadline=None, max_examples=50)
@given(value=VALUES)
def test_no_token_is_left_however_deep(value: Any) -> None:
    text = json.dumps(redact_value(value), ensure_ascii=False)
    assert not any(secret in text for secret in SECRETS)


WORDS = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~", min_size=8)


@settings(deadline=None, max_examples=20)
@given(password=WORDS)
@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Basic {}",
        "authorization: token {}",
        "'Authorization': 'Bearer {}'",
        '{{"Authorization": "Bearer {}"}}',
        "(b'authorization', b'Bearer {}')",
        "Proxy-Authorization: {} {}",
        "Cookie: session={}; other={}",
        "Set-Cookie: session={}; HttpOnly",
        "X-Registry-Auth: {}",
        "GET https://user:{}@host.example/path?x=y",
        "https://{}@host.example/",
        "cannot reach postgresql://layover:{}@db.example/layover?sslmode=require",
        "cannot reach postgresql+psycopg://layover:{}/with:odd@signs#{}@db.example/layover",
        "password={}",
        "PASSWORD = {} host=db",
        "host=db password='{} with blanks' port=1",
        'host=db password="{} with blanks" port=1',
        "{{'password': '{}'}}",
        '{{"client_secret":"{}","x":"y"}}',
        '"{{\\"password\\": \\"{}\\"}}"',
        "LAYOVER_TOKEN={} layover list",
        "?access_token={}&x=y",
        "https://bucket.example/key?X-Amz-Credential={}&X-Amz-Signature={}&x=y",
        "https://account.example/key?se=1&sig={}&x=y",
        "https://issuer.example/callback?code={}&state={}",
        "BlobStore(secret_key='{}', access_key='{}')",
        "$argon2id$v=19$m=65536,t=3,p=4${}$abc",
    ],
)
def test_what_is_called_a_secret_is_none_that_is_told(text: str, password: str) -> None:
    left = redact(text.replace("{}", password).replace("{{", "{").replace("}}", "}"))
    assert REDACTED in left
    assert password not in left


def test_a_private_key_is_not_told_even_in_part() -> None:
    for text in (f"could not read {PEM} at all", f"could not read {PEM[:50]}"):
        assert "MHcCAQEE" not in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "a valid token is needed: run `layover login`, or pass a token",
        "malformed Basic credentials",
        "the user name has to be x-token, with a token as password",
        "grant_type has to be password or refresh_token",
        "this registry token does not cover pull on p/app",
        'Bearer realm="https://registry.example/token",service="registry.example"',
        "http://127.0.0.1:5000/37wd4g3cqm/app@sha256:" + "0" * 64,
        "cannot reach https://s3.example.com/bucket/key: connection refused",
        "token_id=abcdefghij token_kind=user description=a token",
        "revoked token abcdefghij: it was the last",
        "LAYOVER_BUILD_CLIENT_TIMEOUT, LAYOVER_TOKEN",
        'database "layover_production" does not exist',
        "unexpected KeyError: 'password'",
        "/v2/p/basic/manifests/v1",
    ],
)
def test_what_is_no_secret_stays_as_it_is(text: str) -> None:
    assert redact(text) == text


def test_a_name_that_says_secret_hides_its_value_and_an_id_does_not() -> None:
    assert redact_value(
        {"password": "a", "client_secret": b"b", "authorization": "c", "token_id": "d", "token": ""}
    ) == {
        **{"password": REDACTED, "client_secret": REDACTED, "authorization": REDACTED},
        **{"token_id": "d", "token": ""},
    }


def test_what_surrounds_a_secret_is_still_told() -> None:
    assert redact(f"job 7 failed: {TOKEN} is not for p") == f"job 7 failed: {REDACTED} is not for p"
    assert (
        redact("cannot reach postgresql://layover:pw@db.example/layover: refused")
        == f"cannot reach postgresql://{REDACTED}@db.example/layover: refused"
    )


def test_a_long_text_takes_no_longer_than_it_is() -> None:
    # What backtracks would not come to an end.
    pieces = ("a", "password", "://", "basic ", "\\", "bearer", " ", "'", '"', "postgres://", "@")
    for text in [piece * 20_000 for piece in pieces]:
        redact(f"token={text}")
        redact(f"https://{text}")
        redact(f'password="{text}')


def test_numbers_and_nothing_stay_what_they_are() -> None:
    assert redact_value([1, 2.5, True, None, secrets]) == [1, 2.5, True, None, repr(secrets)]
