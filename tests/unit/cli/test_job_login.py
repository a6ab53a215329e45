"""A CI job's ID token is traded for a token of the project that the job names."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from connectrpc.code import Code

from layover.cli.errors import WrongUsage
from layover.cli.job_login import JobNotTrusted, token_of_job
from layover.client.errors import ServerUnreachable
from tests.unit.cli.exchange import JOB, Exchange, exchanging

CI = {"LAYOVER_ID_TOKEN": JOB, "LAYOVER_PROJECT_ID": "pppppppppp"}


@pytest.fixture
def server() -> Iterator[Exchange]:
    with exchanging() as exchange:
        yield exchange


def token(
    server: Exchange,
    env: dict[str, str],
    project: str | None = None,
    folder: Path = Path("/"),
    *,
    has_login: bool = False,
) -> str:
    return asyncio.run(token_of_job(server.url, project, folder, env, has_login=has_login))


def test_the_jobs_token_is_traded_for_one_of_its_project(server: Exchange, tmp_path: Path) -> None:
    assert token(server, CI) == "traded"
    assert token(server, CI, "oooooooooo") == "traded"
    (tmp_path / "depot.json").write_text('{"id": "ffffffffff"}')
    assert token(server, {"LAYOVER_ID_TOKEN": JOB}, folder=tmp_path) == "traded"
    assert server.heard == [
        (f"Bearer {JOB}", project) for project in ("pppppppppp", "oooooooooo", "ffffffffff")
    ]


def test_outside_of_ci_nothing_is_traded(server: Exchange) -> None:
    assert token(server, {"LAYOVER_PROJECT_ID": "pppppppppp"}) == ""
    assert server.heard == []


def test_a_job_says_which_project_it_is_for(server: Exchange) -> None:
    # Whoever owns a project can trust this job, and would get what it builds.
    with pytest.raises(WrongUsage, match="LAYOVER_PROJECT_ID"):
        token(server, {"LAYOVER_ID_TOKEN": JOB})
    assert token(server, {"LAYOVER_ID_TOKEN": JOB}, has_login=True) == ""
    assert server.heard == []


@pytest.mark.parametrize("code", [Code.UNAUTHENTICATED, Code.NOT_FOUND, Code.PERMISSION_DENIED])
def test_a_job_that_is_not_trusted_hears_what_to_do(
    server: Exchange, code: Code, capsys: pytest.CaptureFixture[str]
) -> None:
    server.refusal = code
    with pytest.raises(JobNotTrusted, match="layover projects trust add") as refused:
        token(server, CI)
    assert JOB not in str(refused.value)
    assert token(server, CI, has_login=True) == ""
    assert "login is used" in capsys.readouterr().err


def test_a_server_that_is_away_is_no_reason_to_use_another_token() -> None:
    away = Exchange()
    away.url = "http://127.0.0.1:1"
    with pytest.raises(ServerUnreachable):
        token(away, CI, has_login=True)
