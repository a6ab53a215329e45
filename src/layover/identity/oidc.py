"""ID tokens of OpenID Connect: who an issuer says that a caller is, and whether it said so.

A token is what a stranger sent until the last line of `IdTokens.verify`: its size is bounded
before it is read, each claim's type is checked before it is used, and the key that verifies it is
one that its issuer publishes, never one that the token brings (OpenID Connect Core 1.0, section
3.1.3.7; RFC 8725). Every refusal reads alike; what was wrong is the refusal's cause, for a log.
"""

import base64
import binascii
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

import jwt

from layover.identity.issuer_keys import (
    ALGORITHMS,
    IssuerKeys,
    IssuerUnavailable,
    VerificationKey,
)
from layover.identity.models import Unauthenticated

# How far an issuer's clock may be from ours.
CLOCK_SKEW = timedelta(seconds=60)

# Those of CI systems have 1 to 4 KiB.
MAX_TOKEN_BYTES = 16 * 1024

# A key that comes with the token proves nothing (CVE-2018-0114, CVE-2025-24976).
_KEYS_OF_ITS_OWN = frozenset({"jwk", "jku", "x5c", "x5u"})

# Anything else is another kind of token, such as an access token (RFC 8725, section 3.11).
_TYPES = frozenset({"jwt", "application/jwt"})

# With a day left for the skew.
_END_OF_TIME = datetime.max.replace(tzinfo=UTC).timestamp() - 86_400

_jws = jwt.PyJWS()


class IdTokenRefused(Exception):
    """Why an ID token is not accepted: the cause of an Unauthenticated, never told to a caller.

    It names claims and quotes no value.
    """


@dataclass(frozen=True, slots=True)
class IdToken:
    """What a token says that was verified."""

    issuer: str
    subject: str
    audiences: frozenset[str]
    expires_at: datetime
    """By the issuer's clock."""
    claims: Mapping[str, Any] = field(repr=False)
    """All of them, as JSON."""


class IdTokens:
    """Verifies ID tokens with their issuers' keys."""

    def __init__(self, keys: IssuerKeys, now: Callable[[], datetime]) -> None:
        self._keys, self._now = keys, now

    async def verify(self, token: str, issuer: str, audiences: Collection[str] | None) -> IdToken:
        """What the token says, if `issuer` signed it for one of `audiences` and it is in time.

        With None the caller compares the audiences itself. Ask only with an issuer that somebody
        trusts. A relying party has to compare `nonce`, and `azp` where there are several
        audiences, itself. Raises Unauthenticated.
        """
        try:
            header, claims = _parse(token)
            _check_header(header)
            # What needs no key comes first: a token that is none of ours costs no request.
            verified = _check_claims(claims, issuer, audiences, self._now())
            key_id = header.get("kid")
            keys = await self._keys.keys(issuer, key_id)
            key = _choose(keys, key_id, str(header["alg"]))
            _jws.decode_complete(token, key.public_key, algorithms=[str(header["alg"])])
        except (IdTokenRefused, IssuerUnavailable) as error:
            raise Unauthenticated from error
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise Unauthenticated from IdTokenRefused(f"signature: {type(error).__name__}")
        return verified


def looks_like_id_token(text: str) -> bool:
    """Whether the text has a token's form: three parts of base64url. It says nothing more."""
    return len(text) <= MAX_TOKEN_BYTES and text.count(".") == 2 and text.startswith("ey")


def unverified_issuer(token: str) -> str:
    """The issuer that a token names, to ask whether anybody trusts it. Raises Unauthenticated."""
    try:
        _, claims = _parse(token)
        issuer = claims.get("iss")
        # As URLs are: it is looked up, and no database holds every text that JSON can.
        if not isinstance(issuer, str) or not issuer.isascii() or not issuer.isprintable():
            _refuse("iss")
    except IdTokenRefused as error:
        raise Unauthenticated from error
    return issuer


def _refuse(reason: str) -> NoReturn:
    raise IdTokenRefused(reason)


def _parse(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A compact JWS's header and claims (RFC 7515, section 3.1), none of them verified."""
    if len(token) > MAX_TOKEN_BYTES:
        _refuse("too long")
    if not token.isascii() or token.count(".") != 2:
        _refuse("not a JWT")
    header, claims, _ = token.split(".")
    return _parse_object(header), _parse_object(claims)


def _parse_object(part: str) -> dict[str, Any]:
    try:
        content = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
        parsed = json.loads(
            content, object_pairs_hook=_each_once, parse_constant=lambda _: _refuse("a number")
        )
    except (binascii.Error, ValueError, RecursionError):
        raise IdTokenRefused("not a JWT") from None
    return parsed if isinstance(parsed, dict) else _refuse("not a JWT")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two claims of one name could each be read by somebody else (RFC 7519, section 4)."""
    parsed = dict(pairs)
    return parsed if len(parsed) == len(pairs) else _refuse("a name twice")


def _check_header(header: Mapping[str, Any]) -> None:
    algorithm, key_id, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        _refuse("alg")
    if not (key_id is None or isinstance(key_id, str)):
        _refuse("kid")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        _refuse("typ")
    # We know no extension that a token could insist on.
    if "crit" in header or "b64" in header or not _KEYS_OF_ITS_OWN.isdisjoint(header):
        _refuse("a header that is not taken")


def _check_claims(
    claims: Mapping[str, Any], issuer: str, audiences: Collection[str] | None, now: datetime
) -> IdToken:
    if claims.get("iss") != issuer:
        _refuse("iss")
    subject = claims.get("sub")
    if not isinstance(subject, str) or not subject:
        _refuse("sub")
    audience = claims.get("aud")
    listed: list[Any] = audience if isinstance(audience, list) else [audience]
    if not all(isinstance(each, str) and each for each in listed):
        _refuse("aud")
    named = frozenset(listed)
    if not named or (audiences is not None and named.isdisjoint(audiences)):
        _refuse("aud")
    expires_at = _time(claims, "exp")
    if expires_at is None or now >= expires_at + CLOCK_SKEW:
        _refuse("exp")
    for name in ("nbf", "iat"):
        time = _time(claims, name)
        if time is not None and time > now + CLOCK_SKEW:
            _refuse(name)
    return IdToken(issuer, subject, named, expires_at, claims)


def _time(claims: Mapping[str, Any], name: str) -> datetime | None:
    """A NumericDate (RFC 7519, section 2), which JSON may have as anything at all."""
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        _refuse(name)
    # What is no number at all, as 1e999, is not in between either.
    if not 0 <= value < _END_OF_TIME:
        _refuse(name)
    return datetime.fromtimestamp(value, UTC)


def _choose(
    keys: Collection[VerificationKey], key_id: str | None, algorithm: str
) -> VerificationKey:
    """The one key that the token can be signed with: by its ID, or the only one that fits."""
    fitting = [
        key
        for key in keys
        if algorithm in key.algorithms and (key_id is None or key.key_id == key_id)
    ]
    return fitting[0] if len(fitting) == 1 else _refuse("kid")
