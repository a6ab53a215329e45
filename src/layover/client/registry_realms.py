"""Which place to sign in a registry may name, before it gets a password.

`WWW-Authenticate: Bearer realm="URL"` is the registry's word, and whoever answers in its name says
it. A password goes to a realm over HTTPS alone, or without where the registry itself is reached so
and the realm is a host that may be. It goes to no address of this machine or its network unless
the registry is there too, by the address that it answered from; and it follows no redirect.
"""

from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network

import httpx

from layover.client.auth_challenges import Challenge
from layover.client.push_errors import RealmRefused
from layover.client.registries import RegistryInvalid, parse_registry
from layover.outbound.rules import (
    LOOPBACK,
    Network,
    OutboundRules,
    embedded_ipv4,
    host_port,
    is_public,
)

# RFC 1918: a company's registry and what it signs users in by are somewhere in these.
_PRIVATE: tuple[Network, ...] = tuple(
    ip_network(network) for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
)
# RFC 4193. A site has 48 bits of its own; in those of another a cloud may have its metadata.
_UNIQUE_LOCAL = ip_network("fc00::/7")
_SITE_BITS = 48

_MAX_CHARACTERS = 2048
_MAX_PORT = 65535
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Realm:
    """Where to sign in, and what may be dialled for that."""

    url: httpx.URL
    named: str
    """HOST:PORT of it, which is all that an error shows."""
    service: str
    rules: OutboundRules


def choose_realm(
    registry: str,
    challenge: Challenge,
    *,
    is_plain: bool,
    address: str,
    insecure_hosts: frozenset[str],
) -> Realm:
    """The realm of a `bearer` challenge. Raises RealmRefused.

    `is_plain` says that the registry was reached without TLS, `address` where it answered from;
    `insecure_hosts` may be reached without TLS beside what is on loopback, as `host_port` has it.
    """
    text = challenge.parameters.get("realm", "")
    try:
        url = httpx.URL(text) if len(text) <= _MAX_CHARACTERS and text.isascii() else httpx.URL("")
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in _PORTS or not url.host or not 0 <= (url.port or 0) <= _MAX_PORT:
        raise RealmRefused(registry, "no address", "as its realm is no URL of a host")
    host = url.raw_host.decode()
    named = host_port(host, url.port or _PORTS[url.scheme])
    if url.userinfo:
        raise RealmRefused(registry, named, "with a user of its own in the URL")
    plain_hosts: frozenset[str] = frozenset()
    if is_plain and (named in insecure_hosts or is_loopback(host)):
        plain_hosts = frozenset({named})
    if url.scheme == "http" and not plain_hosts:
        raise RealmRefused(registry, named, "without TLS, where everybody on the way could read it")
    service = challenge.parameters.get("service", "")
    url = url.copy_with(fragment=None)
    return Realm(url, named, service, OutboundRules(networks_beside(address), plain_hosts))


def networks_beside(address: str) -> tuple[Network, ...]:
    """What beside public addresses is no further away than a registry at this one."""
    parsed = ip_address(address)
    if isinstance(parsed, IPv6Address):
        parsed = embedded_ipv4(parsed) or parsed
    if is_public(parsed):
        return ()
    if any(parsed in network for network in LOOPBACK):
        return LOOPBACK
    if any(parsed in network for network in _PRIVATE):
        return _PRIVATE
    if parsed in _UNIQUE_LOCAL:
        return (ip_network((int(parsed), _SITE_BITS), strict=False),)
    return (ip_network(parsed),)


def is_loopback(host: str) -> bool:
    """Whether the host is this machine by its very name, which Docker reaches without TLS, too."""
    try:
        return parse_registry(host).is_loopback
    except RegistryInvalid:
        return host == "::1"
