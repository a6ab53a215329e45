"""Signs users in with an OpenID Connect provider: authorization code, PKCE, state and nonce.

OpenID Connect Core 1.0, section 3.1; RFC 7636; RFC 9207. Nothing is kept here between the two
halves of a sign-in: the browser brings its `ProviderFlow` back, and has to keep it from changing.
"""

import base64
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlencode, urlsplit

from layover.identity.issuer_keys import IssuerUnavailable
from layover.identity.models import Unauthenticated
from layover.identity.oidc import IdToken, IdTokens
from layover.identity.sign_in_models import ProviderRefused

_SCOPE = "openid profile email"
_RANDOM_BYTES = 32
_LONGEST_CODE = 4096
_LONGEST_SUBJECT = 255  # OpenID Connect Core 1.0, section 2, of `sub`


@dataclass(frozen=True, slots=True)
class ProviderFlow:
    """What the second half of a sign-in has to know of the first."""

    state: str = field(repr=False)
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Vouched:
    """Who the provider says has signed in."""

    issuer: str
    subject: str
    names: tuple[object, ...]
    """What it calls them, the best first; of any type."""


class ProviderEndpoints(Protocol):
    """The provider's own side."""

    async def authorization_endpoint(self) -> str:
        """Where browsers are sent. Raises IssuerUnavailable."""
        ...

    async def redeem(self, code: str, verifier: str, redirect_uri: str) -> str:
        """Trade a code for an ID token, not verified yet. Raises IssuerUnavailable, and
        ProviderRefused when the provider does not take the code."""
        ...


class ProviderSignIn:
    """The provider of the settings."""

    def __init__(
        self,
        issuer: str,
        client_id: str,
        endpoints: ProviderEndpoints,
        tokens: IdTokens,
        redirect_uri: str,
    ) -> None:
        self._issuer, self._client_id, self._redirect_uri = issuer, client_id, redirect_uri
        self._endpoints, self._tokens = endpoints, tokens

    async def begin(self) -> tuple[str, ProviderFlow]:
        """Where to send the browser, and what it has to bring back. Raises IssuerUnavailable."""
        flow = ProviderFlow(*(secrets.token_urlsafe(_RANDOM_BYTES) for _ in range(3)))
        endpoint = await self._endpoints.authorization_endpoint()
        query = urlencode(
            {
                "response_type": "code",
                "client_id": self._client_id,
                "redirect_uri": self._redirect_uri,
                "scope": _SCOPE,
                "state": flow.state,
                "nonce": flow.nonce,
                "code_challenge": _challenge(flow.verifier),
                "code_challenge_method": "S256",
            }
        )
        return f"{endpoint}{'&' if urlsplit(endpoint).query else '?'}{query}", flow

    async def finish(self, flow: ProviderFlow, answer: Mapping[str, str]) -> Vouched:
        """Whom the provider vouches for, by the query that the browser came back with.

        Raises ProviderRefused, IssuerUnavailable.
        """
        if not secrets.compare_digest(answer.get("state", "").encode(), flow.state.encode()):
            raise ProviderRefused("state")
        if answer.get("iss", self._issuer) != self._issuer:
            raise ProviderRefused("iss")
        if "error" in answer:
            raise ProviderRefused(f"the provider answered {answer['error'][:100]!r}")
        code = answer.get("code", "")
        if not code or len(code) > _LONGEST_CODE:
            raise ProviderRefused("code")
        token = await self._endpoints.redeem(code, flow.verifier, self._redirect_uri)
        verified = await self._verify(token)
        self._check(verified, flow)
        claims = verified.claims
        return Vouched(
            verified.issuer,
            verified.subject,
            (claims.get("preferred_username"), claims.get("email"), verified.subject),
        )

    async def _verify(self, token: str) -> IdToken:
        try:
            return await self._tokens.verify(token, self._issuer, [self._client_id])
        except Unauthenticated as error:
            if isinstance(error.__cause__, IssuerUnavailable):
                raise error.__cause__ from error
            raise ProviderRefused(f"the ID token: {error.__cause__}") from error

    def _check(self, token: IdToken, flow: ProviderFlow) -> None:
        """What a relying party compares itself."""
        nonce = token.claims.get("nonce")
        if not isinstance(nonce, str) or not secrets.compare_digest(
            nonce.encode(errors="replace"), flow.nonce.encode()
        ):
            raise ProviderRefused("nonce")
        party = token.claims.get("azp", self._client_id)
        if party != self._client_id or (len(token.audiences) > 1 and "azp" not in token.claims):
            raise ProviderRefused("azp")
        if len(token.subject) > _LONGEST_SUBJECT:
            raise ProviderRefused("sub")


def _challenge(verifier: str) -> str:
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
