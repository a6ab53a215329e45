"""What an issuer says of itself (OpenID Connect Discovery 1.0), through the outbound client."""

from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from layover.identity.issuer_keys import IssuerUnavailable, VerificationKey, parse_keys
from layover.outbound.documents import DocumentUnavailable, fetch_json
from layover.outbound.rules import DialForbidden

# The largest known have 5 KiB, and 30 KiB where certificates come with the keys.
_MAX_CONFIGURATION_BYTES, _MAX_KEYS_BYTES = 64 * 1024, 256 * 1024

_LONGEST_URL = 1024

_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class IssuerConfiguration:
    """Where an issuer's parts are; those that it did not name are empty."""

    issuer: str
    jwks_uri: str
    authorization_endpoint: str = ""
    token_endpoint: str = ""


async def discover(client: httpx.AsyncClient, issuer: str) -> IssuerConfiguration:
    """The issuer's configuration. Raises IssuerUnavailable."""
    document = await _fetch(
        client,
        issuer,
        f"{issuer.rstrip('/')}/.well-known/openid-configuration",
        _MAX_CONFIGURATION_BYTES,
    )
    if not isinstance(document, Mapping):
        raise IssuerUnavailable(issuer, "its configuration is no JSON object")
    # Section 4.3: exactly equal, or somebody speaks for another.
    if document.get("issuer") != issuer:
        raise IssuerUnavailable(issuer, "its configuration is another issuer's")
    jwks_uri = _text(document, "jwks_uri")
    if not jwks_uri:
        raise IssuerUnavailable(issuer, "its configuration names no keys")
    return IssuerConfiguration(
        issuer,
        jwks_uri,
        _text(document, "authorization_endpoint"),
        _text(document, "token_endpoint"),
    )


async def fetch_keys(
    client: httpx.AsyncClient, configuration: IssuerConfiguration
) -> tuple[VerificationKey, ...]:
    """The keys that the issuer publishes now. Raises IssuerUnavailable."""
    issuer = configuration.issuer
    document = await _fetch(client, issuer, configuration.jwks_uri, _MAX_KEYS_BYTES)
    try:
        return parse_keys(document)
    except ValueError as error:
        raise IssuerUnavailable(issuer, f"its list of keys is not one: {error}") from error


async def _fetch(client: httpx.AsyncClient, issuer: str, url: str, max_bytes: int) -> object:
    try:
        return await fetch_json(client, url, max_bytes=max_bytes, timeout_seconds=_TIMEOUT_SECONDS)
    except (DocumentUnavailable, DialForbidden) as error:
        raise IssuerUnavailable(issuer, str(error)) from error


def _text(document: Mapping[object, object], name: str) -> str:
    """A URL of the configuration; nothing for what cannot be one, which errors would repeat."""
    value = document.get(name)
    if not isinstance(value, str) or len(value) > _LONGEST_URL:
        return ""
    return value if value.isascii() and value.isprintable() and " " not in value else ""
