"""`layover configure-docker` says what it did, and what is still missing."""

import json
import sys
from pathlib import Path

import pytest

from layover.cli.main import run

HOST, URL, TOKEN = "layover.example.com", "https://layover.example.com", "layover_s3cret"


def configure(*arguments: str) -> int:
    return run(["configure-docker", *arguments], prog_name="layover")


@pytest.fixture(autouse=True)
def scripts_on_the_path(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))


def content_of(path: Path) -> object:
    return json.loads(path.read_text())


def test_the_servers_own_registry_is_configured_and_unconfigured(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAYOVER_URL", URL)
    monkeypatch.setenv("LAYOVER_TOKEN", TOKEN)
    path = home / ".docker" / "config.json"
    assert configure() == 0
    assert content_of(path) == {"credHelpers": {HOST: "layover"}}
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == f"Docker asks Layover for the token of {HOST} from now on: {path}\n"
    assert configure() == 0
    assert "already" in capsys.readouterr().err
    assert configure("--uninstall") == 0
    assert not path.exists()
    assert configure("--uninstall") == 0
    assert "left as it is" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "host"),
    [
        (("--registry", "127.0.0.1:5000"), "127.0.0.1:5000"),
        (("--registry", "https://Layover.example.com:443/"), HOST),
        (("--url", "http://127.0.0.1:5000"), "127.0.0.1:5000"),
        (("--url", URL, "--registry", "other.example.com"), "other.example.com"),
    ],
)
def test_a_registry_is_named_as_images_name_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], host: str
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(home / "elsewhere"))
    assert configure(*arguments) == 0
    assert content_of(home / "elsewhere" / "config.json") == {"credHelpers": {host: "layover"}}
    assert not (home / ".docker").exists()


def test_a_program_that_docker_would_not_find_is_said_with_what_to_do(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(home))
    assert configure("--registry", HOST) == 0
    said = capsys.readouterr().err
    scripts = Path(sys.executable).parent
    assert f'export PATH="{scripts}:$PATH"' in said
    assert f"ln -s {scripts}/docker-credential-layover " in said


def test_a_registry_without_a_token_is_said(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert configure("--registry", HOST) == 0
    assert f"There is no token for {HOST} yet: `layover login`" in capsys.readouterr().err


def test_another_login_for_the_registry_is_warned_about(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = home / ".docker" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"auths": {HOST: {"auth": "czNjcmV0"}}, "credsStore": "pass"}))
    assert configure("--registry", HOST) == 0
    said = capsys.readouterr().err
    assert f"warning: {path} holds a login for {HOST} as well" in said
    assert "credential store 'pass'" in said
    assert "czNjcmV0" not in said


def test_what_cannot_be_done_ends_with_a_status_and_changes_nothing(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = home / ".docker" / "config.json"
    path.parent.mkdir()
    path.write_text("{")
    assert configure("--registry", HOST) == 1
    assert configure("--registry", HOST, "--uninstall") == 1
    assert path.read_text() == "{"
    assert "Nothing was changed" in capsys.readouterr().err
    assert configure("--registry", "a b") == 2
    assert configure() == 2
    assert "no server given" in capsys.readouterr().err
