from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layover.http.origin import TrustedProxies, origin, user_agent

OURS = TrustedProxies(
    [ip_network(text) for text in ("10.0.0.0/8", "192.0.2.7/32", "2001:db8:f::/48")]
)


def forwarded(*values: str) -> list[tuple[bytes, bytes]]:
    return [(b"x-forwarded-for", value.encode()) for value in values]


@pytest.mark.parametrize("peer", ["198.51.100.1", "192.0.2.8", "2001:db8::1", "127.0.0.1"])
def test_what_a_stranger_writes_tells_nothing(peer: str) -> None:
    assert OURS.client_address(peer, forwarded("203.0.113.9")) == peer


def test_by_default_nobody_is_trusted() -> None:
    assert TrustedProxies().client_address("127.0.0.1", forwarded("203.0.113.9")) == "127.0.0.1"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], "10.0.0.1"),
        ([""], "10.0.0.1"),
        (["203.0.113.9"], "203.0.113.9"),
        # The client wrote the first ones itself.
        (["127.0.0.1, 203.0.113.9"], "203.0.113.9"),
        (["evil, 203.0.113.9"], "203.0.113.9"),
        (["10.9.9.9, 203.0.113.9, 10.0.0.2 ,192.0.2.7"], "203.0.113.9"),
        (["127.0.0.1", "203.0.113.9"], "203.0.113.9"),
        (["203.0.113.9", "10.0.0.2"], "203.0.113.9"),
        # All are proxies: a request of one of them.
        (["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        # What cannot be read hides what is left of it.
        (["203.0.113.9, unknown, 10.0.0.2"], "10.0.0.2"),
        (["203.0.113.9, , 10.0.0.2"], "10.0.0.2"),
        (["203.0.113.9:5123"], "203.0.113.9"),
        (["[2001:db8::5]:5123"], "2001:db8::5"),
        (["2001:DB8:0::5"], "2001:db8::5"),
        (["[2001:db8::5]"], "2001:db8::5"),
        (["::ffff:203.0.113.9"], "203.0.113.9"),
        (["203.0.113.9, ::ffff:10.0.0.2"], "203.0.113.9"),
        (["fe80::1%eth0"], "fe80::1"),
        (["\N{ARABIC-INDIC DIGIT ONE}.1.1.1"], "10.0.0.1"),
    ],
)
def test_behind_proxies_it_is_the_nearest_that_is_none(values: list[str], expected: str) -> None:
    assert OURS.client_address("10.0.0.1", forwarded(*values)) == expected


def test_a_proxy_is_known_by_either_writing_of_its_address() -> None:
    assert OURS.client_address("::ffff:10.0.0.1", forwarded("203.0.113.9")) == "203.0.113.9"
    assert OURS.client_address("2001:db8:f::1", forwarded("203.0.113.9")) == "203.0.113.9"


def test_a_chain_without_end_is_not_followed() -> None:
    chain = ", ".join(["203.0.113.9", *["10.0.0.2"] * 10_000])
    assert OURS.client_address("10.0.0.1", forwarded(chain)) == "10.0.0.2"


@given(value=st.binary(), peer=st.sampled_from(["10.0.0.1", "192.0.2.7", "198.51.100.1", ""]))
def test_whatever_a_header_says_the_address_is_one_that_logs_can_bear(
    value: bytes, peer: str
) -> None:
    address = OURS.client_address(peer, [(b"x-forwarded-for", value)])
    assert address == peer or set(address) <= set("0123456789abcdef.:")


@given(value=st.binary())
def test_what_a_client_calls_itself_is_cut_and_printable(value: bytes) -> None:
    text = user_agent([(b"host", b"x"), (b"user-agent", value)])
    assert len(text) <= 256
    assert text.isprintable()


def test_outside_of_a_request_nobody_calls() -> None:
    assert (origin().address, user_agent([])) == ("", "")
