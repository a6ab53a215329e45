"""A job's own ID token is found in each CI system, for this server and nobody else."""

import contextlib
import json
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from layover.client import ci_tokens
from layover.client.ci_tokens import JobToken, JobTokenUnavailable, find_job_token
from tests.certificates import Certificates, make_certificates

AUDIENCE = "https://layover.example.com"
TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl"
REQUEST_TOKEN = "the-jobs-request-token"


@dataclass
class Runner:
    """GitHub's token service as a runner sees it."""

    url: str = ""
    answers: list[tuple[int, bytes]] = field(default_factory=list)
    heard: list[tuple[str, str]] = field(default_factory=list)


@contextlib.contextmanager
def github(certificates: Certificates) -> Iterator[Runner]:
    runner = Runner()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            runner.heard.append((self.path, self.headers.get("authorization", "")))
            status, content = (
                runner.answers.pop(0) if len(runner.answers) > 1 else runner.answers[0]
            )
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.send_header("location", "https://localhost:1/elsewhere")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.certificate, certificates.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    runner.url = f"https://localhost:{server.server_port}/token?api-version=2.0&empty="
    runner.answers = [(200, json.dumps({"count": 1, "value": TOKEN}).encode())]
    try:
        yield runner
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ci_tokens, "_PAUSE_SECONDS", 0.0)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def in_github(runner: Runner, certificates: Certificates) -> dict[str, str]:
    return {
        "GITHUB_ACTIONS": "true",
        "ACTIONS_ID_TOKEN_REQUEST_URL": runner.url,
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": REQUEST_TOKEN,
        "SSL_CERT_FILE": str(certificates.ca),
    }


def program(folder: Path, name: str, script: str) -> dict[str, str]:
    """An environment on whose PATH there is a program of this name."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin"}


def test_outside_of_ci_there_is_none() -> None:
    assert find_job_token(AUDIENCE, {"PATH": "/usr/bin:/bin", "HOME": "/"}) is None


def test_a_variable_says_it_for_any_system() -> None:
    assert find_job_token(AUDIENCE, {"LAYOVER_ID_TOKEN": f"{TOKEN}\n"}) == JobToken(
        "The CI system", TOKEN
    )
    gitlab = {"LAYOVER_ID_TOKEN": TOKEN, "GITLAB_CI": "true"}
    assert find_job_token(AUDIENCE, gitlab) == JobToken("GitLab CI", TOKEN)


def test_github_is_asked_for_one_for_this_server(certificates: Certificates) -> None:
    with github(certificates) as runner:
        found = find_job_token(AUDIENCE, in_github(runner, certificates))
    assert found == JobToken("GitHub Actions", TOKEN)
    assert runner.heard == [
        (
            "/token?api-version=2.0&empty=&audience=https%3A%2F%2Flayover.example.com",
            f"Bearer {REQUEST_TOKEN}",
        )
    ]


def test_github_is_asked_again_while_it_is_away(certificates: Certificates) -> None:
    with github(certificates) as runner:
        runner.answers = [(503, b""), (500, b""), *runner.answers]
        assert find_job_token(AUDIENCE, in_github(runner, certificates)) is not None
        assert len(runner.heard) == 3
        runner.answers = [(503, b"")]
        with pytest.raises(JobTokenUnavailable, match="503"):
            find_job_token(AUDIENCE, in_github(runner, certificates))
        assert len(runner.heard) == 6


@pytest.mark.parametrize(
    ("status", "content", "reason"),
    [
        (403, b"denied", "403"),
        (302, b"", "302"),
        (200, b"<html>", "holds none"),
        (200, b"[]", "holds none"),
        (200, b'{"value": 5}', "holds none"),
        (200, b'{"value": "no token"}', "no token"),
        (200, b'{"value": "a\\nb.c.d"}', "no token"),
        (200, b'{"value": "' + b"x" * 100_000 + b'"}', "holds none"),
    ],
)
def test_an_answer_of_github_that_is_no_token_is_told_without_secrets(
    certificates: Certificates, status: int, content: bytes, reason: str
) -> None:
    with github(certificates) as runner:
        runner.answers = [(status, content)]
        with pytest.raises(JobTokenUnavailable, match=reason) as raised:
            find_job_token(AUDIENCE, in_github(runner, certificates))
        assert len(runner.heard) == 1
    assert REQUEST_TOKEN not in str(raised.value)


def test_the_request_token_goes_to_nobody_without_https(certificates: Certificates) -> None:
    for url in (
        "http://localhost:1/token",
        "ftp://localhost/",
        "localhost",
        "https://",
        "https://[",
    ):
        env = {"ACTIONS_ID_TOKEN_REQUEST_URL": url, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "secret"}
        with pytest.raises(JobTokenUnavailable, match="not https"):
            find_job_token(AUDIENCE, env)
    with github(certificates) as runner:
        env = {**in_github(runner, certificates), "SSL_CERT_FILE": ""}
        with pytest.raises(JobTokenUnavailable, match="cannot be reached") as raised:
            find_job_token(AUDIENCE, env)
        assert runner.heard == []
        env = in_github(runner, certificates)
        env["ACTIONS_ID_TOKEN_REQUEST_TOKEN"] = "sec\nret"
        with pytest.raises(JobTokenUnavailable) as raised:
            find_job_token(AUDIENCE, env)
        assert "sec" not in str(raised.value)


def test_circleci_is_asked_for_one_for_this_server(tmp_path: Path) -> None:
    script = f'echo "$@" > {tmp_path}/heard; echo {TOKEN}'
    env = {**program(tmp_path / "bin", "circleci", script), "CIRCLECI": "true"}
    env["CIRCLE_OIDC_TOKEN_V2"] = "another.jobs.token"
    assert find_job_token(AUDIENCE, env) == JobToken("CircleCI", TOKEN)
    heard = (tmp_path / "heard").read_text().strip()
    assert heard == 'run oidc get --claims {"aud": "https://layover.example.com"}'


def test_circlecis_ready_token_is_taken_where_none_can_be_asked_for(tmp_path: Path) -> None:
    ready = {"CIRCLECI": "true", "CIRCLE_OIDC_TOKEN_V2": TOKEN}
    broken = program(tmp_path / "bin", "circleci", "exit 3")
    assert find_job_token(AUDIENCE, {**ready, "PATH": "/nowhere"}) == JobToken("CircleCI", TOKEN)
    assert find_job_token(AUDIENCE, {**ready, **broken}) == JobToken("CircleCI", TOKEN)
    assert find_job_token(AUDIENCE, {"CIRCLECI": "true", "PATH": "/nowhere"}) is None
    with pytest.raises(JobTokenUnavailable, match=r"`circleci run oidc` ended with 3"):
        find_job_token(AUDIENCE, {"CIRCLECI": "true", **broken})


def test_buildkite_is_asked_for_one_for_this_server(tmp_path: Path) -> None:
    script = f'echo "$@" > {tmp_path}/heard; echo "$BUILDKITE_AGENT_ACCESS_TOKEN" >&2; echo {TOKEN}'
    env = {**program(tmp_path / "bin", "buildkite-agent", script), "BUILDKITE": "true"}
    env["BUILDKITE_AGENT_ACCESS_TOKEN"] = "secret"
    assert find_job_token(AUDIENCE, env) == JobToken("Buildkite", TOKEN)
    heard = (tmp_path / "heard").read_text().strip()
    assert heard == "oidc request-token --audience https://layover.example.com"
    assert find_job_token(AUDIENCE, {"BUILDKITE": "true", "PATH": "/nowhere"}) is None


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo secret >&2; exit 1", "ended with 1"),
        ("echo no token", "no token"),
        ("printf '\\377.\\377.\\377'", "no token"),
        ("true", "no token"),
    ],
)
def test_a_program_that_gives_no_token_is_told_without_what_it_said(
    tmp_path: Path, script: str, reason: str
) -> None:
    env = {**program(tmp_path / "bin", "buildkite-agent", script), "BUILDKITE": "true"}
    with pytest.raises(JobTokenUnavailable, match=reason) as raised:
        find_job_token(AUDIENCE, env)
    assert "secret" not in str(raised.value)


def test_a_program_that_cannot_be_run_or_never_ends_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = {**program(tmp_path / "bin", "buildkite-agent", "sleep 60"), "BUILDKITE": "true"}
    monkeypatch.setattr(ci_tokens, "_TIMEOUT_SECONDS", 0.05)
    with pytest.raises(JobTokenUnavailable, match="longer than"):
        find_job_token(AUDIENCE, env)
    (tmp_path / "bin" / "buildkite-agent").write_text("#!/nowhere\n")
    with pytest.raises(JobTokenUnavailable, match="cannot be run"):
        find_job_token(AUDIENCE, env)


def test_a_token_shows_in_no_repr() -> None:
    assert TOKEN not in repr(JobToken("GitHub Actions", TOKEN))
