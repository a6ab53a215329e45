"""The provider does what relying parties rely on, and what it is told to do wrong."""

import base64
import hashlib
import secrets
import urllib.parse

import httpx
import jwt

from tests.oidc_provider import Issuer, OidcProvider

CALLBACK = "http://127.0.0.1:1/callback"


def authorization_url(issuer: Issuer, verifier: str, **more: str) -> str:
    digest = hashlib.sha256(verifier.encode()).digest()
    query = {
        "response_type": "code",
        "client_id": "layover",
        "redirect_uri": CALLBACK,
        "scope": "openid email",
        "state": "a state",
        "nonce": "a nonce",
        "code_challenge": base64.urlsafe_b64encode(digest).decode().rstrip("="),
        "code_challenge_method": "S256",
        **more,
    }
    return f"{issuer.url}/authorize?{urllib.parse.urlencode(query)}"


def relying_party(provider: OidcProvider) -> Issuer:
    issuer = provider.issuer(secrets.token_hex(8))
    issuer.register_client("layover", "s3cret", CALLBACK)
    issuer.add_user("alice", "pass", email="alice@example.com")
    return issuer


def callback_query(url: str) -> dict[str, str]:
    return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query))


def trade(
    issuer: Issuer, code: str, verifier: str, secret: str = "s3cret", uri: str = CALLBACK
) -> httpx.Response:
    return httpx.post(
        f"{issuer.url}/token",
        data={
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": uri,
            "code_verifier": verifier,
        },
        auth=("layover", secret),
    )


def verified(issuer: Issuer, token: str) -> dict[str, object]:
    keys = jwt.PyJWKClient(f"{issuer.url}/jwks")
    claims: dict[str, object] = jwt.decode(
        token, keys.get_signing_key_from_jwt(token), audience="layover", issuer=issuer.url
    )
    return claims


def test_a_user_signs_in_with_a_code_and_its_verifier(provider: OidcProvider) -> None:
    issuer, verifier = relying_party(provider), secrets.token_urlsafe(32)
    back = issuer.sign_in(authorization_url(issuer, verifier), "alice", "pass")
    assert back.startswith(f"{CALLBACK}?")
    answer = callback_query(back)
    assert answer["state"] == "a state"
    tokens = trade(issuer, answer["code"], verifier)
    assert tokens.status_code == 200
    claims = verified(issuer, tokens.json()["id_token"])
    assert (claims["sub"], claims["nonce"], claims["email"]) == (
        "alice",
        "a nonce",
        "alice@example.com",
    )
    # A code is good once.
    assert trade(issuer, answer["code"], verifier).json() == {"error": "invalid_grant"}


def test_a_code_is_worth_nothing_without_its_verifier_its_secret_and_its_address(
    provider: OidcProvider,
) -> None:
    issuer, verifier = relying_party(provider), secrets.token_urlsafe(32)

    def code() -> str:
        back = issuer.sign_in(authorization_url(issuer, verifier), "alice", "pass")
        return callback_query(back)["code"]

    assert trade(issuer, code(), "another").status_code == 400
    assert trade(issuer, code(), verifier, secret="wrong").status_code == 401
    assert trade(issuer, code(), verifier, uri="http://127.0.0.1:2/").status_code == 400


def test_a_wrong_password_and_a_missing_challenge_come_back_as_errors(
    provider: OidcProvider,
) -> None:
    issuer, verifier = relying_party(provider), secrets.token_urlsafe(32)
    back = issuer.sign_in(authorization_url(issuer, verifier), "alice", "wrong")
    assert callback_query(back)["error"] == "access_denied"
    plain = httpx.get(authorization_url(issuer, verifier, code_challenge_method="plain"))
    assert callback_query(plain.headers["location"])["error"] == "invalid_request"
    stray = httpx.get(authorization_url(issuer, verifier, redirect_uri="http://evil.example/"))
    assert stray.status_code == 400


def test_the_next_id_token_is_spoiled_as_told_and_only_that(provider: OidcProvider) -> None:
    issuer, verifier = relying_party(provider), secrets.token_urlsafe(32)
    issuer.next_id_token(claims={"nonce": "another", "email": None})
    seen = []
    for _ in range(2):
        back = issuer.sign_in(authorization_url(issuer, verifier), "alice", "pass")
        tokens = trade(issuer, callback_query(back)["code"], verifier)
        claims = verified(issuer, tokens.json()["id_token"])
        seen.append((claims["nonce"], claims.get("email")))
    assert seen == [("another", None), ("a nonce", "alice@example.com")]
