"""Showing a push on its way: Docker's look for people, a line of JSON a change for programs."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from layover.cli.layer_progress import drawn
from layover.cli.output import printable, size
from layover.cli.push_rows import push_row, short_digest, state_words, whole_row
from layover.client.layers import LayerProgress, Report
from layover.rpc.layover.v1.pushes_pb import Push, PushStatus, Transfer, TransferState

Show = Callable[[Push], None]

_THERE = frozenset({TransferState.EXISTS, TransferState.MOUNTED, TransferState.SENT})

# A push that was only just asked for is queued as well: that is not worth a word.
_QUEUED_LOOKS = 4


@contextmanager
def showing(mode: str) -> Iterator[Show]:
    """What is told how a push stands, as often as that is known.

    The mode is auto, plain, tty, quiet or json. With json each change is an object on a line of
    its own on standard output: the push as `pushes show` has it, with those transfers alone that
    changed since the line before. The last line is of the push at its end.
    """
    if mode == "json":
        yield _JsonLines().show
    else:
        with drawn(mode) as report:
            yield _Layers(report).show


class _Layers:
    """A bar or line a layer, and at the end what each tag names."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._last: dict[tuple[str, str], LayerProgress] = {}
        self._status = PushStatus.UNSPECIFIED
        self._queued = 0

    def show(self, push: Push) -> None:
        if push.status is PushStatus.QUEUED:
            self._queued += 1
            if self._queued == _QUEUED_LOOKS:
                self._report(LayerProgress("", "Queued"))
        prefixes = _prefixes(push)
        for transfer in push.transfers:
            progress = _progress(transfer, prefixes.get(transfer.place, ""))
            key = transfer.place, transfer.digest
            if self._last.get(key) != progress:
                self._last[key] = progress
                self._report(progress)
        if push.status is PushStatus.DONE and self._status is not PushStatus.DONE:
            for destination in push.destinations:
                tag = destination.rpartition(":")[2] if len(push.destinations) == 1 else destination
                line = f"{tag}: digest: {push.digest} size: {size(_size_bytes(push, destination))}"
                self._report(LayerProgress("", printable(line)))
        self._status = push.status


class _JsonLines:
    """What changed, and when."""

    def __init__(self) -> None:
        self._push: dict[str, object] = {}
        self._transfers: dict[tuple[str, str], Transfer] = {}

    def show(self, push: Push) -> None:
        transfers = {(one.place, one.digest): one for one in push.transfers}
        changed = [one for key, one in transfers.items() if self._transfers.get(key) != one]
        row = push_row(push) | {"waitsFor": list(push.waits_for)}
        if changed or row != self._push:
            click.echo(json.dumps(whole_row(push, changed)))
        self._push, self._transfers = row, transfers


def _size_bytes(push: Push, destination: str) -> int:
    """What the image takes there, whether it was sent or found."""
    place = destination.rpartition(":")[0]
    return sum(transfer.size_bytes for transfer in push.transfers if transfer.place == place)


def _prefixes(push: Push) -> dict[str, str]:
    """What tells the layers of one place from those of another, in few words."""
    places = list(dict.fromkeys(one.rpartition(":")[0] for one in push.destinations))
    if len(places) < 2:
        return {}
    registries = [place.partition("/")[0] for place in places]
    if len(set(registries)) == 1:
        names = [place.partition("/")[2] for place in places]
    else:
        names = registries if len(set(registries)) == len(places) else places
    return {place: f"{name} " for place, name in zip(places, names, strict=True)}


def _progress(transfer: Transfer, prefix: str) -> LayerProgress:
    return LayerProgress(
        printable(prefix + short_digest(transfer)),
        state_words(transfer),
        transfer.sent_bytes,
        transfer.size_bytes,
        is_done=transfer.state in _THERE,
    )
