"""Logging in: the page and the code are shown, the token is kept, and what went wrong is said."""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError

from layover.cli import login
from layover.cli.main import run
from layover.client import login_file
from layover.rpc.depot.cli.v1beta1 import login_pb as pb
from layover.rpc.depot.cli.v1beta1.login_connect import LoginService, LoginServiceASGIApplication
from layover.rpc.layover.v1 import tokens_pb, users_pb
from layover.rpc.layover.v1.users_connect import UsersService, UsersServiceASGIApplication
from tests.unit.client.fake_server import TOKEN_ID, FakeServer, serving

ID, NEW_TOKEN = "the-id-of-the-login", "layover_new"
PASSWORD = "correct horse battery"


class FakeLogins(LoginService):
    """Answers as a test says; by default with a token at once."""

    def __init__(self) -> None:
        self.approve_url = ""
        self.answers: list[Code] = []
        self.user_agents: list[str] = []

    async def start_login(self, request: Any, ctx: Any) -> pb.StartLoginResponse:
        self.user_agents.append(ctx.request_headers.get("user-agent", ""))
        return pb.StartLoginResponse(id=ID, approve_url=self.approve_url, user_code="BCDF-GHJK")

    async def finish_login(self, request: Any, ctx: Any) -> AsyncIterator[pb.FinishLoginResponse]:
        assert request.id == ID
        if self.answers:
            raise ConnectError(self.answers.pop(0), "the server's words")
        yield pb.FinishLoginResponse(token=NEW_TOKEN)


class FakeUsers(UsersService):
    """Takes passwords."""

    def __init__(self) -> None:
        self.passwords: list[str] = []

    async def set_password(self, request: Any, ctx: Any) -> users_pb.SetPasswordResponse:
        self.passwords.append(request.password)
        return users_pb.SetPasswordResponse(user_name="ann", sign_in_url="https://a/signin")


class World:
    def __init__(self, fake: FakeServer, logins: FakeLogins, users: FakeUsers, home: Path) -> None:
        self.url, self.logins, self.users = fake.url, logins, users
        self.made = fake.made
        self.path = home / ".config" / "layover" / "config.toml"
        logins.approve_url = f"{fake.url}/device?code=BCDF-GHJK"

    def __call__(self, *arguments: str) -> int:
        return run([*arguments, "--url", self.url], prog_name="layover")

    @property
    def kept(self) -> login_file.Login:
        return login_file.read(self.path)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    for name in list(os.environ):
        if name.startswith(("LAYOVER_", "DEPOT_", "XDG_")) or name in ("DISPLAY", "BROWSER"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    logins, users = FakeLogins(), FakeUsers()
    apps = (LoginServiceASGIApplication(logins), UsersServiceASGIApplication(users))
    with serving(FakeServer(), *apps) as fake:
        yield World(fake, logins, users, tmp_path)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The pages that a browser was asked to show."""
    pages: list[str] = []

    def shows(url: str, env: object) -> bool:
        pages.append(url)
        return True

    monkeypatch.setattr(login, "open_page", shows)
    return pages


def test_a_login_shows_the_page_and_the_code_and_keeps_the_token(
    world: World, opened: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert world("login") == 0
    shown = capsys.readouterr()
    assert opened == [world.logins.approve_url]
    assert shown.out == ""
    for told in (world.logins.approve_url, "BCDF-GHJK", f"Logged in to {world.url} (1 project)"):
        assert told in shown.err
    for secret in (ID, NEW_TOKEN):
        assert secret not in shown.err
    assert world.kept.tokens == {world.url: NEW_TOKEN}
    assert world.kept.made == {world.url}
    assert world.path.stat().st_mode & 0o777 == 0o600
    assert world.logins.user_agents[0].startswith("layover/")


def test_no_browser_is_opened_when_none_is_wanted(world: World, opened: list[str]) -> None:
    assert world("login", "--no-browser") == 0
    assert opened == []


def test_a_given_token_is_kept_as_somebody_else_s(world: World, opened: list[str]) -> None:
    assert world("login") == 0
    assert world("login", "--token", "layover_given") == 0
    assert world.kept.tokens == {world.url: "layover_given"}
    assert world.kept.made == frozenset()
    assert len(opened) == 1


def test_a_connection_that_breaks_is_made_again(
    world: World, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("layover.client.login_flow._FIRST_PAUSE_SECONDS", 0.01)
    world.logins.answers = [Code.UNAVAILABLE, Code.UNAVAILABLE]
    assert world("login") == 0
    assert world.kept.tokens == {world.url: NEW_TOKEN}


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (Code.PERMISSION_DENIED, "the server's words"),
        (Code.NOT_FOUND, "nobody approved the login in time"),
        (Code.RESOURCE_EXHAUSTED, "the server's words"),
    ],
)
def test_a_login_that_comes_to_nothing_says_why_and_keeps_nothing(
    world: World,
    opened: list[str],
    code: Code,
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    world.logins.answers = [code]
    assert world("login") == 1
    assert f"error: {told}" in capsys.readouterr().err
    assert not world.path.exists()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "--help",
        "http://",
        "http://a/\x1b[2J",
        "http://a/ -x",
        'http://a/"&calc',
        "http://[",
        "http://\N{SNOWMAN}",
    ],
)
def test_what_is_no_page_is_neither_opened_nor_shown(
    world: World, opened: list[str], url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    world.logins.approve_url = url
    assert world("login") == 1
    assert opened == []
    shown = capsys.readouterr().err
    assert "no page to open" in shown
    assert len(url) < 8 or url not in shown


def test_an_interrupted_login_ends_with_130(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupts(url: str, env: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(login, "open_page", interrupts)
    assert world("login") == 130
    assert "interrupted" in capsys.readouterr().err
    assert not world.path.exists()


def revoked(world: World) -> list[tuple[str, str]]:
    """The tokens that were revoked: whose call it was, and which ID."""
    return [
        (token, request.token_id)
        for token, request in world.made.calls
        if isinstance(request, tokens_pb.RevokeTokenRequest)
    ]


def test_logging_out_ends_the_token_that_a_login_made(world: World, opened: list[str]) -> None:
    assert world("login") == 0
    assert world("logout") == 0
    assert revoked(world) == [(NEW_TOKEN, TOKEN_ID)]
    assert world.kept.tokens == {}
    assert world("logout") == 0
    assert len(revoked(world)) == 1


def test_logging_out_leaves_a_token_that_others_may_have(world: World, opened: list[str]) -> None:
    assert world("login", "--token", "layover_given") == 0
    assert world("logout") == 0
    assert world("login") == 0
    assert world("logout", "--keep") == 0
    assert revoked(world) == []
    assert world.kept.tokens == {}


@pytest.mark.parametrize(
    ("code", "is_warned"), [(Code.UNAUTHENTICATED, False), (Code.INTERNAL, True)]
)
def test_logging_out_forgets_a_token_that_cannot_be_revoked(
    world: World,
    opened: list[str],
    code: Code,
    is_warned: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert world("login") == 0
    world.made.refusal = ConnectError(code, "no")
    assert world("logout") == 0
    told = capsys.readouterr().err
    assert ("warning: the token was not revoked" in told) is is_warned
    assert NEW_TOKEN not in told
    assert world.kept.tokens == {}


def with_input(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    class Input:
        read: Callable[..., str] = staticmethod(lambda: text)

        def isatty(self) -> bool:
            return False

    monkeypatch.setattr("sys.stdin", Input())


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_password_is_read_from_standard_input(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    end: str,
) -> None:
    with_input(monkeypatch, f"{PASSWORD}{end}")
    assert world("passwd", "--token", "t", "--password-stdin") == 0
    shown = capsys.readouterr()
    assert world.users.passwords == [PASSWORD]
    assert "The password of ann is set. Sign in at https://a/signin" in shown.err
    assert PASSWORD not in shown.err + shown.out


def test_no_password_is_taken_where_there_is_none(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_input(monkeypatch, "\n")
    assert world("passwd", "--token", "t", "--password-stdin") == 2
    assert world.users.passwords == []
