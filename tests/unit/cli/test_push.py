"""`layover push` asks for what was typed, stays with the push, and says how it ended."""

import asyncio
import errno
import json
import os
import signal
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError

from layover.cli import layer_progress, push_session
from layover.cli import push as command
from layover.cli.main import run
from layover.client import pushing
from layover.client.push_errors import LoginMissing
from layover.client.pushing import Granted, Pace
from layover.client.registry_authorization import RegistryAuthorization, Scheme
from layover.oci.references import Place
from layover.rpc.layover.v1.builds_pb import Build, BuildStatus, SavedImage
from layover.rpc.layover.v1.pushes_pb import PushStatus, TransferState
from tests.unit.cli.fake_pushes import (
    BUILD,
    DIGEST,
    LAYER,
    OTHER,
    PUSH,
    TO,
    FakePushes,
    layer,
    push,
)

SECRET = "of the registry"
QUEUED = push(PushStatus.QUEUED)
RUNNING = push(PushStatus.RUNNING, layer(TransferState.SENDING, 40))
DONE = push(PushStatus.DONE, layer(TransferState.SENT, 100))
CANCELED = push(PushStatus.CANCELED, layer(TransferState.SENDING, 60))


class Registries:
    """What authorizes pushes, and the places that it was asked for."""

    def __init__(self) -> None:
        self.asked: list[Sequence[Place]] = []
        self.error: Exception | None = None
        self.signal: signal.Signals | None = None

    async def authorize(self, places: Sequence[Place], env: dict[str, str]) -> Granted:
        self.asked.append(places)
        if self.signal is not None:
            os.kill(os.getpid(), self.signal)
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        return {place: RegistryAuthorization(Scheme.BEARER, SECRET) for place in places}


@pytest.fixture(autouse=True)
def registries(monkeypatch: pytest.MonkeyPatch) -> Registries:
    made = Registries()
    monkeypatch.setattr(push_session, "authorize", made.authorize)
    monkeypatch.setattr(pushing, "Pace", lambda: Pace(ask_every=timedelta(milliseconds=5)))
    return made


def typed(*arguments: str) -> int:
    return run(["push", *arguments], prog_name="layover")


def interrupt(number: signal.Signals = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


def test_a_push_is_asked_for_as_typed_and_what_it_put_where_is_printed(
    pushes: FakePushes, registries: Registries, capsys: pytest.CaptureFixture[str]
) -> None:
    other = "docker.io/library/app:latest"
    pushes.answer(QUEUED, RUNNING, push(PushStatus.DONE, destinations=[TO, other]))
    status = typed(
        *(BUILD, "-t", TO, "-t", "app", "--tag", TO, "--target", "web", "--referrers"),
        *("--platform", "linux/amd64", "--platform", "linux/arm64", "--platform", ""),
    )
    told = capsys.readouterr()
    assert status == 0
    assert told.out == f"{TO}@{DIGEST}\n{other}@{DIGEST}\n"
    assert f"Pushing {BUILD} to {TO}, {other} (push {PUSH})\n" in told.err
    (request,) = pushes.heard("create")
    assert (request.build_id, request.target, request.with_referrers) == (BUILD, "web", True)
    assert request.destinations == [TO, other]
    assert request.platforms == ["linux/amd64", "linux/arm64"]
    places = [one.place for one in request.authorizations]
    assert places == ["docker.io/library/app", "ghcr.io/acme/app"]
    assert {one.authorization.value.token for one in request.authorizations} == {SECRET}
    assert [str(place) for place in registries.asked[0]] == list(reversed(places))
    assert SECRET not in told.out + told.err


@pytest.mark.parametrize(
    "arguments",
    [
        (BUILD,),
        ("-t",),
        (BUILD, "-t", ""),
        (BUILD, "-t", "Upper/Case"),
        (BUILD, "-t", "https://ghcr.io/acme/app:v1"),
        (BUILD, "-t", f"ghcr.io/acme/app@{DIGEST}"),
        (BUILD, "-t", "ghcr.io/acme/app:v1", "-t", "ghcr.io/acme/app:a b"),
        ("no build", "-t", TO),
        ("", "-t", TO),
        ("../etc/passwd", "-t", TO),
        (BUILD, "other", "-t", TO),
        (BUILD, "-t", TO, "--progress", "loud"),
    ],
)
def test_wrong_usage_reaches_neither_server_nor_registry(
    pushes: FakePushes,
    registries: Registries,
    arguments: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert typed(*arguments) == 2
    assert (pushes.calls, registries.asked) == ([], [])
    told = capsys.readouterr()
    assert told.out == ""
    assert "rror: " in told.err


def test_without_a_destination_it_says_how_to_name_one(
    pushes: FakePushes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed(BUILD) == 2
    assert "say where to push with -t, as -t ghcr.io/acme/app:v1" in capsys.readouterr().err


def saved(*images: tuple[str, list[str]], status: BuildStatus = BuildStatus.FINISHED) -> Build:
    found = [SavedImage(target=target, platforms=platforms) for target, platforms in images]
    return Build(id=BUILD, status=status, images=found)


BAKE = saved(("web", ["linux/amd64"]), ("worker", ["linux/arm64"]))


@pytest.mark.parametrize(
    ("build", "arguments", "status", "reason"),
    [
        (BAKE, (), 2, "has several targets: choose one with --target (web, worker)"),
        (BAKE, ("--target", "webb"), 2, "has no target 'webb'; it has web, worker"),
        (BAKE, ("--target", "web", "--platform", "arm64"), 2, "it is for linux/amd64"),
        (saved(("", ["linux/amd64"])), ("--target", "web"), 2, "leave out --target"),
        (saved(), (), 1, "was not saved, so there is nothing to push"),
        (saved(status=BuildStatus.FAILED), (), 1, "failed: what is pushed"),
        (saved(status=BuildStatus.RUNNING), (), 1, "has not finished yet"),
        (Build(id="cccccccccc"), (), 1, f"unknown build '{BUILD}'"),
    ],
)
def test_what_the_build_does_not_have_is_told_before_a_login_is_shown_to_anybody(
    pushes: FakePushes,
    registries: Registries,
    capsys: pytest.CaptureFixture[str],
    build: Build,
    arguments: tuple[str, ...],
    status: int,
    reason: str,
) -> None:
    pushes.builds.build = build
    assert typed(BUILD, "-t", TO, *arguments) == status
    assert reason in capsys.readouterr().err
    assert (registries.asked, pushes.calls) == ([], [])


def test_a_token_that_may_not_see_the_build_is_told_that_it_may_not_push_it(
    pushes: FakePushes, capsys: pytest.CaptureFixture[str]
) -> None:
    pushes.builds.error = ConnectError(Code.PERMISSION_DENIED, "may not see builds")
    pushes.refusals["create"] = ConnectError(Code.PERMISSION_DENIED, "may not push")
    assert typed(BUILD, "-t", TO) == 1
    assert "may not push" in capsys.readouterr().err


def test_what_the_build_has_is_pushed(pushes: FakePushes) -> None:
    pushes.answer(DONE)
    pushes.builds.build = BAKE
    assert typed(BUILD, "-t", TO, "--target", "web", "--platform", "amd64") == 0
    pushes.builds.build = saved(("web", []))
    assert typed(BUILD, "-t", TO, "--platform", "amd64") == 0
    assert [request.target for request in pushes.heard("create")] == ["web", ""]


def test_a_login_that_is_missing_keeps_the_push_from_being_asked_for(
    pushes: FakePushes, registries: Registries, capsys: pytest.CaptureFixture[str]
) -> None:
    registries.error = LoginMissing("ghcr.io")
    assert typed(BUILD, "-t", TO) == 1
    assert "Run `docker login ghcr.io`" in capsys.readouterr().err
    assert pushes.calls == []


@pytest.mark.parametrize(
    "refusal",
    [
        ConnectError(Code.NOT_FOUND, f"unknown build '{BUILD}'"),
        ConnectError(Code.INVALID_ARGUMENT, "the build has no target 'web'; it has app, worker"),
        ConnectError(Code.PERMISSION_DENIED, "a pull token may not push"),
        ConnectError(Code.RESOURCE_EXHAUSTED, "this project has 100 pushes under way"),
    ],
    ids=lambda refusal: refusal.code.name,
)
def test_the_servers_refusal_is_told_in_its_own_words(
    pushes: FakePushes, capsys: pytest.CaptureFixture[str], refusal: ConnectError
) -> None:
    pushes.refusals["create"] = refusal
    assert typed(BUILD, "-t", TO) == 1
    told = capsys.readouterr()
    assert refusal.message in told.err
    assert told.out == ""


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.INTERNAL])
def test_a_push_whose_answer_is_lost_may_have_been_taken_up(
    pushes: FakePushes, capsys: pytest.CaptureFixture[str], code: Code
) -> None:
    pushes.refusals["create"] = ConnectError(code, "gone")
    assert typed(BUILD, "-t", TO) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "may have the push all the same: `layover pushes list`" in told.err
    assert len(pushes.heard("create")) == 1


def test_a_push_that_fails_says_what_the_registry_said(
    pushes: FakePushes, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = "ghcr.io refused a tag (403): v1 is immutable\x1b[2J"
    pushes.answer(RUNNING, push(PushStatus.FAILED, error=reason))
    assert typed(BUILD, "-t", TO) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert f"error: push {PUSH} failed: {reason[:-4]}" in told.err
    assert "\x1b" not in told.err


def test_a_push_that_somebody_else_stopped_is_an_error(
    pushes: FakePushes, capsys: pytest.CaptureFixture[str]
) -> None:
    pushes.answer(RUNNING, CANCELED)
    assert typed(BUILD, "-t", TO) == 1
    assert f"error: push {PUSH} was canceled\n" in capsys.readouterr().err


def test_a_detached_push_is_left_alone_and_its_id_is_printed(
    pushes: FakePushes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed(BUILD, "-t", TO, "--detach") == 0
    told = capsys.readouterr()
    assert told.out == f"{PUSH}\n"
    assert f"`layover pushes show {PUSH}`" in told.err
    assert typed(BUILD, "-t", TO, "-d", "--progress", "quiet") == 0
    told = capsys.readouterr()
    assert (told.out, told.err) == (f"{PUSH}\n", "")
    assert typed(BUILD, "-t", TO, "-d", "--progress", "json") == 0
    assert json.loads(capsys.readouterr().out)["id"] == PUSH
    assert [name for name, _ in pushes.calls] == ["create"] * 3


def test_quiet_prints_the_result_alone(
    pushes: FakePushes, capsys: pytest.CaptureFixture[str]
) -> None:
    away = [ConnectError(Code.UNAVAILABLE, "away")] * 5
    pushes.answer(RUNNING, *away, DONE)
    assert typed(BUILD, "-t", TO, "--progress", "quiet") == 0
    told = capsys.readouterr()
    assert (told.out, told.err) == (f"{TO}@{DIGEST}\n", "")


def test_json_is_a_line_a_change_and_the_result_the_last_one(
    pushes: FakePushes, capsys: pytest.CaptureFixture[str]
) -> None:
    waiting = layer(TransferState.WAITING, 0, OTHER)
    first = push(PushStatus.RUNNING, layer(TransferState.SENDING, 40), waiting)
    pushes.answer(QUEUED, first, first, DONE)
    assert typed(BUILD, "-t", TO, "--progress", "json") == 0
    told = capsys.readouterr()
    lines = [json.loads(line) for line in told.out.splitlines()]
    assert told.err == ""
    assert [line["status"] for line in lines] == ["queued", "running", "done"]
    assert [len(line["transfers"]) for line in lines] == [0, 2, 1]
    assert lines[1]["transfers"][0] == {
        "place": "ghcr.io/acme/app",
        "digest": LAYER,
        "state": "sending",
        "sizeBytes": 100,
        "sentBytes": 40,
    }
    assert lines[-1]["images"] == [f"{TO}@{DIGEST}"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_asks_the_server_to_stop_and_waits_until_it_did(
    pushes: FakePushes, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    pushes.answer(RUNNING)
    pushes.listed = [RUNNING]
    pushes.meanwhile["get"] = lambda: interrupt(number)
    pushes.meanwhile["cancel"] = lambda: pushes.answer(RUNNING, CANCELED)
    assert typed(BUILD, "-t", TO) == 130
    told = capsys.readouterr()
    assert [request.push_id for request in pushes.heard("cancel")] == [PUSH]
    assert f"error: push {PUSH} was canceled\n" in told.err
    assert told.out == ""


def test_a_terminal_that_is_gone_keeps_nobody_from_stopping_the_push(
    pushes: FakePushes, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = False

    def say(message: str) -> None:
        if gone:
            raise OSError(errno.EIO, "Input/output error")

    def hang_up() -> None:
        nonlocal gone
        gone = True
        interrupt(signal.SIGHUP)

    monkeypatch.setattr(push_session, "say", say)
    monkeypatch.setattr(layer_progress, "say", say)
    pushes.answer(RUNNING)
    pushes.listed = [RUNNING]
    pushes.meanwhile["get"] = hang_up
    pushes.meanwhile["cancel"] = lambda: pushes.answer(CANCELED)
    assert typed(BUILD, "-t", TO) != 0
    assert [request.push_id for request in pushes.heard("cancel")] == [PUSH]


def test_a_push_that_was_done_before_it_could_be_stopped_is_done(
    pushes: FakePushes, capsys: pytest.CaptureFixture[str]
) -> None:
    pushes.answer(RUNNING)
    pushes.listed = [RUNNING]
    pushes.meanwhile["get"] = interrupt
    pushes.meanwhile["cancel"] = lambda: pushes.answer(DONE)
    assert typed(BUILD, "-t", TO) == 0
    told = capsys.readouterr()
    assert told.out == f"{TO}@{DIGEST}\n"
    assert "was done before it could be stopped" in told.err


def test_a_push_that_does_not_stop_in_time_is_told_to_go_on(
    pushes: FakePushes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push_session, "_STOP_TIME", timedelta(milliseconds=20))
    pushes.answer(RUNNING)
    pushes.listed = [RUNNING]
    pushes.meanwhile["get"] = interrupt
    assert typed(BUILD, "-t", TO) == 130
    assert f"push {PUSH} was asked to stop, and has not ended yet" in capsys.readouterr().err


def test_a_second_signal_leaves_at_once(
    pushes: FakePushes, capsys: pytest.CaptureFixture[str]
) -> None:
    pushes.answer(RUNNING)
    pushes.listed = [RUNNING]
    pushes.meanwhile["get"] = interrupt
    pushes.meanwhile["cancel"] = interrupt
    assert typed(BUILD, "-t", TO) == 130
    told = capsys.readouterr().err
    assert f"error: push {PUSH} may go on: `layover pushes show {PUSH}` shows it" in told


def test_a_server_that_does_not_stop_the_push_is_told_of(
    pushes: FakePushes, capsys: pytest.CaptureFixture[str]
) -> None:
    pushes.answer(RUNNING)
    pushes.meanwhile["get"] = interrupt
    pushes.refusals["cancel"] = ConnectError(Code.INTERNAL, "a fault")
    assert typed(BUILD, "-t", TO) == 130
    told = capsys.readouterr().err
    assert f"push {PUSH} goes on, since the server could not be asked to stop it" in told
    assert f"`layover pushes cancel {PUSH}`" in told


def test_a_signal_before_the_push_is_asked_for_leaves_nothing_behind(
    pushes: FakePushes, registries: Registries, capsys: pytest.CaptureFixture[str]
) -> None:
    registries.signal = signal.SIGINT
    assert typed(BUILD, "-t", TO) == 130
    assert "nothing was pushed" in capsys.readouterr().err
    assert pushes.calls == []


def test_a_signal_while_the_push_is_asked_for_stops_it_detached_or_not(
    pushes: FakePushes, capsys: pytest.CaptureFixture[str]
) -> None:
    pushes.listed = [RUNNING]
    for more in ((), ("--detach",)):
        pushes.calls.clear()
        pushes.meanwhile["create"] = interrupt
        pushes.answer(CANCELED)
        assert typed(BUILD, "-t", TO, *more) == 130
        assert f"push {PUSH} was canceled" in capsys.readouterr().err
        assert pushes.heard("create")


def test_a_signal_that_is_ignored_from_the_start_stays_ignored(
    pushes: FakePushes, hang_ups_ignored: None
) -> None:
    pushes.answer(RUNNING, DONE)
    pushes.meanwhile["get"] = lambda: interrupt(signal.SIGHUP)
    assert typed(BUILD, "-t", TO) == 0
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@pytest.fixture
def hang_ups_ignored() -> Iterator[None]:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGHUP, before)


def test_a_token_that_ends_on_the_way_leaves_the_push_to_the_server(
    pushes: FakePushes, capsys: pytest.CaptureFixture[str]
) -> None:
    pushes.answer(RUNNING, ConnectError(Code.UNAUTHENTICATED, "unknown token"))
    assert typed(BUILD, "-t", TO) == 1
    told = capsys.readouterr().err
    assert "unknown token" in told
    assert f"Push {PUSH} goes on without this command: `layover pushes show {PUSH}`" in told


def test_what_runs_out_is_renewed_while_the_command_waits(
    pushes: FakePushes, registries: Registries, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = timedelta(milliseconds=5)
    monkeypatch.setattr(pushing, "Pace", lambda: Pace(every, renew_at_most_every=every))
    waiting = push(PushStatus.RUNNING, waits_for=["ghcr.io/acme/app"])
    pushes.answer(RUNNING, waiting)
    pushes.meanwhile["authorize"] = lambda: pushes.answer(DONE)
    assert typed(BUILD, "-t", TO) == 0
    request: Any = pushes.heard("authorize")[0]
    assert request.push_id == PUSH
    assert [one.authorization.value.token for one in request.authorizations] == [SECRET]
    assert len(registries.asked) == 2


def test_without_an_id_off_a_terminal_the_saved_builds_are_told_as_for_pull(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str | None] = []
    monkeypatch.setattr(command, "choose_saved", lambda server, project: asked.append(project))
    arguments = ("--url", "http://a", "--token", "t", "--project", "oooooooooo")
    assert typed("-t", TO, *arguments) == 2
    assert asked == ["oooooooooo"]


def test_the_chosen_build_is_pushed(pushes: FakePushes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "choose_saved", lambda server, project: "cccccccccc")
    pushes.answer(DONE)
    assert typed("-t", TO) == 0
    assert pushes.heard("create")[0].build_id == "cccccccccc"


def test_existing_scripts_push_with_the_same_flags(
    pushes: FakePushes, capsys: pytest.CaptureFixture[str]
) -> None:
    pushes.answer(DONE)
    arguments = ["push", "--project", "oooooooooo", "--token", "t", "--progress", "plain"]
    assert run([*arguments, "-t", TO, BUILD], prog_name="depot") == 0
    assert capsys.readouterr().out == f"{TO}@{DIGEST}\n"
