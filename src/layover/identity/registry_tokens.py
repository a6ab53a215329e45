"""The short-lived bearer tokens of the registry's token authentication.

A registry token stands for the token it was got with and narrows it to the scopes that were
asked for. What its holder may do at all is decided anew on each request, so it grants nothing
that its token has lost.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import jwt

from layover.identity.models import Principal, Unauthenticated

LIFETIME = timedelta(minutes=5)

_ALGORITHM = "HS256"
KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Scope:
    """What a registry token is for: actions such as "pull" on one repository, or "*" on the
    catalog."""

    name: str
    actions: frozenset[str]
    kind: str = "repository"


CATALOG = Scope("catalog", frozenset({"*"}), "registry")


class RegistryTokens:
    """Signs and reads registry tokens with a key that all replicas share."""

    def __init__(self, key: bytes, now: Callable[[], datetime]) -> None:
        assert len(key) == KEY_BYTES
        self._key, self._now = key, now

    def issue(self, principal: Principal, scopes: tuple[Scope, ...]) -> str:
        """A token for `principal`, narrowed to `scopes`, that lives for LIFETIME."""
        now = self._now()
        claims = {
            "sub": principal.token_id,
            "iat": now,
            "exp": now + LIFETIME,
            "access": [
                {"type": scope.kind, "name": scope.name, "actions": sorted(scope.actions)}
                for scope in scopes
            ],
        }
        return jwt.encode(claims, self._key, _ALGORITHM)

    def issued(self, token: str) -> bool:
        """Whether we signed it, expired or not."""
        try:
            jwt.decode(
                token, self._key, [_ALGORITHM], options={"verify_exp": False, "verify_iat": False}
            )
        except jwt.InvalidTokenError:
            return False
        return True

    def read(self, token: str) -> tuple[str, tuple[Scope, ...]]:
        """The ID of the token behind a registry token, and its scopes.

        Raises Unauthenticated unless we signed it and it has not expired.
        """
        try:
            # The clock is ours, so that expiry is judged by it too.
            claims = jwt.decode(
                token, self._key, [_ALGORITHM], options={"verify_exp": False, "verify_iat": False}
            )
            if claims["exp"] <= self._now().timestamp():
                raise Unauthenticated
            scopes = tuple(
                Scope(access["name"], frozenset(access["actions"]), access["type"])
                for access in claims["access"]
            )
            return claims["sub"], scopes
        except (jwt.InvalidTokenError, KeyError, TypeError) as error:
            raise Unauthenticated from error
