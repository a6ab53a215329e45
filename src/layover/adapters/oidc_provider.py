"""The OpenID Connect provider of the settings, over HTTP."""

import asyncio
import time
from collections.abc import Callable, Mapping
from urllib.parse import quote_plus, urlsplit

import httpx
from pydantic import SecretStr

from layover.adapters.oidc_discovery import IssuerConfiguration, discover
from layover.identity.issuer_keys import IssuerUnavailable
from layover.identity.sign_in_models import ProviderRefused
from layover.outbound.documents import DocumentUnavailable, parse_json, read_bounded
from layover.outbound.rules import DialForbidden

# As long as keys are.
FRESH_FOR = 600.0
RETRY_AFTER = 5.0

_TIMEOUT_SECONDS = 10.0
_MAX_ANSWER_BYTES = 256 * 1024

_BAD_REQUEST = 400
_UNAUTHORIZED = 401


class HttpProviderEndpoints:
    """ProviderEndpoints by the provider's discovery document, kept for a while."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        issuer: str,
        client_id: str,
        client_secret: SecretStr,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`client` is an outbound one, and remains its owner's to close."""
        self._client, self._issuer = client, issuer
        self._client_id, self._client_secret = client_id, client_secret
        self._monotonic = monotonic
        self._configuration: IssuerConfiguration | None = None
        self._failure: IssuerUnavailable | None = None
        self._asked_at = 0.0
        self._asking = asyncio.Lock()

    async def authorization_endpoint(self) -> str:
        endpoint = (await self._discovered()).authorization_endpoint
        # A browser is sent there: it may name no script and no file.
        if urlsplit(endpoint).scheme not in ("https", "http"):
            raise IssuerUnavailable(self._issuer, "its configuration names no page to sign in at")
        return endpoint

    async def redeem(self, code: str, verifier: str, redirect_uri: str) -> str:
        endpoint = (await self._discovered()).token_endpoint
        if not endpoint:
            raise IssuerUnavailable(self._issuer, "its configuration names no token endpoint")
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
        }
        secret = self._client_secret.get_secret_value()
        auth: httpx.BasicAuth | None = None
        if secret:
            # RFC 6749, section 2.3.1: encoded as in a form before it is encoded as Basic.
            auth = httpx.BasicAuth(quote_plus(self._client_id), quote_plus(secret))
        else:
            form["client_id"] = self._client_id
        answer = await self._post(endpoint, form, auth)
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise ProviderRefused("the provider's answer has no ID token")
        return token

    async def _post(
        self, endpoint: str, form: Mapping[str, str], auth: httpx.BasicAuth | None
    ) -> Mapping[object, object]:
        headers = {"accept": "application/json", "accept-encoding": "identity"}
        try:
            async with (
                asyncio.timeout(_TIMEOUT_SECONDS),
                self._client.stream(
                    "POST", endpoint, data=dict(form), headers=headers, auth=auth
                ) as answer,
            ):
                if answer.status_code in (_BAD_REQUEST, _UNAUTHORIZED):
                    raise ProviderRefused(
                        f"the token endpoint answered with status {answer.status_code}"
                    )
                if answer.status_code != httpx.codes.OK:
                    raise IssuerUnavailable(
                        self._issuer, f"its token endpoint answered {answer.status_code}"
                    )
                content = await read_bounded(answer, _MAX_ANSWER_BYTES)
            document = parse_json(content, "the token endpoint's answer")
        except TimeoutError as error:
            raise IssuerUnavailable(self._issuer, "its token endpoint is too slow") from error
        except (DocumentUnavailable, DialForbidden, httpx.HTTPError, httpx.InvalidURL) as error:
            reason = str(error) or type(error).__name__
            raise IssuerUnavailable(self._issuer, reason) from error
        if not isinstance(document, Mapping):
            raise ProviderRefused("the token endpoint's answer is no JSON object")
        return document

    async def _discovered(self) -> IssuerConfiguration:
        async with self._asking:
            now = self._monotonic()
            known, age = self._configuration, now - self._asked_at
            if known is not None and age < FRESH_FOR:
                return known
            if self._failure is not None and age < RETRY_AFTER:
                # Anybody can press the button; the provider is not asked each time.
                raise self._failure
            self._asked_at = now
            try:
                self._configuration, self._failure = (
                    await discover(self._client, self._issuer),
                    None,
                )
            except IssuerUnavailable as error:
                self._failure = error
                if known is None:
                    raise
                return known
            return self._configuration
