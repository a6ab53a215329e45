"""A push is drawn as Docker draws one: a bar or a line a layer, and at the end its digest."""

from collections.abc import Sequence

import pytest

from layover.cli.push_progress import showing
from layover.rpc.layover.v1.pushes_pb import Push, PushStatus, Transfer, TransferState
from tests.unit.cli.fake_pushes import DIGEST, LAYER, OTHER, PLACE, TO, layer, push

ELSEWHERE = "docker.io/acme/app"


def running(*transfers: Transfer, destinations: Sequence[str] = (TO,)) -> Push:
    return push(PushStatus.RUNNING, *transfers, destinations=list(destinations))


def drawn(capsys: pytest.CaptureFixture[str], mode: str, *pushes: Push) -> list[str]:
    with showing(mode) as show:
        for one in pushes:
            show(one)
    told = capsys.readouterr()
    assert told.out == ""
    return told.err.splitlines()


def test_plain_lines_tell_each_state_once_however_many_bytes_go(
    capsys: pytest.CaptureFixture[str],
) -> None:
    waiting, exists = layer(TransferState.WAITING, 0, OTHER), layer(TransferState.EXISTS, 0, OTHER)
    lines = drawn(
        capsys,
        "plain",
        *[push(PushStatus.QUEUED)] * 9,
        running(layer(TransferState.WAITING), waiting),
        *(running(layer(TransferState.SENDING, sent), waiting) for sent in range(0, 100, 10)),
        running(layer(TransferState.SENT, 100), exists),
        push(PushStatus.DONE, layer(TransferState.SENT, 100), exists),
    )
    assert lines == [
        "Queued",
        "aaaaaaaaaaaa: Waiting",
        "bbbbbbbbbbbb: Waiting",
        "aaaaaaaaaaaa: Pushing",
        "aaaaaaaaaaaa: Pushed",
        "bbbbbbbbbbbb: Layer already exists",
        f"v1: digest: {DIGEST} size: 200B",
    ]


def test_layers_say_where_to_when_there_are_several_registries(
    capsys: pytest.CaptureFixture[str],
) -> None:
    there, here = layer(TransferState.MOUNTED), layer(TransferState.SENT, place=ELSEWHERE)
    to = [TO, f"{ELSEWHERE}:v1", f"{ELSEWHERE}:v2"]
    lines = drawn(capsys, "plain", running(there, here, destinations=to))
    assert lines == [
        "ghcr.io aaaaaaaaaaaa: Mounted from another repository",
        "docker.io aaaaaaaaaaaa: Pushed",
    ]
    assert len(drawn(capsys, "plain", push(PushStatus.DONE, destinations=to))) == 3


def test_layers_say_the_repository_when_there_are_several_of_one_registry(
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = "ghcr.io/acme/other"
    transfers = [layer(TransferState.SENT), layer(TransferState.MOUNTED, place=other)]
    lines = drawn(capsys, "plain", running(*transfers, destinations=[TO, f"{other}:v1"]))
    assert lines == [
        "acme/app aaaaaaaaaaaa: Pushed",
        "acme/other aaaaaaaaaaaa: Mounted from another repository",
    ]


def test_layers_say_both_where_neither_alone_tells_them_apart(
    capsys: pytest.CaptureFixture[str],
) -> None:
    to = [TO, "ghcr.io/acme/other:v1", f"{ELSEWHERE}:v1"]
    lines = drawn(capsys, "plain", running(layer(TransferState.SENT), destinations=to))
    assert lines == [f"{PLACE} aaaaaaaaaaaa: Pushed"]


def test_the_size_of_what_went_to_several_places_is_that_of_the_image(
    capsys: pytest.CaptureFixture[str],
) -> None:
    transfers = [layer(TransferState.SENT), layer(TransferState.EXISTS, place=ELSEWHERE)]
    to = [TO, f"{ELSEWHERE}:v1"]
    lines = drawn(capsys, "plain", push(PushStatus.DONE, *transfers, destinations=to))
    assert lines[-2:] == [
        f"{TO}: digest: {DIGEST} size: 100B",
        f"{ELSEWHERE}:v1: digest: {DIGEST} size: 100B",
    ]


def test_several_tags_of_one_place_are_no_several_places(
    capsys: pytest.CaptureFixture[str],
) -> None:
    to = [TO, f"{PLACE}:latest"]
    lines = drawn(capsys, "plain", running(layer(TransferState.SENT), destinations=to))
    assert lines == ["aaaaaaaaaaaa: Pushed"]


def test_a_terminal_has_a_bar_for_each_layer(capsys: pytest.CaptureFixture[str]) -> None:
    exists = layer(TransferState.EXISTS, 0, OTHER)
    shown = "\n".join(
        drawn(
            capsys,
            "tty",
            running(layer(TransferState.SENDING, 40), exists),
            push(PushStatus.DONE, layer(TransferState.SENT, 100), exists),
        )
    )
    assert "━" in shown
    assert "aaaaaaaaaaaa Pushed" in shown
    assert "100/100 bytes" in shown
    assert "bbbbbbbbbbbb Layer already exists" in shown
    assert DIGEST in shown


def test_a_push_that_waits_for_a_moment_only_is_not_said_to(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert drawn(capsys, "plain", push(PushStatus.QUEUED), running()) == []


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert drawn(capsys, "quiet", running(layer(TransferState.SENT)), push(PushStatus.DONE)) == []


def test_nothing_that_a_server_says_drives_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    odd = layer(TransferState.SENT, digest="sha256:\x1b[2J", place=f"{PLACE}\x1b[1m")
    done = push(PushStatus.DONE, odd, destinations=[f"{PLACE}\x1b[1m:v1", f"{ELSEWHERE}:\x1b[1m"])
    assert "\x1b" not in "\n".join(drawn(capsys, "plain", done))


def test_a_state_that_this_client_does_not_know_is_no_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    unknown = Transfer(place=PLACE, digest=LAYER, size_bytes=1)
    assert drawn(capsys, "plain", running(unknown)) == ["aaaaaaaaaaaa: Waiting"]
