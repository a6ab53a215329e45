"""`layover pushes` shows what there is in each form, and asks to stop what was named."""

import json

import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError

from layover.cli.main import run
from layover.rpc.layover.v1.pushes_pb import PushStatus, TransferState
from tests.unit.cli.fake_pushes import (
    BUILD,
    DIGEST,
    LAYER,
    OTHER,
    PLACE,
    PUSH,
    TO,
    FakePushes,
    layer,
    push,
)

DONE = push(PushStatus.DONE, layer(TransferState.SENT, 100), layer(TransferState.EXISTS, 0, OTHER))


def typed(*arguments: str) -> int:
    return run(["pushes", *arguments], prog_name="layover")


def test_pushes_are_listed_in_each_form_and_to_the_limit(
    pushes: FakePushes, capsys: pytest.CaptureFixture[str]
) -> None:
    pushes.listed = [push(PushStatus.RUNNING, push_id=f"push{n}") for n in range(4)] + [DONE]
    assert typed("list", "-o", "json", "--limit", "3") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["id"] for row in rows] == ["push0", "push1", "push2"]
    assert [request.page_size for request in pushes.heard("list")] == [3, 1]
    assert typed("list", "-o", "csv") == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.startswith("id,status,")
    assert lines[4].startswith(f"{PUSH},done,")
    assert typed("list", "--project", "oooooooooo") == 0
    shown = capsys.readouterr().out
    assert pushes.heard("list")[-1].project_id == "oooooooooo"
    assert shown.split("\n")[5].split()[-2:] == [BUILD, TO]


def test_no_pushes_are_an_empty_list(
    pushes: FakePushes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed("list", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out) == []


def test_a_push_is_shown_with_how_far_each_layer_is(
    pushes: FakePushes, capsys: pytest.CaptureFixture[str]
) -> None:
    pushes.answer(DONE)
    assert typed("show", PUSH, "--output", "json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert list(row)[:2] == ["id", "status"]
    assert (row["id"], row["status"], row["durationSeconds"]) == (PUSH, "done", 60)
    assert row["images"] == [f"{TO}@{DIGEST}"]
    assert row["transfers"] == [
        {"place": PLACE, "digest": LAYER, "state": "sent", "sizeBytes": 100, "sentBytes": 100},
        {"place": PLACE, "digest": OTHER, "state": "exists", "sizeBytes": 100, "sentBytes": 0},
    ]
    assert typed("show", PUSH) == 0
    shown = capsys.readouterr().out
    assert "Sent       100B of 200B\n" in shown
    assert "aaaaaaaaaaaa  Pushed" in shown
    assert "bbbbbbbbbbbb  Layer already exists" in shown


def test_what_a_push_waits_for_and_why_one_failed_is_shown(
    pushes: FakePushes, capsys: pytest.CaptureFixture[str]
) -> None:
    waiting = push(PushStatus.RUNNING, waits_for=[PLACE])
    failed = push(PushStatus.FAILED, waits_for=[PLACE], error="ghcr.io refused a\x1b[2Jtag (403)")
    pushes.answer(waiting, failed)
    assert typed("show", PUSH) == 0
    assert f"Waits for  a login at {PLACE}\n" in capsys.readouterr().out
    assert typed("show", PUSH) == 0
    shown = capsys.readouterr().out
    assert "Waits for" not in shown
    assert "Error      ghcr.io refused a\ufffd[2Jtag (403)\n" in shown


def test_each_push_that_goes_on_is_asked_to_stop(
    pushes: FakePushes, capsys: pytest.CaptureFixture[str]
) -> None:
    running = push(PushStatus.RUNNING, push_id="runs")
    canceled = push(PushStatus.CANCELED, push_id="stopped")
    pushes.listed = [DONE, running, canceled]
    assert typed("cancel", "unknown", PUSH, "runs", "stopped", "runs") == 1
    told = capsys.readouterr()
    assert told.out.split() == ["runs", "stopped"]
    assert "unknown push 'unknown'" in told.err
    assert f"error: {PUSH}: it has ended: it is done" in told.err
    assert typed("cancel", "runs") == 0


def test_an_unknown_push_is_told_with_the_servers_words(
    pushes: FakePushes, capsys: pytest.CaptureFixture[str]
) -> None:
    pushes.answer(ConnectError(Code.NOT_FOUND, "unknown push 'nothing'"))
    assert typed("show", "nothing") == 1
    told = capsys.readouterr()
    assert (told.out, "unknown push 'nothing'" in told.err) == ("", True)


@pytest.mark.parametrize(
    "arguments", [("cancel",), ("show",), ("list", "--limit", "0"), ("show", PUSH, "-o", "csv")]
)
def test_wrong_usage_reaches_no_server(pushes: FakePushes, arguments: tuple[str, ...]) -> None:
    assert typed(*arguments) == 2
    assert pushes.calls == []
