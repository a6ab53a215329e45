"""A login is looked for where Docker looks, in its order, and in variables at the end."""

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from layover.client.docker_config import DockerConfigInvalid
from layover.client.docker_logins import Credential
from layover.client.push_errors import HelperFailed, LoginUnusable
from layover.client.registry_credentials import credential_of_environment, find_credential
from layover.oci.references import Destination

pytestmark = pytest.mark.anyio

Env = dict[str, str]
HUB = "https://index.docker.io/v1/"


@pytest.fixture
def env(tmp_path: Path) -> Env:
    """A home where nobody has logged in to anything."""
    (tmp_path / "docker").mkdir()
    (tmp_path / "bin").mkdir()
    return {
        "HOME": str(tmp_path),
        "DOCKER_CONFIG": str(tmp_path / "docker"),
        "PATH": f"{tmp_path}/bin:/usr/bin:/bin",
    }


@pytest.fixture
def config(tmp_path: Path, env: Env) -> Callable[[object], None]:
    """Write Docker's config.json."""

    def write(content: object) -> None:
        (tmp_path / "docker" / "config.json").write_text(json.dumps(content))

    return write


@pytest.fixture
def helper(tmp_path: Path, env: Env) -> Callable[[str, dict[str, str]], None]:
    """Install a helper that keeps these users."""

    def install(name: str, users: dict[str, str]) -> None:
        cases = "".join(
            f"""'{server}') echo '{{"Username": "{user}", "Secret": "s"}}';;\n"""
            for server, user in users.items()
        )
        path = tmp_path / "bin" / f"docker-credential-{name}"
        path.write_text(
            f'#!/bin/sh\ncase "$(cat)" in\n{cases}'
            "*) echo credentials not found in native keychain; exit 1;;\nesac\n"
        )
        path.chmod(0o755)

    return install


def auths(**users: str) -> dict[str, dict[str, str]]:
    return {
        name.replace("_", "."): {"auth": base64.b64encode(f"{user}:s".encode()).decode()}
        for name, user in users.items()
    }


async def found(env: Env, text: str = "ghcr.io/acme/app") -> Credential | None:
    return await find_credential(Destination.parse(text).place, env)


async def user(env: Env, text: str = "ghcr.io/acme/app") -> str | None:
    credential = await found(env, text)
    return None if credential is None else credential.username


Write = Callable[[object], None]
Install = Callable[[str, dict[str, str]], None]


async def test_nobody_who_has_not_logged_in_has_a_login(env: Env) -> None:
    assert await found(env) is None


async def test_the_login_of_docker_is_found(env: Env, config: Write, tmp_path: Path) -> None:
    config({"auths": auths(ghcr_io="ann")})
    credential = await found(env)
    assert credential is not None and credential.username == "ann"
    assert credential.source == str(tmp_path / "docker" / "config.json")
    assert await found(env, "quay.io/a") is None


async def test_a_helper_for_the_registry_goes_before_the_store_and_that_before_the_file(
    env: Env, config: Write, helper: Install
) -> None:
    helper("one", {"ghcr.io": "of-helper"})
    helper("all", {"ghcr.io": "of-store", "quay.io": "of-store"})
    content: dict[str, object] = {"auths": auths(ghcr_io="of-file", quay_io="of-file", a_io="ann")}
    config(content)
    assert await user(env) == "of-file"
    config({**content, "credsStore": "all"})
    assert await user(env) == "of-store"
    config({**content, "credsStore": "all", "credHelpers": {"ghcr.io": "one"}})
    assert await user(env) == "of-helper"
    assert await user(env, "quay.io/a") == "of-store"
    # What neither has is in the file, perhaps.
    assert await user(env, "a.io/a") == "ann"
    # As Docker has it, a helper of no name is none, and the store is not asked.
    config({**content, "credsStore": "all", "credHelpers": {"ghcr.io": ""}})
    assert await user(env) == "of-file"


async def test_keys_are_read_in_whatever_case_as_docker_reads_them(
    env: Env, config: Write, helper: Install
) -> None:
    helper("all", {"ghcr.io": "of-store"})
    config({"CREDSSTORE": "all"})
    assert await user(env) == "of-store"
    config({"Auths": auths(ghcr_io="of-file")})
    assert await user(env) == "of-file"


async def test_docker_hub_is_asked_for_by_the_name_that_docker_gives_it(
    env: Env, config: Write, helper: Install
) -> None:
    helper("all", {HUB: "of-store", "docker.io": "of-another"})
    config({"credsStore": "all"})
    assert await user(env, "ann/app") == "of-store"
    config({"credHelpers": {"docker.io": "all"}})
    assert await user(env, "ann/app") == "of-another"
    config({"credHelpers": {"docker.io": "none", HUB: "all"}})
    assert await user(env, "ann/app") == "of-store"
    config({"auths": {HUB: auths(a="of-file")["a"]}})
    assert await user(env, "ann/app") == "of-file"


async def test_a_helper_that_fails_is_told_and_not_gone_past(env: Env, config: Write) -> None:
    config({"credsStore": "none", "auths": auths(ghcr_io="ann")})
    with pytest.raises(HelperFailed, match=r"docker-credential-none .* ghcr\.io: it is not on"):
        await found(env)


async def test_the_variable_of_docker_goes_before_its_file(env: Env, config: Write) -> None:
    config({"auths": auths(ghcr_io="of-file", quay_io="of-file")})
    env["DOCKER_AUTH_CONFIG"] = json.dumps({"auths": auths(ghcr_io="of-variable")})
    assert await user(env) == "of-variable"
    assert await user(env, "quay.io/a") == "of-file"
    for text in ("s3cret", '["s3cret"]', "{"):
        env["DOCKER_AUTH_CONFIG"] = text
        with pytest.raises(LoginUnusable, match="DOCKER_AUTH_CONFIG") as failure:
            await found(env)
        assert "s3cret" not in str(failure.value)


async def test_a_login_of_podman_is_found_behind_dockers(
    env: Env, config: Write, tmp_path: Path, helper: Install
) -> None:
    def write(path: Path, content: object) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))

    write(tmp_path / ".config/containers/auth.json", {"auths": auths(ghcr_io="of-home")})
    assert await user(env) == "of-home"
    env["XDG_RUNTIME_DIR"] = str(tmp_path / "run")
    assert await user(env) == "of-home"
    write(tmp_path / "run/containers/auth.json", {"auths": auths(ghcr_io="of-session")})
    assert await user(env) == "of-session"
    helper("one", {"ghcr.io": "of-helper"})
    write(tmp_path / "named.json", {"credHelpers": {"ghcr.io": "one"}})
    env["REGISTRY_AUTH_FILE"] = str(tmp_path / "named.json")
    assert await user(env) == "of-helper"
    config({"auths": auths(ghcr_io="of-docker")})
    assert await user(env) == "of-docker"


async def test_a_file_that_docker_could_not_read_is_told(env: Env, tmp_path: Path) -> None:
    (tmp_path / "docker" / "config.json").write_text('{"auths": {"ghcr.io": "s3cret}')
    with pytest.raises(DockerConfigInvalid) as failure:
        await found(env)
    assert "s3cret" not in str(failure.value)


def test_variables_give_a_login_that_names_no_registry() -> None:
    env = {"DEPOT_PUSH_REGISTRY_USERNAME": "old", "DEPOT_PUSH_REGISTRY_PASSWORD": "o"}
    source = "DEPOT_PUSH_REGISTRY_USERNAME and DEPOT_PUSH_REGISTRY_PASSWORD"
    assert credential_of_environment("ghcr.io", {}) is None
    assert credential_of_environment("ghcr.io", env) == Credential(source, "old", "o")
    env |= {"LAYOVER_PUSH_REGISTRY_USERNAME": "ann", "LAYOVER_PUSH_REGISTRY_PASSWORD": "p"}
    found = credential_of_environment("ghcr.io", env)
    assert found == Credential(source.replace("DEPOT", "LAYOVER"), "ann", "p")


@pytest.mark.parametrize("given", ["USERNAME", "PASSWORD"])
def test_half_a_login_is_told(given: str) -> None:
    (missing,) = {"USERNAME", "PASSWORD"} - {given}
    with pytest.raises(LoginUnusable, match=f"LAYOVER_PUSH_REGISTRY_{missing} is not set") as told:
        credential_of_environment("ghcr.io", {f"LAYOVER_PUSH_REGISTRY_{given}": "s3cret"})
    assert "s3cret" not in str(told.value)
