"""`docker-credential-layover` speaks the protocol of Docker's helpers, whatever it is asked."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from connectrpc.code import Code
from hypothesis import given, settings
from hypothesis import strategies as st

from layover.cli.credential_helper import run
from layover.client import login_file
from layover.client.login_file import Login
from tests.unit.cli.exchange import JOB, exchanging

URL, HOST, TOKEN = "https://layover.example.com", "layover.example.com", "layover_s3cret"


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"LAYOVER_CONFIG_DIR": str(tmp_path / "config")}


def ask(action: str, content: str | bytes, env: dict[str, str]) -> tuple[int, str]:
    data = content if isinstance(content, bytes) else content.encode()
    return run([action], lambda: data, env)


def credentials(server: str = HOST, user: str = "x-token", secret: str = TOKEN) -> str:
    return json.dumps({"ServerURL": server, "Username": user, "Secret": secret})


@pytest.mark.parametrize(
    "asked", [HOST, f"{HOST}\n", URL, f"{HOST}:443", f"{HOST}/v1/", f"{URL}/v2/"]
)
def test_get_answers_with_the_token_for_what_was_asked(env: dict[str, str], asked: str) -> None:
    login_file.write(login_file.login_path(env), Login(URL, {URL: TOKEN}))
    status, answer = ask("get", asked, env)
    assert status == 0
    assert json.loads(answer) == {
        "ServerURL": asked.strip(),
        "Username": "x-token",
        "Secret": TOKEN,
    }


@pytest.mark.parametrize("asked", ["other.example.com", f"{HOST}:5000", f"http://{HOST}"])
def test_get_gives_no_other_registry_the_token(env: dict[str, str], asked: str) -> None:
    env |= {"LAYOVER_URL": URL, "LAYOVER_TOKEN": TOKEN}
    assert ask("get", asked, env) == (1, "credentials not found in native keychain")


def test_what_is_stored_is_got_listed_and_erased(env: dict[str, str]) -> None:
    assert ask("list", "", env) == (0, "{}")
    assert ask("store", credentials(), env) == (0, "")
    assert login_file.login_path(env).stat().st_mode & 0o777 == 0o600
    assert json.loads(ask("get", HOST, env)[1])["Secret"] == TOKEN
    status, listing = ask("list", "", env)
    assert (status, json.loads(listing)) == (0, {HOST: "x-token"})
    assert ask("erase", f"{URL}/v1/", env) == (0, "")
    assert ask("get", HOST, env) == (1, "credentials not found in native keychain")
    assert ask("erase", HOST, env) == (0, "")


@pytest.mark.parametrize(
    ("action", "content", "said"),
    [
        ("get", "", "no credentials server URL"),
        ("erase", " \n", "no credentials server URL"),
        ("store", credentials(server=""), "no credentials server URL"),
        ("store", credentials(user=""), "no credentials username"),
        ("store", credentials(user="somebody"), "the user name has to be x-token"),
        ("store", credentials(user="<token>"), "the user name has to be x-token"),
        ("store", credentials(secret=""), "the token is empty"),
        ("store", credentials(secret=f"{TOKEN} more"), "the token cannot be one"),
        ("store", credentials(server="user@host"), "is not a registry's address"),
        (
            "store",
            json.dumps({"ServerURL": HOST, "Username": "x-token", "Secret": [TOKEN]}),
            "text",
        ),
        ("store", f'["{TOKEN}"]', "not a JSON object"),
        ("store", f'{{"Secret": "{TOKEN}"', "not a JSON object"),
        ("store", "[" * 60_000, "not a JSON object"),
        ("store", TOKEN.encode() + b"\xff", "not UTF-8"),
        ("store", TOKEN * 10_000, "longer than"),
        ("get", "https://user:pass@host", "is not a registry's address"),
    ],
)
def test_a_refusal_is_one_line_that_holds_no_token(
    env: dict[str, str], action: str, content: str | bytes, said: str
) -> None:
    status, answer = ask(action, content, env)
    assert status == 1
    assert said in answer
    assert "\n" not in answer
    assert TOKEN not in answer
    assert not login_file.login_path(env).exists()


def test_a_broken_login_file_is_said_without_what_is_in_it(env: dict[str, str]) -> None:
    path = login_file.login_path(env)
    path.parent.mkdir()
    path.write_text(f'[tokens]\n"{URL}" = "{TOKEN}')
    for action, content in (("get", HOST), ("list", ""), ("erase", HOST), ("store", credentials())):
        status, answer = ask(action, content, env)
        assert status == 1
        assert str(path) in answer
        assert TOKEN not in answer


def test_a_login_file_that_others_can_read_is_warned_about_beside_the_answer(
    env: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = login_file.login_path(env)
    login_file.write(path, Login(URL, {URL: TOKEN}))
    path.chmod(0o644)
    assert ask("get", HOST, env)[0] == 0
    shown = capsys.readouterr()
    assert "chmod 600" in shown.err
    assert shown.out == ""


@pytest.mark.parametrize("arguments", [[], ["get", "more"], ["list-all"], ["--get"]])
def test_another_action_shows_those_that_there_are(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments, lambda: b"", {}) == (2, "")
    assert "<get|store|erase|list|version>" in capsys.readouterr().err


def test_an_unforeseen_error_tells_its_kind_alone(env: dict[str, str]) -> None:
    def broken() -> bytes:
        raise RuntimeError(TOKEN)

    assert run(["store"], broken, env) == (1, "unexpected RuntimeError")


@settings(deadline=None)
@given(
    action=st.sampled_from(["get", "store", "erase", "list"]),
    content=st.binary(max_size=80)
    | st.text(max_size=40).map(str.encode)
    | st.fixed_dictionaries(
        {},
        optional={
            "ServerURL": st.sampled_from([HOST, URL, "a b", "[::1]:1"]) | st.text(max_size=20),
            "Username": st.sampled_from(["x-token", ""]) | st.text(max_size=5),
            "Secret": st.text(max_size=20) | st.none() | st.integers(),
        },
    ).map(lambda value: json.dumps(value).encode()),
)
def test_whatever_it_is_asked_it_answers_in_the_protocol(
    tmp_path_factory: pytest.TempPathFactory, action: str, content: bytes
) -> None:
    env = {
        "LAYOVER_CONFIG_DIR": str(tmp_path_factory.mktemp("config")),
        "LAYOVER_URL": "https://other.example.com",
        "LAYOVER_TOKEN": TOKEN,
    }
    status, answer = run([action], lambda: content, env)
    assert status in (0, 1)
    assert "\n" not in answer
    assert not answer.startswith("unexpected ")
    if action == "list" and status == 0:
        assert set(json.loads(answer).values()) == {"x-token"}
    elif action == "get" and status == 0:
        assert set(json.loads(answer)) == {"ServerURL", "Username", "Secret"}
    else:
        assert TOKEN not in answer


def test_the_program_says_nothing_but_its_answer(env: dict[str, str]) -> None:
    program = Path(sys.executable).parent / "docker-credential-layover"
    for closed in ("", " 2>&-"):
        done = subprocess.run(
            ["sh", "-c", f'"$0" get{closed}', program],
            env={**env, "LAYOVER_URL": URL, "LAYOVER_TOKEN": TOKEN},
            input=f"{HOST}\n".encode(),
            capture_output=True,
            check=False,
        )
        assert json.loads(done.stdout)["Secret"] == TOKEN
        assert (done.returncode, done.stderr) == (0, b"")


def test_the_program_loads_no_more_than_it_needs() -> None:
    heavy = "pyqwest", "connectrpc", "rich", "docker", "sqlalchemy"
    loaded = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, layover.cli.credential_helper; print(*sys.modules)",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert not set(heavy) & set(loaded)


def test_in_a_ci_job_docker_gets_what_the_jobs_own_token_is_traded_for(
    env: dict[str, str],
) -> None:
    with exchanging() as server:
        env |= {
            "LAYOVER_URL": server.url,
            "LAYOVER_PROJECT_ID": "pppppppppp",
            "LAYOVER_ID_TOKEN": JOB,
        }
        host = server.url.removeprefix("http://")
        status, answer = ask("get", host, env)
        assert (status, json.loads(answer)["Secret"]) == (0, "traded")
        # Another registry is told nothing of the job.
        assert ask("get", "127.0.0.1:1", env) == (1, "credentials not found in native keychain")
        assert server.heard == [(f"Bearer {JOB}", "pppppppppp")]
        server.refusal = Code.UNAUTHENTICATED
        status, answer = ask("get", host, env)
        assert (status, "does not trust this job" in answer) == (1, True)
