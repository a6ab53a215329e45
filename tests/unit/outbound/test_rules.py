"""Every form of an address that is not somebody's public one is refused."""

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layover.outbound.rules import (
    LOOPBACK,
    OutboundRules,
    PlainHttpForbidden,
    host_port,
)

RULES = OutboundRules()

HOSTILE_IPV4 = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "168.63.129.16/32",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
)

hostile_ipv4 = st.sampled_from(HOSTILE_IPV4).flatmap(
    lambda network: st.ip_addresses(v=4, network=network)
)


def public_ipv4(address: IPv4Address) -> bool:
    return address.is_global and not address.is_multicast


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "0.0.0.0",
        "255.255.255.255",
        "169.254.169.254",  # AWS, GCP, Azure, DigitalOcean, OpenStack
        "169.254.170.2",  # ECS tasks
        "100.100.100.200",  # Alibaba
        "192.0.0.192",  # Oracle
        "168.63.129.16",  # Azure's wire server
        "fd00:ec2::254",  # AWS
        "fd20:ce::254",  # GCP
        "::",
        "::1",
        "fe80::1",
        "fe80::1%lo",
        "2606:4700::1%lo",
        "fec0::1",
        "ff02::1",
        "64:ff9b:1::1",
        "100::1",
        "::ffff:0:127.0.0.1",
        "::127.0.0.1",
        "2001:0:7f00:1::",
        "2001:db8::1",
        "2002:7f00:1::1",
        "2002:0101:0101::1",
        "3fff::1",
        "5f00::1",
        "4000::1",
    ],
)
def test_an_address_of_no_public_host_is_refused(address: str) -> None:
    assert not RULES.may_dial(address)


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "8.8.8.8", "140.82.121.4", "172.65.251.78", "2606:4700::1111", "2a00:1450::1"],
)
def test_a_public_address_is_dialled(address: str) -> None:
    assert RULES.may_dial(address)


@given(address=hostile_ipv4)
def test_a_hostile_address_is_refused_in_each_of_its_forms(address: IPv4Address) -> None:
    number = int(address)
    forms = [
        str(address),
        f"::ffff:{address}",
        str(IPv6Address((0xFFFF << 32) | number)),
        str(IPv6Address((0x64FF9B << 96) | number)),
        str(IPv6Address((0x2002 << 112) | (number << 80) | 1)),
        str(IPv6Address(number)),
        str(IPv6Address((0x20010000 << 96) | (number ^ 0xFFFF_FFFF))),
    ]
    assert [form for form in forms if RULES.may_dial(form)] == []


@given(address=st.ip_addresses(v=4))
def test_what_python_knows_to_be_no_public_ipv4_address_is_refused(address: IPv4Address) -> None:
    if not public_ipv4(address):
        assert not RULES.may_dial(str(address))
        assert not RULES.may_dial(f"::ffff:{address}")
    # One that is reached through NAT64 (RFC 6052) is what its IPv4 address is.
    translated = str(IPv6Address((0x64FF9B << 96) | int(address)))
    assert RULES.may_dial(translated) == RULES.may_dial(str(address))


@given(address=st.ip_addresses(v=6))
def test_what_python_knows_to_be_no_public_ipv6_address_is_refused(address: IPv6Address) -> None:
    if RULES.may_dial(str(address)):
        assert address.is_global or address in ip_network("64:ff9b::/96") or address.ipv4_mapped
        assert not address.is_multicast
        assert not address.is_link_local
        assert not address.is_private or address.ipv4_mapped


@given(text=st.text())
def test_what_is_no_address_is_refused(text: str) -> None:
    assert not OutboundRules(LOOPBACK).may_dial(f"x{text}")


@given(address=st.ip_addresses(v=4, network="10.0.0.0/8"))
def test_a_network_of_the_settings_is_dialled_and_nothing_beside_it(address: IPv4Address) -> None:
    rules = OutboundRules((ip_network("10.0.0.0/8"), ip_network("fd12::/16")))
    assert rules.may_dial(str(address))
    assert rules.may_dial(f"::ffff:{address}")
    assert rules.may_dial("fd12::1")
    for other in ("127.0.0.1", "192.168.0.1", "169.254.169.254", "fd13::1", "2002:a00:1::1"):
        assert not rules.may_dial(other)


def test_loopback_does_not_stand_for_the_unspecified_address() -> None:
    rules = OutboundRules(LOOPBACK)
    assert rules.may_dial("127.0.0.1")
    assert rules.may_dial("::1")
    assert not rules.may_dial("0.0.0.0")
    assert not rules.may_dial("::")


def test_only_a_listed_host_and_port_goes_without_tls() -> None:
    rules = OutboundRules(insecure_hosts=frozenset({"registry.lan:5000", "[fd00::1]:80"}))
    rules.check_url("https", "anything.example", None)
    rules.check_url("http", "Registry.LAN", 5000)
    rules.check_url("http", "registry.lan.", 5000)
    rules.check_url("http", "fd00::1", None)
    for scheme, host, port in (
        ("http", "registry.lan", None),
        ("http", "registry.lan", 5001),
        ("http", "evil.example", 5000),
        ("ftp", "registry.lan", 5000),
        ("", "registry.lan", 5000),
    ):
        with pytest.raises(PlainHttpForbidden, match="outbound_insecure_hosts"):
            rules.check_url(scheme, host, port)


def test_loopback_goes_without_tls_where_the_rules_say_so_and_nothing_beside_it() -> None:
    rules = OutboundRules(plain_loopback=True)
    for host in ("localhost", "LOCALHOST.", "127.0.0.1", "127.1.2.3", "::1", "[::1]"):
        rules.check_url("http", host, 5000)
        with pytest.raises(PlainHttpForbidden):
            OutboundRules(LOOPBACK).check_url("http", host, 5000)
    for host in ("localhost.example", "a.localhost", "127.0.0.1.example", "128.0.0.1", "::2", ""):
        with pytest.raises(PlainHttpForbidden):
            rules.check_url("http", host, 5000)


def test_a_host_and_its_port_have_one_form() -> None:
    assert host_port("Example.COM.", 443) == "example.com:443"
    assert host_port("[::1]", 80) == host_port("::1", 80) == "[::1]:80"
