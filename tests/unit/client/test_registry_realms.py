"""A password goes to no place that a registry could name to do harm with it."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layover.client.auth_challenges import Challenge
from layover.client.push_errors import RealmRefused
from layover.client.registry_realms import Realm, choose_realm, is_loopback, networks_beside

PUBLIC = "140.82.112.33"


def choose(
    url: str, *, is_plain: bool = False, address: str = PUBLIC, insecure: Sequence[str] = ()
) -> Realm:
    challenge = Challenge("bearer", {"realm": url, "service": "s"})
    return choose_realm(
        "registry.example.com",
        challenge,
        is_plain=is_plain,
        address=address,
        insecure_hosts=frozenset(insecure),
    )


def test_another_host_with_tls_is_what_most_registries_name() -> None:
    realm = choose("https://auth.docker.io/token?a=b#c")
    assert (str(realm.url), realm.named) == (
        "https://auth.docker.io/token?a=b",
        "auth.docker.io:443",
    )
    assert realm.service == "s"
    assert realm.rules.may_dial(PUBLIC, realm.named)
    for address in ("127.0.0.1", "::1", "10.0.0.1", "169.254.169.254", "::ffff:10.0.0.1"):
        assert not realm.rules.may_dial(address, realm.named)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/token",
        "//auth.example.com/token",
        "auth.example.com/token",
        "https://",
        "https:///token",
        "https://:443/token",
        "https://auth.example.com:port/",
        "https://auth.example.com:99999/",
        "https://auth.example.com:-1/",
        "ftp://auth.example.com/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https://auth.example.com/\x00",
        "https://aüth.example.com/",
        "https://auth.example.com/" + "a" * 3000,
        "https://user:secret@auth.example.com/token",
        "https://user@auth.example.com/token",
    ],
)
def test_what_is_no_plain_url_of_a_host_is_refused(url: str) -> None:
    with pytest.raises(RealmRefused, match="Nothing was sent") as failure:
        choose(url)
    assert "secret" not in str(failure.value)


def test_without_tls_only_beside_a_registry_without_tls() -> None:
    url, listed = "http://auth.corp.example:8080/token", ["auth.corp.example:8080"]
    for is_plain, insecure in ((False, listed), (False, []), (True, []), (True, ["other:8080"])):
        with pytest.raises(RealmRefused, match="without TLS"):
            choose(url, is_plain=is_plain, insecure=insecure)
    realm = choose(url, is_plain=True, insecure=listed)
    realm.rules.check_url("http", "auth.corp.example", 8080)
    assert choose("http://127.0.0.1:5001/token", is_plain=True, address="127.0.0.1")
    with pytest.raises(RealmRefused):
        choose("http://127.0.0.1:5001/token", is_plain=False, address="127.0.0.1")


@pytest.mark.parametrize(
    ("registry", "near", "far"),
    [
        (PUBLIC, [], ["127.0.0.1", "10.0.0.1", "169.254.169.254", "100.100.100.200", "::1"]),
        ("127.0.0.1", ["127.0.0.53", "::1"], ["10.0.0.1", "169.254.169.254", "0.0.0.0"]),
        ("::1", ["127.0.0.1"], ["fd00::1", "fe80::1"]),
        ("10.1.2.3", ["10.9.9.9", "192.168.1.1", "172.16.0.1"], ["127.0.0.1", "169.254.169.254"]),
        ("::ffff:10.1.2.3", ["10.9.9.9"], ["127.0.0.1", "169.254.169.254"]),
        ("169.254.1.1", ["169.254.1.1"], ["169.254.169.254", "127.0.0.1", "10.0.0.1"]),
        ("100.64.0.1", ["100.64.0.1"], ["100.100.100.200"]),
        ("fd12:3456:789a:1::1", ["fd12:3456:789a:2::1"], ["fd00:ec2::254", "fe80::1", "::1"]),
        ("64:ff9b::a01:203", ["10.1.2.3"], ["127.0.0.1"]),
    ],
)
def test_a_realm_may_be_where_the_registry_is(
    registry: str, near: list[str], far: list[str]
) -> None:
    rules = choose("https://auth.example.com/token", address=registry).rules
    assert [address for address in near if not rules.may_dial(address)] == []
    assert [address for address in far if rules.may_dial(address)] == []
    assert rules.may_dial("8.8.8.8")


def test_the_host_of_a_loopback_registry_is_told_by_its_name_alone() -> None:
    assert all(is_loopback(host) for host in ("localhost", "127.0.0.1", "127.9.9.9", "::1"))
    others = ("localhost.example.com", "127.0.0.1.example.com", "10.0.0.1", "a_b", "", "fe80::1")
    assert not any(is_loopback(host) for host in others)


@given(st.text(st.sampled_from("htps:/@[]127.0.0.1localhost#?\\ %\t")), st.booleans())
def test_no_text_does_worse_than_to_be_refused(text: str, is_plain: bool) -> None:
    for url in (text, f"https://{text}", f"http://{text}"):
        try:
            realm = choose(url, is_plain=is_plain)
        except RealmRefused:
            continue
        assert realm.url.host and not realm.url.userinfo
        assert realm.url.scheme == "https" or is_plain
        assert not realm.rules.may_dial("127.0.0.1", realm.named)


@given(st.ip_addresses(v=4), st.ip_addresses())
def test_nothing_but_its_own_kind_is_near_a_registry(registry: object, other: object) -> None:
    near = networks_beside(str(registry))
    rules = choose("https://a.example", address=str(registry)).rules
    assert not near or rules.may_dial(str(registry))
    if not near:
        assert rules.may_dial(str(other)) == choose("https://a.example").rules.may_dial(str(other))
