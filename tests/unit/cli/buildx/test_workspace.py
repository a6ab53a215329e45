"""buildx's private folder: the user's configuration, the build's secrets, nothing left."""

import base64
import itertools
import json
import os
from pathlib import Path

import pytest

from layover.cli.buildx.locate import find_buildx
from layover.cli.buildx.workspace import (
    Workspace,
    create_commands,
    with_credentials,
    without_own_secrets,
)
from layover.cli.errors import BuildxMissing
from layover.client.buildkit import BuilderAddress
from layover.client.errors import ClientError

HOST = "registry.example.com:5000"
AUTH = base64.b64encode(b"x-token:secret").decode()


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    return {"HOME": str(tmp_path / "home"), **more}


def test_credentials_are_added_and_the_others_kept() -> None:
    config = {"auths": {"other": {"auth": "x"}}, "proxies": {"default": {}}}
    changed = with_credentials(config, {HOST: AUTH})
    assert changed["auths"] == {"other": {"auth": "x"}, HOST: {"auth": AUTH}}
    assert changed["proxies"] == {"default": {}}
    assert "credHelpers" not in changed
    assert config == {"auths": {"other": {"auth": "x"}}, "proxies": {"default": {}}}


def test_a_credential_store_is_passed_over_for_our_host_alone() -> None:
    config = {"credsStore": "desktop", "credHelpers": {"ecr": "ecr-login", HOST: "mine"}}
    changed = with_credentials(config, {HOST: AUTH})
    assert changed["credsStore"] == "desktop"
    assert changed["credHelpers"] == {"ecr": "ecr-login", HOST: ""}


def test_the_users_docker_folder_is_linked_to_and_never_written_to(tmp_path: Path) -> None:
    user = tmp_path / "home" / ".docker"
    (user / "contexts" / "meta").mkdir(parents=True)
    (user / "buildx").mkdir()
    (user / "config.json").write_text('{"auths": {"other": {"auth": "x"}}}')
    with Workspace(environment(tmp_path)) as workspace:
        workspace.prepare({HOST: AUTH})
        assert (workspace.docker / "contexts" / "meta").is_dir()
        assert not (workspace.docker / "buildx").exists()
        config = workspace.docker / "config.json"
        assert json.loads(config.read_text())["auths"][HOST] == {"auth": AUTH}
        assert config.stat().st_mode & 0o777 == 0o600
        assert workspace.docker.parent.stat().st_mode & 0o777 == 0o700
        folder = workspace.docker.parent
    assert not folder.exists()
    assert (user / "contexts" / "meta").is_dir()
    assert json.loads((user / "config.json").read_text()) == {"auths": {"other": {"auth": "x"}}}
    assert not list((user / "buildx").iterdir())


def test_what_a_killed_build_left_goes_with_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    # No process has a number beyond the kernel's greatest limit.
    for name in ("layover-build-4194305-x", f"layover-build-{os.getpid()}-x", "layover-build-x-y"):
        (tmp_path / name).mkdir()
    with Workspace(environment(tmp_path)):
        left = {path.name for path in tmp_path.glob("layover-build-*-[xy]")}
    assert left == {f"layover-build-{os.getpid()}-x", "layover-build-x-y"}


def test_a_context_is_recognized_from_build_to_build(tmp_path: Path) -> None:
    names = []
    for _ in range(2):
        with Workspace(environment(tmp_path)) as workspace:
            workspace.prepare({})
            names.append((workspace.buildx / ".buildNodeID").read_bytes())
    assert names[0] == names[1]
    own = tmp_path / "home" / ".docker" / "buildx"
    own.mkdir(parents=True)
    (own / ".buildNodeID").write_text("the user's")
    with Workspace(environment(tmp_path)) as workspace:
        workspace.prepare({})
        assert (workspace.buildx / ".buildNodeID").read_text() == "the user's"


def test_a_docker_configuration_that_is_no_json_is_told_by_its_path(tmp_path: Path) -> None:
    user = tmp_path / "home" / ".docker"
    user.mkdir(parents=True)
    (user / "config.json").write_text("{")
    with Workspace(environment(tmp_path)) as workspace, pytest.raises(ClientError, match=r"\.json"):
        workspace.prepare({})


def test_the_token_is_in_no_environment_but_where_a_secret_is_made_of_it(tmp_path: Path) -> None:
    env = environment(tmp_path, LAYOVER_TOKEN="t", DEPOT_TOKEN="t", BUILDX_BUILDER="b", KEPT="k")
    with Workspace(env) as workspace:
        plain = workspace.environment(["--load", "."])
        assert plain["KEPT"] == "k"
        assert {"LAYOVER_TOKEN", "DEPOT_TOKEN", "BUILDX_BUILDER"}.isdisjoint(plain)
        assert plain["DOCKER_CONFIG"] == str(workspace.docker)
        named = workspace.environment(["--secret", "id=t,env=LAYOVER_TOKEN", "."])
        assert named["LAYOVER_TOKEN"] == "t"
        assert "DEPOT_TOKEN" not in named


def test_a_bake_file_reads_none_of_our_secrets_from_the_environment() -> None:
    secrets = dict.fromkeys(
        ("LAYOVER_TOKEN", "DEPOT_TOKEN", "LAYOVER_ID_TOKEN", "LAYOVER_PUSH_REGISTRY_PASSWORD"), "t"
    )
    env = {**secrets, "TAG": "v1"}
    assert without_own_secrets(env, ["--print", "app"]) == {"TAG": "v1"}
    named = without_own_secrets(env, ["--set", "app.secrets=id=t,env=LAYOVER_TOKEN"])
    assert named == {"TAG": "v1", "LAYOVER_TOKEN": "t"}


def test_certificates_are_files_that_only_their_owner_reads(tmp_path: Path) -> None:
    address = BuilderAddress("tcp://10.0.0.1:1234", "builder", "CA", "CERT", "KEY")
    assert "KEY" not in repr(address)
    with Workspace(environment(tmp_path)) as workspace:
        (command,) = create_commands(workspace, [(address, ("linux/amd64",))])
        options = dict(
            option.split("=", 1)
            for flag, option in itertools.pairwise(command)
            if flag == "--driver-opt"
        )
        assert options.pop("servername") == "builder"
        assert {k: Path(v).read_text() for k, v in options.items()} == {
            "cacert": "CA",
            "cert": "CERT",
            "key": "KEY",
        }
        assert all(Path(v).stat().st_mode & 0o777 == 0o600 for v in options.values())
        assert command[-1] == "tcp://10.0.0.1:1234"
        assert "--platform" not in command


def test_two_builders_are_two_nodes_with_platforms_of_their_own(tmp_path: Path) -> None:
    with Workspace(environment(tmp_path)) as workspace:
        first, second = create_commands(
            workspace,
            [
                (BuilderAddress("10.0.0.1:1"), ("linux/amd64", "linux/386")),
                (BuilderAddress("tcp://10.0.0.2:1"), ("linux/arm64",)),
            ],
        )
    assert "--append" not in first
    assert first[first.index("--platform") + 1] == "linux/amd64,linux/386"
    assert first[-1] == "tcp://10.0.0.1:1"
    assert "--append" in second
    assert second[second.index("--platform") + 1] == "linux/arm64"


def executable(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_buildx_is_found_on_the_path_then_among_dockers_plugins(tmp_path: Path) -> None:
    env = environment(tmp_path, PATH=str(tmp_path / "bin"))
    system = tmp_path / "system"
    with pytest.raises(BuildxMissing, match="docker/buildx/releases"):
        find_buildx(env, (str(system),))
    plugin = executable(system / "docker-buildx")
    assert find_buildx(env, (str(system),)) == plugin
    own = executable(tmp_path / "home" / ".docker" / "cli-plugins" / "docker-buildx")
    assert find_buildx(env, (str(system),)) == own
    path = executable(tmp_path / "bin" / "buildx")
    assert find_buildx(env, (str(system),)) == path
