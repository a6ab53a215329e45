"""The kubelet gets a pull token of the image's project, from the image's own server."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError

from layover.cli import kubelet_credential_provider
from layover.cli.main import run
from tests.unit.client.fake_server import PROJECT_ID, PULL_TOKEN, FakeServer
from tests.unit.client.test_kubernetes import TOKEN, request

Provide = Callable[..., int]


@pytest.fixture
def provide(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> Provide:
    """Run the provider on a request for an image of the server's, some of it changed."""

    def provide(*arguments: str, content: bytes | None = None, **changes: Any) -> int:
        if content is None:
            image = f"{server.url.removeprefix('http://')}/{PROJECT_ID}"
            content = json.dumps(request(image=image) | changes).encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        return run(["kubelet-credential-provider", *arguments], prog_name="layover")

    return provide


def test_the_pods_token_is_traded_for_one_that_pulls(
    server: FakeServer, provide: Provide, capsys: pytest.CaptureFixture[str]
) -> None:
    assert provide() == 0
    shown = capsys.readouterr()
    answer = json.loads(shown.out)
    host = server.url.removeprefix("http://")
    assert answer["auth"] == {
        f"{host}/{PROJECT_ID}": {"username": "x-token", "password": PULL_TOKEN}
    }
    assert answer["cacheKeyType"] == "Image"
    assert 2600 <= int(answer["cacheDuration"].removesuffix("s")) <= 2655
    assert shown.err == ""
    # Not the environment's own token, LAYOVER_TOKEN.
    ((token, asked),) = server.made.calls
    assert token == TOKEN
    assert (asked.project_id, asked.pull_only) == (PROJECT_ID, True)


def test_an_image_elsewhere_gets_no_token_and_sends_none(
    server: FakeServer, provide: Provide, capsys: pytest.CaptureFixture[str]
) -> None:
    for image in (f"evil.example/{PROJECT_ID}", f"127.0.0.1:1/{PROJECT_ID}", "busybox"):
        assert provide(image=image) == 1
        shown = capsys.readouterr()
        assert shown.out == ""
        assert "matchImages" in shown.err
    assert server.made.calls == []


@pytest.mark.parametrize(
    "refusal",
    [
        ConnectError(Code.UNAUTHENTICATED, "a valid token is needed"),
        ConnectError(Code.NOT_FOUND, f"unknown project '{PROJECT_ID}'"),
        ConnectError(Code.PERMISSION_DENIED, "this token may not pull"),
    ],
)
def test_a_service_account_that_nobody_trusts_is_said_with_its_claims(
    server: FakeServer,
    provide: Provide,
    refusal: ConnectError,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server.made.refusal = refusal
    assert provide() == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"no pull token of project {PROJECT_ID}" in shown.err
    assert refusal.message in shown.err
    assert "audience layover, subject system:serviceaccount:web:app" in shown.err
    assert TOKEN not in shown.err
    assert TOKEN.split(".")[2] not in shown.err


def test_a_token_of_another_project_is_not_passed_on(
    server: FakeServer, provide: Provide, capsys: pytest.CaptureFixture[str]
) -> None:
    server.made.project_id = "zzzzzzzzzz"
    assert provide() == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert PULL_TOKEN not in shown.err


def test_a_server_that_does_not_answer_is_given_up_before_the_kubelet_gives_us_up(
    provide: Provide, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kubelet_credential_provider._TIMEOUT_SECONDS < 60
    monkeypatch.setattr(kubelet_credential_provider, "_TIMEOUT_SECONDS", 0)
    assert provide() == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "did not answer within" in shown.err


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", b" " * (2 << 20)])
def test_what_is_no_request_gets_no_answer(
    provide: Provide, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert provide(content=content) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")


def test_the_server_is_named_by_the_kubelets_configuration_and_not_by_a_login(
    provide: Provide,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("LAYOVER_URL")
    path = home / ".config" / "layover" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text('url = "https://layover.example.com"\n')
    assert provide() == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "no server given" in shown.err
