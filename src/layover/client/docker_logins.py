"""Logins as Docker's config.json and containers' auth.json keep them, under `auths`.

    {"auths": {"ghcr.io": {"auth": "dXNlcjpwYXNzd29yZA=="},
               "https://index.docker.io/v1/": {"auth": "...", "identitytoken": "..."}}}

A login's name is a registry's host as image names have it, or, from older clients, a URL at that
host. containers' tools also write HOST/PATH for the repositories below it alone.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from layover.client.push_errors import LoginUnusable
from layover.oci.references import DOCKER_HUB, Place

# What Docker calls Docker Hub wherever it keeps a login for it.
DOCKER_HUB_KEY = "https://index.docker.io/v1/"

_DOCKER_HUB_HOSTS = frozenset({DOCKER_HUB, "index.docker.io", "registry-1.docker.io"})

# The paths of registries' old and present API, which some clients left behind a host.
_API_PATHS = frozenset({"", "v1", "v2"})


@dataclass(frozen=True, slots=True)
class Credential:
    """What a user signs in to a registry with."""

    source: str
    """Where it is from, in words."""
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    """A refresh token that a registry gave in place of a password; then it counts."""


def registry_names(registry: str) -> tuple[str, ...]:
    """What the registry is called in Docker's configuration, the usual name first."""
    if registry == DOCKER_HUB:
        return DOCKER_HUB_KEY, "index.docker.io", DOCKER_HUB
    return (registry,)


def find_login(auths: object, place: Place, source: str) -> Credential | None:
    """The login for the place among `auths`; of several the one that names it best.

    Raises LoginUnusable for one that is malformed.
    """
    if not isinstance(auths, dict):
        return None
    ranked = [
        (rank, number, entry)
        for number, (name, entry) in enumerate(auths.items())
        if (rank := _rank(name, place)) is not None and isinstance(entry, dict)
    ]
    for *_, entry in sorted(ranked, key=lambda each: each[:2]):
        if (found := _credential(entry, place.registry, source)) is not None:
            return found
    return None


def _rank(name: str, place: Place) -> int | None:
    """How near the name is to the place, 0 being the nearest; None when it is another's."""
    if name == registry_names(place.registry)[0]:
        # Docker asks for this one alone before it looks at any other.
        return 1000
    scheme, separator, rest = name.rpartition("://")
    host, _, path = rest.partition("/")
    hosts = _DOCKER_HUB_HOSTS if place.registry == DOCKER_HUB else {place.registry}
    if host.lower() not in hosts or scheme.lower() not in ("", "http", "https"):
        return None
    path = path.strip("/")
    if separator or path in _API_PATHS:
        return 2000
    if f"{place.repository}/".startswith(f"{path}/"):
        return 1000 - len(path)
    return None


def _credential(entry: Mapping[str, Any], registry: str, source: str) -> Credential | None:
    """None for an entry without a login, as Docker leaves one behind where a helper has it."""
    fields = {
        name: _text(entry, name, registry, source)
        for name in ("auth", "username", "password", "identitytoken")
    }
    username, password = fields["username"], fields["password"]
    if fields["auth"]:
        username, password = _decode(fields["auth"], registry, source)
    if fields["identitytoken"]:
        return Credential(source, username, "", fields["identitytoken"])
    return Credential(source, username, password) if username or password else None


def _text(entry: Mapping[str, Any], name: str, registry: str, source: str) -> str:
    # Go, and with it Docker, takes a key for a field's name whatever its case.
    value = next((value for key, value in entry.items() if key.lower() == name), None) or ""
    if not isinstance(value, str):
        raise LoginUnusable(registry, source, f"its `{name}` is no text")
    return value


def _decode(auth: str, registry: str, source: str) -> tuple[str, str]:
    try:
        text = base64.b64decode(auth, validate=True).decode()
    except (binascii.Error, ValueError):
        raise LoginUnusable(registry, source, "its `auth` is not Base64 of a text") from None
    username, colon, password = text.partition(":")
    if not colon or not username:
        raise LoginUnusable(registry, source, "its `auth` is not USER:PASSWORD in Base64")
    # Docker itself once padded with these.
    return username, password.strip("\0")
