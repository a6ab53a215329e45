"""A build's life as the server hears of it, with a script in the place of buildx."""

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from protobuf.wkt import Duration

from layover.cli.buildx import session
from layover.cli.buildx.metadata import MetadataUnwritable
from layover.cli.errors import CliError, Interrupted
from layover.client.address import Server
from layover.client.errors import ServerUnreachable
from layover.rpc.depot.cli.v1 import build_pb as wire
from tests.unit.client.fake_server import (
    BUILD_ID,
    BUILD_TOKEN,
    PROJECT_ID,
    TOKEN,
    FakeServer,
    now,
    serving,
)

AMD64 = wire.BuilderPlatform.AMD64


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with serving(FakeServer()) as server:
        yield server


class Buildx:
    """A script that notes how it was called, and does for `build` what a test says."""

    def __init__(self, folder: Path, then: str = "exit 0") -> None:
        self.path = folder / "buildx"
        self.calls = folder / "calls"
        self.path.write_text(
            f'#!/bin/sh\necho "$@" >>{self.calls}\n[ "$1" = build ] || exit 0\n{then}\n'
        )
        self.path.chmod(0o755)

    def build_arguments(self) -> str:
        lines = self.calls.read_text().splitlines()
        return next(line for line in lines if line.startswith("build "))


def do(fake: FakeServer, buildx: Buildx, tmp_path: Path, **more: object) -> int:
    saved: list[session.Saved | None] = []

    def arguments(_: object, where: session.Saved | None) -> list[str]:
        saved.append(where)
        return ["--output", ",".join(where.tags) if where else "none", "."]

    plan = session.Plan(
        command="build",
        options=[wire.BuildOptions(command=wire.Command.BUILD, save=True)],
        platforms=[AMD64],
        project_id=PROJECT_ID,
        arguments=arguments,
        dockerfiles=[wire.Dockerfile(filename="Dockerfile", contents="FROM scratch")],
        **more,  # type: ignore[arg-type]  # a test names what it changes
    )
    env = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    return asyncio.run(session.build(Server(fake.url, TOKEN), env, buildx.path, plan))


def ending(fake: FakeServer) -> tuple[str, str]:
    """How the server heard that the build ended: the result's name, and its error."""
    (request,) = fake.heard("finish_build")
    return request.result.field, getattr(request.result.value, "error", "")


def test_a_build_that_goes_well_is_reported_from_its_creation_to_its_end(
    fake: FakeServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fake.pending_answers = 2
    buildx = Buildx(tmp_path, "echo drawn >&2; sleep 0.3")
    assert do(fake, buildx, tmp_path) == 0
    host = fake.url.removeprefix("http://")
    assert f"--output {host}/{PROJECT_ID}:{BUILD_ID} ." in buildx.build_arguments()
    assert ending(fake) == ("success", "")
    assert fake.tokens("create_build") == {TOKEN}
    for method in ("get_build_kit_connection", "report_build_health", "finish_build"):
        # The build's own token is enough once there is a build.
        assert fake.tokens(method) == {BUILD_TOKEN}
    (context,) = fake.heard("report_build_context")
    assert context.dockerfiles[0].contents == "FROM scratch"
    messages = capfd.readouterr().err
    assert messages.count("Waiting for a linux/amd64 builder") == 1
    assert "drawn\n" in messages
    assert f"layover pull {BUILD_ID}\n" in messages


def test_the_server_is_told_how_long_to_keep_and_tells_how_long_it_will(
    fake: FakeServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    buildx = Buildx(tmp_path, "true")
    assert do(fake, buildx, tmp_path) == 0
    fake.retention = Duration(seconds=36 * 3600)
    assert do(fake, buildx, tmp_path, retention=timedelta(hours=36)) == 0
    silent, asked = fake.heard("create_build")
    assert silent.retention is None
    assert asked.retention == Duration(seconds=36 * 3600)
    messages = capfd.readouterr().err
    assert "It is saved. To pull it:" in messages
    assert "It is saved for 36h. To pull it:" in messages
    assert "warning" not in messages


def test_a_server_that_does_not_know_of_retention_is_no_surprise(
    fake: FakeServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert do(fake, Buildx(tmp_path, "true"), tmp_path, retention=timedelta(hours=36)) == 0
    assert "warning: this server does not know --retention" in capfd.readouterr().err


def test_a_failed_build_has_buildx_s_status_and_last_error(
    fake: FakeServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    buildx = Buildx(tmp_path, "echo '#5 ERROR: first' >&2; echo 'ERROR: unknown FORM' >&2; exit 3")
    assert do(fake, buildx, tmp_path) == 3
    assert ending(fake) == ("error", "buildx ended with status 3: unknown FORM")
    assert f"Build {BUILD_ID} failed." in capfd.readouterr().err


def test_a_builder_that_cannot_be_used_fails_the_build(fake: FakeServer, tmp_path: Path) -> None:
    buildx = Buildx(tmp_path)
    buildx.path.write_text("#!/bin/sh\necho 'ERROR: no such driver' >&2; exit 1\n")
    with pytest.raises(CliError, match="could not use the builder: no such driver"):
        do(fake, buildx, tmp_path)
    assert ending(fake)[0] == "error"


def test_a_builder_that_does_not_answer_is_asked_for_again(
    fake: FakeServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fake.dead_endpoints = ["tcp://127.0.0.1:9"]
    assert do(fake, Buildx(tmp_path), tmp_path) == 0
    assert len(fake.heard("get_build_kit_connection")) == 2
    assert "tcp://127.0.0.1:9 does not answer" in capfd.readouterr().err


def test_metadata_names_the_build_beside_what_buildx_wrote(
    fake: FakeServer, tmp_path: Path
) -> None:
    path = tmp_path / "build.json"
    buildx = Buildx(tmp_path, """[ "$4" = --metadata-file ] && echo '{"a": 1}' >"$5" """)
    assert do(fake, buildx, tmp_path, metadata_file=path, targets=["app"]) == 0
    build = {"buildID": BUILD_ID, "projectID": PROJECT_ID, "targets": ["app"]}
    assert json.loads(path.read_text()) == {"a": 1, "depot.build": build}


def test_a_good_build_whose_metadata_is_lost_is_good_and_saved_all_the_same(
    fake: FakeServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(MetadataUnwritable, match="No such file"):
        do(fake, Buildx(tmp_path), tmp_path, metadata_file=tmp_path / "gone" / "build.json")
    assert ending(fake) == ("success", "")
    assert f"layover pull {BUILD_ID}\n" in capfd.readouterr().err


def test_a_failed_build_leaves_the_metadata_file_as_it_was(
    fake: FakeServer, tmp_path: Path
) -> None:
    path = tmp_path / "build.json"
    path.write_text("{}")
    assert do(fake, Buildx(tmp_path, "exit 1"), tmp_path, metadata_file=path) == 1
    assert path.read_text() == "{}"


def test_a_server_that_is_away_at_the_end_is_waited_for(fake: FakeServer, tmp_path: Path) -> None:
    fake.unavailable = {"finish_build": 6, "report_build_context": 9, "report_build_health": 9}
    assert do(fake, Buildx(tmp_path), tmp_path) == 0
    assert len(fake.heard("finish_build")) == 7


@pytest.mark.parametrize(
    ("code", "reason", "told"),
    [
        (Code.UNAVAILABLE, "away for long", "may not be saved"),
        (Code.INTERNAL, "its disk is full", "may not be saved"),
        (Code.UNIMPLEMENTED, "of a proxy", "may not be saved"),
        (Code.FAILED_PRECONDITION, "the build ended as canceled", "not saved"),
    ],
)
def test_a_build_whose_end_is_not_recorded_is_not_said_to_be_saved(
    fake: FakeServer,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    code: Code,
    reason: str,
    told: str,
) -> None:
    monkeypatch.setattr(session, "_SAVE_WITHIN_SECONDS", 0.1)
    monkeypatch.setattr(session, "_FINISH_PAUSE_SECONDS", 0.1)
    fake.refusals["finish_build"] = ConnectError(code, reason)
    path = tmp_path / "build.json"
    with pytest.raises(CliError, match=f"build {BUILD_ID} is done,? and {told}, since"):
        do(fake, Buildx(tmp_path), tmp_path, metadata_file=path)
    assert "layover pull" not in capfd.readouterr().err
    assert not path.exists()


def test_a_build_that_is_canceled_as_it_is_done_was_stopped(
    fake: FakeServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fake.cancels_at = now() - timedelta(seconds=1)
    fake.refusals["finish_build"] = ConnectError(Code.FAILED_PRECONDITION, "it was canceled")
    with pytest.raises(CliError, match="was stopped: the server canceled the build"):
        do(fake, Buildx(tmp_path, "trap '' INT; sleep 2; exit 0"), tmp_path)
    assert "layover pull" not in capfd.readouterr().err


def test_a_build_that_the_server_cancels_is_stopped(fake: FakeServer, tmp_path: Path) -> None:
    fake.cancels_at = now() - timedelta(seconds=1)
    buildx = Buildx(
        tmp_path,
        "trap 'echo stopped >>" + str(tmp_path) + "/stopped; exit 1' INT; "
        "while :; do sleep 0.1; done",
    )
    with pytest.raises(CliError, match="the server canceled the build"):
        do(fake, buildx, tmp_path)
    assert ending(fake)[0] == "canceled"


def test_a_build_that_is_to_be_canceled_later_goes_on(fake: FakeServer, tmp_path: Path) -> None:
    fake.cancels_at = now() + timedelta(hours=1)
    assert do(fake, Buildx(tmp_path, "sleep 0.3"), tmp_path) == 0


def signal_when(condition: Path, *numbers: signal.Signals) -> threading.Thread:
    def send() -> None:
        while not condition.exists():
            time.sleep(0.05)
        for number in numbers:
            os.kill(os.getpid(), number)
            time.sleep(0.3)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def test_an_interrupt_is_passed_on_and_recorded(fake: FakeServer, tmp_path: Path) -> None:
    started, stopped = tmp_path / "started", tmp_path / "stopped"
    buildx = Buildx(
        tmp_path,
        f"trap 'touch {stopped}; exit 1' INT; touch {started}; while :; do sleep 0.1; done",
    )
    thread = signal_when(started, signal.SIGTERM)
    with pytest.raises(Interrupted, match=f"build {BUILD_ID} was canceled"):
        do(fake, buildx, tmp_path)
    thread.join()
    assert stopped.exists()
    assert ending(fake)[0] == "canceled"


def test_a_second_interrupt_kills_a_buildx_that_does_not_end(
    fake: FakeServer, tmp_path: Path
) -> None:
    started = tmp_path / "started"
    buildx = Buildx(tmp_path, f"trap '' INT; touch {started}; exec sleep 60")
    thread = signal_when(started, signal.SIGINT, signal.SIGINT)
    begun = time.monotonic()
    with pytest.raises(Interrupted):
        do(fake, buildx, tmp_path)
    thread.join()
    assert time.monotonic() - begun < 20
    assert ending(fake)[0] == "canceled"


def test_an_interrupt_while_waiting_for_a_builder_cancels_the_build(
    fake: FakeServer, tmp_path: Path
) -> None:
    fake.pending_answers = 10**6
    waiting = tmp_path / "waiting"

    def say_so() -> None:
        while not fake.heard("get_build_kit_connection"):
            time.sleep(0.05)
        waiting.touch()

    watcher = threading.Thread(target=say_so)
    watcher.start()
    thread = signal_when(waiting, signal.SIGINT)
    with pytest.raises(Interrupted):
        do(fake, Buildx(tmp_path), tmp_path)
    watcher.join()
    thread.join()
    assert ending(fake)[0] == "canceled"


def test_a_build_that_was_never_created_has_no_end(fake: FakeServer, tmp_path: Path) -> None:
    fake.unavailable["create_build"] = 1
    with pytest.raises(ServerUnreachable):
        do(fake, Buildx(tmp_path), tmp_path)
    assert fake.heard("finish_build") == []


@pytest.mark.parametrize(
    ("error", "is_lost"),
    [
        ("failed to solve: Unavailable: error reading from server: EOF", True),
        ("failed to receive status: rpc error: code = Unavailable desc = error reading", True),
        ("unexpected status from GET request: 503 Service Unavailable", False),
        ('process "curl" did not complete successfully: exit code: 1', False),
    ],
)
def test_a_builder_that_is_gone_is_told_from_what_is_unavailable_to_a_build(
    error: str, is_lost: bool
) -> None:
    assert bool(session._UNAVAILABLE.search(error)) == is_lost
