"""A registry gets the token of its own server, and no other server's, wherever tokens are."""

from pathlib import Path

import pytest

from layover.client import login_file
from layover.client.address import InvalidAddress, InvalidToken
from layover.client.login_file import Login, LoginFileInvalid
from layover.client.registries import parse_registry
from layover.client.registry_logins import (
    find_token,
    forget_token,
    has_token,
    keep_token,
    list_registries,
)

A, B = "https://a.example.com", "https://b.example.com"


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"LAYOVER_CONFIG_DIR": str(tmp_path / "config")}


def keep(env: dict[str, str], login: Login) -> None:
    login_file.write(login_file.login_path(env), login)


def kept(env: dict[str, str]) -> Login:
    return login_file.read(login_file.login_path(env))


def found(registry: str, env: dict[str, str]) -> str:
    return find_token(parse_registry(registry), env)


def test_without_a_server_there_is_no_token(env: dict[str, str]) -> None:
    assert found("a.example.com", env) == ""
    assert list_registries(env) == []


def test_the_variables_token_is_for_the_variables_server_alone(env: dict[str, str]) -> None:
    env |= {"LAYOVER_URL": A, "LAYOVER_TOKEN": "from_env"}
    assert found("a.example.com", env) == "from_env"
    for other in ("b.example.com", "a.example.com:8443", "http://a.example.com", "example.com"):
        assert found(other, env) == ""
    assert list_registries(env) == ["a.example.com"]


def test_the_variables_token_goes_before_what_is_kept_and_nowhere_else(
    env: dict[str, str],
) -> None:
    keep(env, Login(B, {A: "kept_a", B: "kept_b"}))
    env |= {"LAYOVER_URL": A, "LAYOVER_TOKEN": "from_env"}
    assert found("a.example.com", env) == "from_env"
    assert found("b.example.com", env) == "kept_b"


def test_a_token_without_an_address_is_for_the_server_that_the_login_names(
    env: dict[str, str],
) -> None:
    env |= {"LAYOVER_TOKEN": "from_env"}
    assert found("a.example.com", env) == ""
    keep(env, Login(A, {A: "kept_a", B: "kept_b"}))
    assert found("a.example.com", env) == "from_env"
    assert found("b.example.com", env) == "kept_b"


def test_the_variables_of_existing_scripts_are_read_too(env: dict[str, str]) -> None:
    env |= {"DEPOT_API_URL": A, "DEPOT_TOKEN": "from_env"}
    assert found("a.example.com", env) == "from_env"
    assert found("b.example.com", env) == ""


def test_what_is_kept_is_found_by_its_server(env: dict[str, str]) -> None:
    keep(env, Login(A, {A: "kept_a", "http://127.0.0.1:5000": "kept_local"}))
    assert found("https://a.example.com/v1/", env) == "kept_a"
    assert found("127.0.0.1:5000", env) == "kept_local"
    assert found("127.0.0.1:5001", env) == ""
    assert list_registries(env) == ["127.0.0.1:5000", "a.example.com"]


def test_of_two_logins_at_a_host_the_one_over_https_counts(env: dict[str, str]) -> None:
    keep(env, Login("", {"http://a.example.com": "plain", A: "secure"}))
    assert found("a.example.com", env) == "secure"
    assert found("http://a.example.com", env) == "plain"


def test_a_token_is_kept_under_the_address_that_its_server_is_known_by(
    env: dict[str, str],
) -> None:
    keep(env, Login(B, {"http://a.example.com:8080": "old"}))
    keep_token(parse_registry("a.example.com:8080"), "new\n", env)
    assert kept(env) == Login(B, {"http://a.example.com:8080": "new"})
    env |= {"LAYOVER_URL": "http://c.example.com:5000"}
    keep_token(parse_registry("c.example.com:5000"), "c", env)
    assert kept(env).tokens["http://c.example.com:5000"] == "c"


@pytest.mark.parametrize(
    ("registry", "url"),
    [
        ("a.example.com", A),
        ("a.example.com:443", A),
        ("https://a.example.com/v1/", A),
        ("a.example.com:8443", "https://a.example.com:8443"),
        ("127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("[::1]:5000", "http://[::1]:5000"),
        ("localhost:5000", "http://localhost:5000"),
        ("https://localhost:5000", "https://localhost:5000"),
    ],
)
def test_a_server_that_nobody_named_is_https_unless_it_is_on_this_machine(
    env: dict[str, str], registry: str, url: str
) -> None:
    keep_token(parse_registry(registry), "token", env)
    assert kept(env) == Login("", {url: "token"})
    assert found(registry, env) == "token"
    assert login_file.login_path(env).stat().st_mode & 0o777 == 0o600


def test_what_cannot_be_a_token_is_neither_kept_nor_quoted(env: dict[str, str]) -> None:
    with pytest.raises(InvalidToken) as raised:
        keep_token(parse_registry("a.example.com"), "s3cret two", env)
    assert "s3cret" not in str(raised.value)
    assert not login_file.login_path(env).exists()


def test_a_server_is_forgotten_by_itself_and_twice(env: dict[str, str]) -> None:
    keep(env, Login(A, {A: "kept_a", "http://a.example.com": "plain", B: "kept_b"}))
    for _ in range(2):
        forget_token(parse_registry("a.example.com"), env)
        assert kept(env) == Login(A, {B: "kept_b"})


def test_what_is_wrong_with_the_file_or_the_address_is_said(env: dict[str, str]) -> None:
    path = login_file.login_path(env)
    path.parent.mkdir()
    path.write_text("tokens = 1")
    with pytest.raises(LoginFileInvalid):
        found("a.example.com", env)
    with pytest.raises(InvalidAddress):
        found("a.example.com", env | {"LAYOVER_URL": "a.example.com"})


def test_a_jobs_token_is_asked_for_the_server_in_use_alone(env: dict[str, str]) -> None:
    keep(env, Login(B, {A: "kept_a", B: "kept_b"}))
    env |= {"LAYOVER_URL": A, "LAYOVER_ID_TOKEN": "a.b.c"}
    asked = []

    def job_token(url: str, has_login: bool) -> str:
        asked.append((url, has_login))
        return "traded"

    assert find_token(parse_registry("b.example.com"), env, job_token) == "kept_b"
    assert find_token(parse_registry("other.example.com"), env, job_token) == ""
    assert asked == []
    assert find_token(parse_registry("a.example.com"), env, job_token) == "traded"
    assert asked == [(A, True)]
    env |= {"LAYOVER_TOKEN": "from_env"}
    assert find_token(parse_registry("a.example.com"), env, job_token) == "from_env"
    assert asked == [(A, True)]


def test_a_job_may_have_a_token_for_the_server_in_use_before_it_is_asked(
    env: dict[str, str],
) -> None:
    env |= {"LAYOVER_URL": A}
    assert not has_token(parse_registry("a.example.com"), env)
    assert list_registries(env) == []
    for sign in ("LAYOVER_ID_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_URL", "CIRCLECI", "BUILDKITE"):
        job = env | {sign: "true"}
        assert has_token(parse_registry("a.example.com"), job)
        assert not has_token(parse_registry("b.example.com"), job)
        assert list_registries(job) == ["a.example.com"]
