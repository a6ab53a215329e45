"""Where the request that is being served came from, decided in this one place.

A proxy hides who calls behind its own address and tells it in X-Forwarded-For, which anybody can
send. So that header counts when the connection itself comes from a proxy that the settings name,
and of it only what such proxies wrote: they append, so its entries are read from the right, up to
the first that is no proxy of ours.
"""

from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from layover.identity.origin import Origin

# More proxies than any installation has in a row; a header can hold thousands of entries.
_MAX_HOPS = 16

# As long as browsers' are.
_MAX_USER_AGENT = 256

_UNKNOWN = Origin()

# Each request runs in a task, and so in a context, of its own.
_origin: ContextVar[Origin] = ContextVar("origin", default=_UNKNOWN)

Headers = Iterable[tuple[bytes, bytes]]


def origin() -> Origin:
    """Where the request that is being served came from; all empty outside of one."""
    return _origin.get()


def bind_origin(found: Origin) -> None:
    """Let `origin` answer `found` in this request's context."""
    _origin.set(found)


class TrustedProxies:
    """Tells a client's address from what its connection and its headers say."""

    def __init__(self, networks: Sequence[IPv4Network | IPv6Network] = ()) -> None:
        """`networks` are those of the proxies whose X-Forwarded-For is believed."""
        self._networks = tuple(networks)

    def client_address(self, peer: str, headers: Headers) -> str:
        """The address of who calls; `peer` is the connection's other end."""
        address = _parsed(peer)
        if address is None:
            return peer
        if self._networks and self._trusts(address):
            address = self._behind(address, headers)
        return str(address)

    def _behind(
        self, proxy: IPv4Address | IPv6Address, headers: Headers
    ) -> IPv4Address | IPv6Address:
        """The nearest client that is no proxy of ours; the last of them when all are."""
        told = b",".join(value for name, value in headers if name == b"x-forwarded-for")
        address = proxy
        for entry in reversed(told.decode("latin-1").rsplit(",", _MAX_HOPS)[-_MAX_HOPS:]):
            found = _parsed(_without_port(entry.strip()))
            if found is None:
                # No proxy writes this. Whoever handed it on is as far as can be told.
                break
            address = found
            if not self._trusts(address):
                break
        return address

    def _trusts(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self._networks)


def user_agent(headers: Headers) -> str:
    """What the client calls itself, fit for a log."""
    for name, value in headers:
        if name == b"user-agent":
            text = value[:_MAX_USER_AGENT].decode("ascii", "replace")
            return text if text.isprintable() else "".join(filter(str.isprintable, text))
    return ""


@lru_cache(maxsize=1024)
def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    """The address, an IPv4 one also where it is written as IPv6; None for what is none."""
    # An IPv6 address may name an interface, in any characters; which one says nothing here.
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _without_port(entry: str) -> str:
    """Some proxies (Azure's) write the client's port too: 192.0.2.1:1234, [2001:db8::1]:1234."""
    if entry.startswith("["):
        return entry[1:].partition("]")[0]
    return entry.partition(":")[0] if entry.count(":") == 1 else entry
