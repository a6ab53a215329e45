import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from layover.adapters.buildkit.processes import (
    ProcessIdentity,
    descendants,
    end,
    kill,
    processes_rooted_in,
    processes_with_command,
)

pytestmark = pytest.mark.anyio

# Says "ready" and then waits; with "deaf" as its argument it does not end when asked to.
_WAITER = (
    "import signal, sys, time\n"
    "if sys.argv[1] == 'deaf': signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "print('ready', flush=True)\n"
    "time.sleep(600)\n"
)
# The same, with a waiter of its own.
_PARENT = (
    "import subprocess, sys\n"
    "child = subprocess.Popen([sys.executable, '-c', sys.argv[1], 'deaf'])\n"
    "child.wait()\n"
)


@pytest.fixture
def waiter(request: pytest.FixtureRequest) -> Iterator[ProcessIdentity]:
    script, argument = getattr(request, "param", (_WAITER, "polite"))
    with subprocess.Popen(
        [sys.executable, "-c", script, argument], stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        identity = ProcessIdentity.of(process.pid)
        assert identity is not None
        yield identity
        for child in descendants(process.pid):
            child.send(signal.SIGKILL)
        process.kill()


def test_a_process_is_told_apart_from_a_later_one_with_its_id(waiter: ProcessIdentity) -> None:
    later = ProcessIdentity(waiter.pid, waiter.started_at + 1)
    assert waiter.is_running
    assert not later.is_running
    # A signal to who is not there any more reaches nobody.
    later.send(signal.SIGKILL)
    assert waiter.is_running


def test_there_is_no_process_with_an_id_that_nobody_has() -> None:
    assert ProcessIdentity.of(2**22 + 1) is None


def test_a_process_is_found_by_its_arguments(waiter: ProcessIdentity) -> None:
    assert waiter in processes_with_command([_WAITER, "polite"])
    assert processes_with_command(["no process", "has these"]) == []


async def test_a_process_that_listens_is_asked_to_end(
    waiter: ProcessIdentity, tmp_path: Path
) -> None:
    await end(waiter, tmp_path)
    assert not waiter.is_running


@pytest.mark.parametrize("waiter", [(_PARENT, _WAITER)], indirect=True)
async def test_what_a_process_started_ends_with_it(waiter: ProcessIdentity, tmp_path: Path) -> None:
    (child,) = descendants(waiter.pid)
    await end(waiter, tmp_path)
    assert not child.is_running


@pytest.mark.parametrize("waiter", [(_WAITER, "deaf")], indirect=True)
async def test_a_deaf_process_is_killed(
    waiter: ProcessIdentity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("layover.adapters.buildkit.processes.STOP_TIMEOUT_SECONDS", 0.2)
    await end(waiter, tmp_path)
    assert not waiter.is_running


async def test_killing_those_who_are_gone_is_nothing(waiter: ProcessIdentity) -> None:
    await kill([waiter])
    await kill([waiter])
    assert not waiter.is_running


def test_this_process_has_the_root_of_the_machine(tmp_path: Path) -> None:
    assert os.getpid() not in {process.pid for process in processes_rooted_in(tmp_path)}
