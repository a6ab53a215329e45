"""Counts what may come in floods, so that nobody fills the log: a minute of it is two events.

The first is told at once, and whatever is like it in the minute that follows as one event with the
number in it.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace

from layover.audit.models import AuditEvent

MINUTE_SECONDS = 60.0

# So many kinds of event are told apart in a minute; where they are of strangers, any more of them
# are of one kind together.
MAX_KINDS = 1_000


@dataclass(slots=True)
class _Tally:
    started_at: float
    first: AuditEvent
    # The last of those that were not told, and how many.
    last: AuditEvent | None = None
    times: int = 0


class Tallies:
    """Tells which events are to be written now."""

    def __init__(
        self, max_kinds: int = MAX_KINDS, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_kinds, self._monotonic = max_kinds, monotonic
        # The oldest first.
        self._tallies: OrderedDict[Hashable, _Tally] = OrderedDict()

    def is_full_for(self, kind: Hashable) -> bool:
        """Whether there is no room for events of this kind without giving up another."""
        return kind not in self._tallies and len(self._tallies) >= self._max_kinds

    def add(self, kind: Hashable, event: AuditEvent) -> list[AuditEvent]:
        """Take note of an event; return what is to be written now, which it may be itself."""
        told = self.due()
        tally = self._tallies.get(kind)
        if tally is not None:
            tally.last = event
            tally.times += 1
            return told
        while len(self._tallies) >= self._max_kinds:
            _, oldest = self._tallies.popitem(last=False)
            told += _sum(oldest)
        self._tallies[kind] = _Tally(self._monotonic(), event)
        return [*told, event]

    def due(self) -> list[AuditEvent]:
        """What is to be written of the minutes that are over."""
        told: list[AuditEvent] = []
        while self._tallies:
            oldest = next(iter(self._tallies.values()))
            if self._monotonic() - oldest.started_at < MINUTE_SECONDS:
                break
            self._tallies.popitem(last=False)
            told += _sum(oldest)
        return told

    def end(self) -> list[AuditEvent]:
        """What is to be written of all of them: the server stops."""
        told = [event for tally in self._tallies.values() for event in _sum(tally)]
        self._tallies.clear()
        return told


def _sum(tally: _Tally) -> list[AuditEvent]:
    if tally.last is None:
        return []
    details = {
        **tally.last.details,
        "times": str(tally.times),
        "since": tally.first.at.isoformat(timespec="seconds"),
    }
    return [replace(tally.last, details=details)]
