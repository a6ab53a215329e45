"""The program finds its commands, starts fast, and ends with a message and a status."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from layover.cli import errors
from layover.cli.main import COMMANDS, cli, program_name, run
from layover.client.errors import ClientError
from layover.errors import LayoverError
from layover.identity.ids import new_secret
from tests.unit.client.fake_server import FakeServer, serving

# What only a server needs, and what only some commands need.
HEAVY = (
    "sqlalchemy",
    "uvicorn",
    "starlette",
    "alembic",
    "pydantic",
    "docker",
    "rich",
    "questionary",
)


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith(("LAYOVER_", "DEPOT_", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commands(group: click.Command, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, group
    if isinstance(group, click.Group):
        context = click.Context(group)
        for name in group.list_commands(context):
            child = group.get_command(context, name)
            assert child is not None
            yield from commands(child, *path, name)


@pytest.mark.parametrize("path", [path for path, _ in commands(cli)], ids=" ".join)
def test_every_command_has_help_with_an_example(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*path, "--help"], prog_name="layover") == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"Usage: {' '.join(('layover', *path))}")
    assert "Example: " in shown


def test_the_list_of_commands_says_what_each_says_itself() -> None:
    context = click.Context(cli)
    for name, line in COMMANDS.items():
        command = cli.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert line[0].isupper()
        assert line.endswith(".")


def modules_after(code: str) -> set[str]:
    program = f"import sys\n{code}\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code",
    [
        "from layover.cli.main import run; run(['--help'], prog_name='layover')",
        "from layover.cli.main import run; run(['pull', '--help'], prog_name='layover')",
        "from layover.cli.main import run; run(['push', '--help'], prog_name='layover')",
        "from layover.cli.main import run; run(['serve', '--help'], prog_name='layover')",
        "import layover.cli.pull, layover.cli.build, layover.cli.bake, layover.cli.lists",
    ],
)
def test_a_command_starts_without_what_others_need(code: str) -> None:
    assert modules_after(code).isdisjoint(HEAVY)


def test_help_loads_no_http_client() -> None:
    loaded = modules_after("from layover.cli.main import run; run(['--help'], prog_name='layover')")
    assert loaded.isdisjoint({"pyqwest", "connectrpc", "protobuf", "asyncio"})


def test_the_program_is_called_what_the_user_called_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert program_name("/usr/bin/depot") == "depot"
    assert program_name("layover.exe") == "layover"
    assert program_name("/site-packages/layover/cli/__main__.py") == "layover"
    assert run(["version"], prog_name="depot") == 0
    assert capsys.readouterr().out.startswith("depot 0.")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_for_the_name_the_user_typed(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["completion", shell], prog_name="depot") == 0
    assert "_DEPOT_COMPLETE" in capsys.readouterr().out


def test_bash_completes_commands_and_their_options(tmp_path: Path) -> None:
    env = {**os.environ, "_LAYOVER_COMPLETE": "bash_complete", "COMP_CWORD": "1"}
    script = [sys.executable, "-m", "layover.cli"]
    done = subprocess.run(
        script,
        env={**env, "COMP_WORDS": "layover pu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "plain,pull\nplain,pull-token\nplain,push\nplain,pushes\n"


def test_wrong_usage_ends_with_two(environment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["nothing"],
        ["pull", "--nothing"],
        ["list", "builds"],
        ["list", "builds", "--url", "nowhere"],
        ["list", "builds", "--url", "http://a"],
        ["build"],
        ["build", "a", "b"],
        ["build", "--save=perhaps", "."],
        ["build", "--save", "-t", "Upper", "."],
        ["pull", "aaaaaaaaaa", "-t", "Upper"],
        ["build", "--builder", "mine", "."],
        ["build", "--retention", "36h", "."],
        ["bake", "--retention=36h"],
        ["build", "--save", "--retention", "0s", "."],
        ["build", "--save", "--retention=-1h", "."],
        ["build", "--save", "--retention=", "."],
        ["bake", "--save", "--retention", "tomorrow"],
        ["builds", "keep", "aaaaaaaaaa"],
        ["builds", "keep", "--for", "7d"],
        ["builds", "keep", "aaaaaaaaaa", "--for", "0d"],
        ["builds", "keep", "aaaaaaaaaa", "--for", "-7d"],
        ["builds", "keep", "aaaaaaaaaa", "--for", "a week"],
        ["builds", "rm"],
        ["builds", "receipt"],
        ["projects", "update", "--url", "http://a", "--token", "a"],
        ["projects", "update", "--retention", "0h"],
        ["projects", "update", "aaaaaaaaaa", "--project", "bbbbbbbbbb", "--quota", "none"],
        ["projects", "update", "--quota", "0B"],
        ["projects", "create"],
        ["projects", "create", "web", "--retention", "0s"],
        ["projects", "delete"],
        ["orgs", "create"],
        ["orgs", "rename", "aaaaaaaaaa"],
        ["orgs", "delete"],
        ["members", "invite"],
        ["members", "invite", "--role", "king"],
        ["members", "update", "ann"],
        ["tokens", "create", "--kind", "build"],
        ["tokens", "create", "--project", "aaaaaaaaaa"],
        ["tokens", "create", "--kind", "project", "--build", "aaaaaaaaaa"],
        ["tokens", "create", "--kind", "pull", "--build", "a", "--project", "b"],
        ["tokens", "list", "--org", "a", "--project", "b"],
        ["tokens", "revoke"],
        ["pull-token", "no id"],
        ["pull-token", "aaaaaaaaaa", "--project", "bbbbbbbbbb"],
        ["pull-token", "--expires", "0s"],
        ["projects", "update", "--quota", "much"],
        ["push", "aaaaaaaaaa"],
        ["push", "aaaaaaaaaa", "-t", "Upper"],
        ["pushes", "show"],
        ["pushes", "cancel"],
        ["projects", "update", "--quota", "999999999999999TiB"],
        ["bake", "--save", "https://github.com/a/b.git"],
        ["login", "--url", "http://a", "--token", "a", "--token-stdin"],
        ["login", "--url", "http://a", "--token", "two\nlines"],
        ["login", "--url", "http://a", "--token", ""],
        ["login", "--no-browser"],
        ["passwd", "--url", "http://a", "--token", "a"],
    ):
        assert run(arguments, prog_name="layover") == 2, arguments
        shown = capsys.readouterr()
        assert shown.out == ""
        assert "rror: " in shown.err
        assert "Traceback" not in shown.err


def test_a_missing_buildx_says_how_to_get_it(
    environment: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(environment))
    monkeypatch.setattr("layover.cli.build.find_buildx", lambda env: raising())
    assert run(["build", "--save", "."], prog_name="layover") == 1
    assert "https://github.com/docker/buildx/releases" in capsys.readouterr().err


def raising() -> Path:
    raise errors.BuildxMissing


class Unforeseen(Exception):
    pass


def command_that_raises(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command("version")
    def command() -> None:
        raise error

    monkeypatch.setattr("layover.cli.version.command", command)


def test_a_bug_is_one_line_until_more_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command_that_raises(Unforeseen("of\nthis"), monkeypatch)
    monkeypatch.delenv("LAYOVER_DEBUG", raising=False)
    assert run(["version"], prog_name="layover") == 1
    assert capsys.readouterr().err == (
        "error: unexpected Unforeseen: of this (LAYOVER_DEBUG=1 shows more)\n"
    )
    monkeypatch.setenv("LAYOVER_DEBUG", "1")
    assert run(["version"], prog_name="layover") == 1
    assert "Traceback" in capsys.readouterr().err


def test_nothing_that_is_shown_of_an_error_holds_a_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = new_secret()
    for error in (Unforeseen(f"with {secret}"), errors.CliError(f"with {secret}")):
        error.__cause__ = ValueError(f"https://user:{secret}@host.example")
        for debug in ("", "1"):
            monkeypatch.setenv("LAYOVER_DEBUG", debug)
            command_that_raises(error, monkeypatch)
            assert run(["version"], prog_name="layover") == 1
            shown = capsys.readouterr().err
            assert "with [redacted]" in shown
            assert secret not in shown


def test_an_interrupt_ends_with_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for error in (KeyboardInterrupt(), errors.Interrupted(), click.Abort()):
        command_that_raises(error, monkeypatch)
        assert run(["version"], prog_name="layover") == 130
        assert "interrupted" in capsys.readouterr().err


def leaves(kind: type[LayoverError]) -> set[type[LayoverError]]:
    found = {kind}
    for child in kind.__subclasses__():
        found |= leaves(child)
    return found


def test_every_error_of_ours_has_a_status_and_every_entry_is_one() -> None:
    known = leaves(errors.CliError) | leaves(ClientError)
    assert set(errors.EXIT_CODES) <= known
    assert set(errors.HINTS) <= known
    for kind in known:
        assert errors.exit_code(kind.__new__(kind)) in (1, 2, 130)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_command_without_a_standard_stream_ends_as_ever(environment: Path, closed: str) -> None:
    command = f"'{sys.executable}' -m layover.cli"
    login = "login --url http://a --token-stdin"
    for arguments, status in (("version", 0), ("list projects", 2), (login, 2)):
        done = subprocess.run(
            ["sh", "-c", f"{command} {arguments} {closed}"],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == status
        assert "Traceback" not in done.stderr
        # A message never takes the place of a result.
        assert "error" not in done.stdout


def test_a_failing_command_never_aborts_the_process(environment: Path) -> None:
    # The HTTP client's threads outlive a failed call: one in a dozen ends was an abort.
    with serving(FakeServer()) as fake:
        env = {**os.environ, "LAYOVER_URL": fake.url, "LAYOVER_TOKEN": "t"}
        command = [sys.executable, "-m", "layover.cli", "pull", "aaaaaaaaaa"]
        for _ in range(12):
            done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
            assert done.returncode == 1
            assert "unknown build 'aaaaaaaaaa'" in done.stderr
