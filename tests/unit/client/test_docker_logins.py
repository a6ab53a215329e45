"""A login is a registry's where Docker takes it for that, and no other's."""

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layover.client.docker_logins import Credential, find_login
from layover.client.push_errors import LoginUnusable
from layover.oci.references import Destination, Place

SOURCE = "config.json"


def place(text: str) -> Place:
    return Destination.parse(text).place


def auth(username: str, password: str = "secret") -> dict[str, str]:
    return {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}


def found(auths: object, text: str) -> str | None:
    credential = find_login(auths, place(text), SOURCE)
    return None if credential is None else credential.username


@pytest.mark.parametrize(
    "name",
    [
        "https://index.docker.io/v1/",
        "index.docker.io",
        "docker.io",
        "https://registry-1.docker.io/v2/",
        "docker.io/library",
    ],
)
def test_docker_hub_has_several_names(name: str) -> None:
    for text in ("app", "docker.io/library/app", "index.docker.io/library/app:v1"):
        assert found({name: auth("ann")}, text) == "ann"
    assert found({name: auth("ann")}, "ghcr.io/a/b") is None


@pytest.mark.parametrize(
    "name",
    [
        "ghcr.io",
        "GHCR.io",
        "https://ghcr.io",
        "https://ghcr.io/",
        "https://ghcr.io/v1/",
        "http://ghcr.io/v2",
        "ghcr.io/v1/",
        "ghcr.io/acme",
        "ghcr.io/acme/app",
    ],
)
def test_a_registry_is_named_by_its_host(name: str) -> None:
    assert found({name: auth("ann")}, "ghcr.io/acme/app:v1") == "ann"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "ghcr.io:443",
        "ghcr.io.evil.example",
        "evil.example/ghcr.io",
        "https://evil.example/ghcr.io",
        "https://ghcr.io@evil.example/",
        "ghcr.io/acm",
        "ghcr.io/acme/application",
        "ghcr.io/acme/app/below",
        "ftp://ghcr.io",
        "https://https://ghcr.io",
        "https://index.docker.io/v1/",
    ],
)
def test_what_only_looks_alike_is_anothers(name: str) -> None:
    assert found({name: auth("ann")}, "ghcr.io/acme/app:v1") is None


def test_a_port_is_part_of_the_name() -> None:
    auths = {"localhost": auth("none"), "localhost:5000": auth("ann")}
    assert found(auths, "localhost:5000/a") == "ann"
    assert found(auths, "localhost:5001/a") is None


def test_the_nearest_name_counts() -> None:
    auths = {
        "https://ghcr.io/v1/": auth("url"),
        "ghcr.io": auth("host"),
        "ghcr.io/acme": auth("folder"),
        "ghcr.io/acme/app": auth("repository"),
    }
    assert found(auths, "ghcr.io/acme/app") == "repository"
    assert found(auths, "ghcr.io/acme/other") == "folder"
    assert found(auths, "ghcr.io/b") == "host"
    del auths["ghcr.io"]
    assert found(auths, "ghcr.io/b") == "url"


def test_what_a_helper_keeps_leaves_an_empty_entry_behind() -> None:
    assert found({"ghcr.io": {}, "https://ghcr.io": auth("ann")}, "ghcr.io/a") == "ann"
    assert found({"ghcr.io": {"auth": "", "email": "a@b"}}, "ghcr.io/a") is None


def test_the_three_ways_to_write_a_login() -> None:
    def read(entry: dict[str, str]) -> Credential | None:
        return find_login({"ghcr.io": entry}, place("ghcr.io/a"), SOURCE)

    assert read(auth("ann", "a:b")) == Credential(SOURCE, "ann", "a:b")
    assert read(auth("ann", "a\0\0")) == Credential(SOURCE, "ann", "a")
    plain = {"username": "ann", "password": "p"}
    assert read(plain) == Credential(SOURCE, "ann", "p")
    assert read({"Username": "ann", "PASSWORD": "p"}) == Credential(SOURCE, "ann", "p")
    assert read({**plain, **auth("bob", "q")}) == Credential(SOURCE, "bob", "q")
    assert read({**auth("id", ""), "identitytoken": "t"}) == Credential(SOURCE, "id", "", "t")


@pytest.mark.parametrize(
    "entry",
    [
        {"auth": "not Base64!"},
        {"auth": base64.b64encode(b"secret-without-colon").decode()},
        {"auth": base64.b64encode(b":secret").decode()},
        {"auth": base64.b64encode(b"a:\xff").decode()},
        {"auth": 5},
        {"username": "a", "password": ["secret"]},
        {"identitytoken": {"secret": 1}},
    ],
)
def test_a_malformed_login_is_told_without_what_is_in_it(entry: dict[str, object]) -> None:
    with pytest.raises(LoginUnusable, match=r"config\.json.*docker login ghcr\.io") as failure:
        find_login({"ghcr.io": entry}, place("ghcr.io/a"), SOURCE)
    assert "secret" not in str(failure.value)


def test_no_secret_is_shown() -> None:
    shown = repr(Credential(SOURCE, "ann", "secret-password", "secret-token"))
    assert "secret" not in shown and "ann" not in shown


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("ghcr.io"), inner),
    )
)
def test_no_content_does_worse_than_to_be_refused(auths: object) -> None:
    with contextlib.suppress(LoginUnusable):
        assert find_login(auths, place("ghcr.io/a"), SOURCE) is None or isinstance(auths, dict)


@given(st.text("abgihcro.:/@-_%1", min_size=1, max_size=30))
def test_a_name_never_means_a_registry_of_another_host(name: str) -> None:
    if found({name: auth("ann")}, "ghcr.io/a") is not None:
        host = name.rpartition("://")[2].partition("/")[0]
        assert host == "ghcr.io"
