"""Registries as Docker's clients name them to a credential helper."""

import re
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from layover.client.errors import ClientError

_REGISTRY = re.compile(
    r"(?:(?P<scheme>https?)://)?"
    r"(?P<name>[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
    # Old clients ask for HOST/v1/; whatever the path, the registry is its host's.
    r"(?:/[!-~]*)?",
    re.IGNORECASE,
)

_PORTS = {"http": 80, "https": 443}


class RegistryInvalid(ClientError):
    """The text names no registry."""

    def __init__(self, text: str) -> None:
        super().__init__(
            f"{text[:300]!r} is not a registry's address: expected one like layover.example.com or"
            " 127.0.0.1:5000"
        )
        self.text = text


@dataclass(frozen=True, slots=True)
class Registry:
    """A registry's address; the scheme is empty and the port None where it has none."""

    scheme: str
    name: str
    port: int | None

    @property
    def host(self) -> str:
        """The host, with its port when it was given, as in an image's name."""
        return self.name if self.port is None else f"{self.name}:{self.port}"

    @property
    def host_in_names(self) -> str:
        """The host as image names have it: without the port that its scheme implies."""
        return self.name if self.port == _PORTS.get(self.scheme) else self.host

    @property
    def is_loopback(self) -> bool:
        """Whether it is on this very machine."""
        try:
            return ip_address(self.name.strip("[]")).is_loopback
        except ValueError:
            return self.name == "localhost"

    def is_at(self, url: str) -> bool:
        """Whether a server's address, in `parse_url`'s form, is this registry's.

        What was asked for by http:// is never a server that is known by https://.
        """
        try:
            parts = urlsplit(url)
            known_port = parts.port
        except ValueError:
            return False
        if parts.scheme not in _PORTS:
            return False
        if self.scheme == "http" and parts.scheme == "https":
            return False
        port = self.port or _PORTS[self.scheme or parts.scheme]
        return (
            port == (known_port or _PORTS[parts.scheme]) and self.name.strip("[]") == parts.hostname
        )

    def is_same(self, other: "Registry") -> bool:
        """Whether both names mean the same registry."""
        scheme = self.scheme or other.scheme or "https"
        ports = {registry.port or _PORTS[scheme] for registry in (self, other)}
        return self.name == other.name and len(ports) == 1


def parse_registry(text: str) -> Registry:
    """Parse HOST[:PORT], with or without http:// or https:// before and a path behind it.

    Raises RegistryInvalid. User names in it are refused, as is whatever else could be read as
    another host by somebody else.
    """
    match = _REGISTRY.fullmatch(text.strip())
    if match is None:
        raise RegistryInvalid(text)
    port = int(match["port"]) if match["port"] else None
    if port is not None and not 0 < port < 65536:
        raise RegistryInvalid(text)
    return Registry((match["scheme"] or "").lower(), match["name"].lower(), port)
