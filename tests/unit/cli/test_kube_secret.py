"""`layover kube-secret` prints a secret and nothing else, with a token made for it."""

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError

from layover.cli.main import run
from layover.rpc.layover.v1.tokens_pb import TokenKind
from tests.unit.client.fake_server import (
    BUILD_ID,
    PROJECT_ID,
    PULL_TOKEN,
    TOKEN,
    TOKEN_ID,
    FakeServer,
)


def kube_secret(*arguments: str) -> int:
    return run(["kube-secret", *arguments], prog_name="layover")


def test_a_secret_pulls_the_project_for_thirty_days(
    server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kube_secret("layover", "--namespace", "web", "--output", "json") == 0
    shown = capsys.readouterr()
    secret = json.loads(shown.out)
    host = server.url.removeprefix("http://")
    config = json.loads(base64.b64decode(secret["data"][".dockerconfigjson"]))
    assert config["auths"][host]["password"] == PULL_TOKEN
    ((token, request),) = server.made.calls
    assert token == TOKEN
    assert (request.kind, request.project_id, request.build_id) == (TokenKind.PULL, PROJECT_ID, "")
    assert request.lifetime.to_timedelta() == timedelta(days=30)
    assert request.description == "kube-secret web/layover"
    metadata = secret["metadata"]
    assert (metadata["name"], metadata["namespace"]) == ("layover", "web")
    end = datetime.fromisoformat(metadata["annotations"].pop("layover/expires-at"))
    assert timedelta(days=29) < end - datetime.now(UTC) <= timedelta(days=30)
    assert metadata["annotations"] == {
        "layover/project-id": PROJECT_ID,
        "layover/token-id": TOKEN_ID,
    }
    assert f"pulls project {PROJECT_ID} from {host} until " in shown.err
    assert f"`layover tokens revoke {TOKEN_ID}`" in shown.err
    assert "is this machine alone" in shown.err
    assert PULL_TOKEN not in shown.err


def test_a_secret_for_a_build_pulls_that_build(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAYOVER_PROJECT_ID", "zzzzzzzzzz")
    assert kube_secret("layover", BUILD_ID, "--expires", "36h") == 0
    ((_, request),) = server.made.calls
    assert (request.project_id, request.build_id) == ("", BUILD_ID)
    assert request.lifetime.to_timedelta() == timedelta(hours=36)
    shown = capsys.readouterr()
    assert shown.out.startswith('apiVersion: "v1"\nkind: "Secret"\n')
    assert f'layover/build-id: "{BUILD_ID}"' in shown.out
    assert "namespace" not in shown.out
    assert f"pulls build {BUILD_ID} " in shown.err


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("Upper",),
        ("layover", "--namespace", "a.b"),
        ("layover", "not-a-build"),
        ("layover", BUILD_ID, "--project", PROJECT_ID),
        ("layover", "--expires", "0s"),
        ("layover", "--output", "table"),
    ],
)
def test_wrong_usage_makes_no_token(
    server: FakeServer, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert kube_secret(*arguments) == 2
    assert server.made.calls == []
    assert capsys.readouterr().out == ""


def test_a_refusal_prints_nothing_that_could_be_applied(
    server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.made.refusal = ConnectError(Code.PERMISSION_DENIED, "this token may not create tokens")
    assert kube_secret("layover") == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "this token may not create tokens" in shown.err


def test_without_a_server_it_says_how_to_name_one(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kube_secret("layover") == 2
    assert "no server given" in capsys.readouterr().err
