"""Which addresses the server may dial for a client, and where it may do without TLS.

What is not known to be somebody's public address is refused: a list of what is forbidden would
have to be complete, and addresses are assigned anew. For IPv6 that is the one block that global
unicast addresses come from; for IPv4 everything but the blocks of IANA's special-purpose registry.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from layover.errors import LayoverError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

LOOPBACK: tuple[Network, ...] = (ip_network("127.0.0.0/8"), ip_network("::1/128"))

# IANA's "IPv4 Special-Purpose Address Registry", multicast (RFC 5771), and one that a cloud serves
# its machines at.
_NOT_PUBLIC_IPV4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network; Linux takes 0.0.0.0 for its own loopback
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; Alibaba's metadata service
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's wire server
        "169.254.0.0/16",  # link-local; the metadata service of most clouds
        "172.16.0.0/12",
        "192.0.0.0/24",  # IETF protocols; Oracle's metadata service
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)

_PUBLIC_IPV6 = IPv6Network("2000::/3")
_NOT_PUBLIC_IPV6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # IETF protocols: Teredo, benchmarks, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: an IPv4 address in another's clothes, and out of use (RFC 7526)
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)

# What reaches an IPv4 address by an IPv6 one (RFC 4291, RFC 6052): judged as that IPv4 address.
_MAPPED = IPv6Network("::ffff:0:0/96")
_NAT64 = IPv6Network("64:ff9b::/96")

_DEFAULT_PORTS = {"http": 80, "https": 443}


class DialForbidden(LayoverError):
    """The server does not dial there on a client's behalf; the message says which setting would.

    It never says which address a name stands for: that would read the server's own DNS out to
    whoever names a host.
    """


class AddressForbidden(DialForbidden):
    """Every address of the host is one that the server does not dial."""

    def __init__(self, host: str, addresses: tuple[str, ...]) -> None:
        super().__init__(
            f"this server does not connect to {host!r}: it is at no public address. Its"
            " administrator can allow the network in the setting outbound_networks"
        )
        self.host, self.addresses = host, addresses


class PlainHttpForbidden(DialForbidden):
    """The host is to be reached without TLS, and is not one that it is allowed for."""

    def __init__(self, host: str) -> None:
        super().__init__(
            f"this server does not connect to {host!r} without TLS: use https://, or have its"
            " administrator list the host in the setting outbound_insecure_hosts"
        )
        self.host = host


@dataclass(frozen=True, slots=True)
class OutboundRules:
    """Where the server may dial for a client."""

    networks: tuple[Network, ...] = ()
    """Allowed beside public addresses."""
    insecure_hosts: frozenset[str] = frozenset()
    """What may be reached without TLS, as `host_port` writes it."""
    hosts: frozenset[str] = frozenset()
    """What may be at any address, as `host_port` writes it: what the administrator named, and no
    client."""
    plain_loopback: bool = False
    """Whether loopback, by that name or address, may be reached without TLS."""

    def may_dial(self, address: str, named: str = "") -> bool:
        """Whether the address, as a resolver gave it, may be dialled for the host `named`."""
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        if isinstance(parsed, IPv6Address):
            # A zone (fe80::1%eth0) says which link; only a network of this machine's has one.
            if parsed.scope_id is not None:
                return False
            parsed = embedded_ipv4(parsed) or parsed
        if named in self.hosts or any(parsed in network for network in self.networks):
            return True
        return is_public(parsed)

    def check_url(self, scheme: str, host: str, port: int | None) -> None:
        """Raise PlainHttpForbidden unless the host may be reached in this way."""
        if scheme == "https":
            return
        if scheme != "http" or not self.may_be_plain(host, port):
            raise PlainHttpForbidden(host_port(host, port or _DEFAULT_PORTS.get(scheme, 0)))

    def is_insecure(self, host: str, port: int | None) -> bool:
        """Whether the host is listed as one to be reached without TLS."""
        return host_port(host, port or _DEFAULT_PORTS["http"]) in self.insecure_hosts

    def may_be_plain(self, host: str, port: int | None) -> bool:
        """Whether the host may be reached without TLS."""
        return self.is_insecure(host, port) or (self.plain_loopback and _is_loopback(host))


def host_port(host: str, port: int) -> str:
    """HOST:PORT in the one form that hosts are compared in."""
    host = host.strip("[]").lower().rstrip(".")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_loopback(host: str) -> bool:
    # "localhost" is whatever the machine's own resolver says, which is loopback (RFC 6761).
    host = host.strip("[]").lower().rstrip(".")
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def embedded_ipv4(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that is reached by this one, if that is what it stands for."""
    if address in _MAPPED or address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return None


def is_public(address: Address) -> bool:
    """Whether it is somebody's address in the Internet; not for IPv6 that stands for IPv4."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_IPV4)
    return address in _PUBLIC_IPV6 and not any(address in network for network in _NOT_PUBLIC_IPV6)
