"""A helper is asked in the protocol that Docker's helpers speak, and believed in nothing else."""

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import pytest

from layover.client.credential_helpers import ask_helper
from layover.client.docker_logins import Credential
from layover.client.push_errors import HelperFailed

pytestmark = pytest.mark.anyio

PROGRAM = "docker-credential-fake"
SECRET = "s3cret-of-ann"
LOGIN = {"ServerURL": "ghcr.io", "Username": "ann", "Secret": SECRET}

Helper = Callable[[str], Mapping[str, str]]
T = TypeVar("T")


@pytest.fixture
def helper(tmp_path: Path) -> Helper:
    """Install a helper; return an environment on whose PATH it is."""

    def install(script: str) -> Mapping[str, str]:
        path = tmp_path / PROGRAM
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return {"PATH": f"{tmp_path}:/usr/bin:/bin"}

    return install


def saying(content: object) -> str:
    return f"cat >/dev/null; cat <<'END'\n{json.dumps(content)}\nEND"


async def ask(env: Mapping[str, str], seconds: float = 60) -> Credential | None:
    return await ask_helper("fake", "ghcr.io", "ghcr.io", env, timeout_seconds=seconds)


async def test_it_hears_the_registry_and_says_the_login(helper: Helper, tmp_path: Path) -> None:
    env = helper(f'echo "$@" >{tmp_path}/action; cat >{tmp_path}/input\n{saying(LOGIN)}')
    assert await ask(env) == Credential(PROGRAM, "ann", SECRET)
    assert (tmp_path / "action").read_text() == "get\n"
    assert (tmp_path / "input").read_text() == "ghcr.io"


async def test_a_token_in_place_of_a_password_is_told_by_the_user_name(helper: Helper) -> None:
    env = helper(saying({**LOGIN, "Username": "<token>"}))
    assert await ask(env) == Credential(PROGRAM, identity_token=SECRET)


async def test_it_need_not_read_what_it_was_asked(helper: Helper) -> None:
    env = helper(saying(LOGIN).removeprefix("cat >/dev/null; "))
    assert await ask(env) == Credential(PROGRAM, "ann", SECRET)


async def test_what_it_does_not_have_is_none(helper: Helper) -> None:
    assert await ask(helper("echo credentials not found in native keychain; exit 1")) is None
    assert await ask(helper(saying({**LOGIN, "Username": "", "Secret": ""}))) is None


async def test_our_own_helper_is_one_like_any_other(tmp_path: Path) -> None:
    env = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LAYOVER_CONFIG_DIR": str(tmp_path),
        "LAYOVER_URL": "https://layover.example.com",
        "LAYOVER_TOKEN": SECRET,
    }
    host = "layover.example.com"
    assert await ask_helper("layover", host, host, env) == Credential(
        "docker-credential-layover", "x-token", SECRET
    )
    assert await ask_helper("layover", "ghcr.io", "ghcr.io", env) is None


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo it is locked; exit 3", "status 3: it is locked"),
        ("exit 1", "status 1"),
        (f"echo '{json.dumps(LOGIN)}'; exit 1", r"status 1\. Have"),
        (f"echo 'your Secret is {SECRET}'; exit 1", r"status 1\. Have"),
        (f"echo 'password={SECRET}'; exit 1", "status 1: password=.redacted."),
        (r"printf 'a\033[31mb'; exit 1", r"status 1\. Have"),
        ("kill -9 $$", "status -9"),
        ("true", "not a JSON object"),
        (f"echo {SECRET}", "not a JSON object"),
        (f"echo '[\"{SECRET}\"]'", "not a JSON object"),
        (f'echo \'{{"Username": "{SECRET}", "Secret": 5}}\'', "no texts"),
        ("head -c 300000 /dev/zero", "said more than"),
        ("yes s3cret", "said more than"),
    ],
)
async def test_what_is_no_answer_is_told_without_any_secret(
    helper: Helper, script: str, reason: str
) -> None:
    with pytest.raises(HelperFailed, match=reason) as failure:
        await ask(helper(script))
    told = str(failure.value)
    assert PROGRAM in told and "ghcr.io" in told
    assert "s3cret" not in told


def started(pid_file: Path) -> int:
    """Wait for a program that writes down its number; return that."""
    return until(lambda: int(pid_file.read_text() or 0) if pid_file.exists() else 0)


def has_ended(pid: int) -> bool:
    """Wait until the process is gone."""
    return until(lambda: not Path(f"/proc/{pid}").exists())


def until(look: Callable[[], T]) -> T:
    deadline = time.monotonic() + 60
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


async def test_one_that_hangs_is_ended_whoever_else_holds_its_output(
    helper: Helper, tmp_path: Path
) -> None:
    env = helper(f"echo $$ >{tmp_path}/pid; sleep 20 & sleep 20")
    with pytest.raises(HelperFailed, match="took longer than 1 s"):
        await ask(env, 1)
    pid = await asyncio.to_thread(started, tmp_path / "pid")
    assert await asyncio.to_thread(has_ended, pid)


async def test_one_is_ended_with_whoever_asked_it(helper: Helper, tmp_path: Path) -> None:
    asking = asyncio.create_task(ask(helper(f"echo $$ >{tmp_path}/pid; exec sleep 20")))
    pid = await asyncio.to_thread(started, tmp_path / "pid")
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert await asyncio.to_thread(has_ended, pid)


async def test_one_that_is_not_there_or_cannot_be_run(helper: Helper, tmp_path: Path) -> None:
    with pytest.raises(HelperFailed, match="not on the PATH"):
        await ask({"PATH": "/nonexistent"})
    env = helper("true")
    (tmp_path / PROGRAM).write_text("no program")
    with pytest.raises(HelperFailed, match="cannot be run"):
        await ask(env)


@pytest.mark.parametrize("name", ["", "../evil", "/bin/sh", "a b", "-x", "a\0b", "x" * 200])
async def test_a_name_that_is_a_path_runs_nothing(name: str) -> None:
    with pytest.raises(HelperFailed, match="not a helper's name"):
        await ask_helper(name, "ghcr.io", "ghcr.io", os.environ)
