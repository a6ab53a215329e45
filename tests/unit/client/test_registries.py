"""A registry's address is read in the forms that Docker's clients use, and as one host alone."""

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layover.client.address import InvalidAddress, parse_url
from layover.client.registries import RegistryInvalid, parse_registry


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("layover.example.com", "layover.example.com"),
        ("Layover.Example.COM\n", "layover.example.com"),
        ("https://layover.example.com", "layover.example.com"),
        ("https://layover.example.com:443/", "layover.example.com"),
        ("layover.example.com/v1/", "layover.example.com"),
        ("https://layover.example.com/v2/", "layover.example.com"),
        ("layover.example.com:8443/v1", "layover.example.com:8443"),
        ("127.0.0.1:5000", "127.0.0.1:5000"),
        ("http://127.0.0.1:5000", "127.0.0.1:5000"),
        ("localhost", "localhost"),
        ("[::1]:5000", "[::1]:5000"),
        ("registry", "registry"),
    ],
)
def test_the_forms_that_clients_ask_in(text: str, host: str) -> None:
    assert parse_registry(text).host_in_names == host


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "/",
        "https://",
        "ftp://layover.example.com",
        "layover.example.com:0",
        "layover.example.com:65536",
        "layover.example.com:",
        "layover.example.com:x",
        "user@layover.example.com",
        "https://layover.example.com@evil.example",
        "evil.example#@layover.example.com",
        "evil.example?@layover.example.com",
        "evil.example\\@layover.example.com",
        "layover.example.com\nevil.example",
        "lay\tover.example.com",
        "layover.example.com/a b",
        "-layover.example.com",
        "layover.example.com%2eevil.example",
        "läyover.example.com",
        "[::1",
    ],
)
def test_what_could_be_taken_for_another_host_is_refused(text: str) -> None:
    with pytest.raises(RegistryInvalid):
        parse_registry(text)


@pytest.mark.parametrize(
    ("asked", "url", "is_it"),
    [
        ("layover.example.com", "https://layover.example.com", True),
        ("layover.example.com:443", "https://layover.example.com", True),
        ("layover.example.com", "http://layover.example.com", True),
        ("127.0.0.1:5000", "http://127.0.0.1:5000", True),
        # Some clients write https:// before whatever they ask for.
        ("https://127.0.0.1:5000", "http://127.0.0.1:5000", True),
        ("[::1]:5000", "http://[::1]:5000", True),
        # Who asks for plain HTTP would send the token in the clear.
        ("http://layover.example.com", "https://layover.example.com", False),
        ("http://layover.example.com:443", "https://layover.example.com", False),
        ("https://layover.example.com", "http://layover.example.com", False),
        ("layover.example.com:8443", "https://layover.example.com", False),
        ("layover.example.com:80", "https://layover.example.com", False),
        ("evil.example", "https://layover.example.com", False),
        ("layover.example.com.evil.example", "https://layover.example.com", False),
        ("example.com", "https://layover.example.com", False),
        ("layover.example.com", "https://layover.example.com.evil.example", False),
        ("layover.example.com", "", False),
        ("layover.example.com", "ftp://layover.example.com", False),
        ("layover.example.com", "https://layover.example.com:port", False),
    ],
)
def test_a_server_is_a_registry_by_its_whole_host(asked: str, url: str, is_it: bool) -> None:
    assert parse_registry(asked).is_at(url) is is_it


@given(text=st.text(alphabet="aA1.:/@#?%[]\\-_ \n\x00é", max_size=30) | st.text(max_size=30))
def test_any_text_is_a_registry_or_refused(text: str) -> None:
    try:
        registry = parse_registry(text)
    except RegistryInvalid:
        return
    # Whoever reads it as an address reads the same host.
    written = text.strip() if "://" in text.partition("/")[0] + "//" and registry.scheme else ""
    parts = urlsplit(written or f"https://{text.strip()}")
    assert parts.hostname == registry.name.strip("[]")
    assert parts.port == registry.port
    try:
        url = parse_url(f"https://{registry.host}")
    except InvalidAddress:
        return
    assert registry.scheme == "http" or registry.port == 80 or registry.is_at(url)
