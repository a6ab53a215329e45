"""What is tried again, when, and for how long."""

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import structlog

from layover.oci.references import Place
from layover.promotion.models import RegistryUnavailable

# How long nothing may go forward; what a registry asked to wait for comes on top, up to that much.
PATIENCE_SECONDS = 60.0
MOST_TOLD_SECONDS = 300.0

# Of tries of which none brought anything forward, however quickly they failed; and so many there
# are at least, however long one of them took.
_MOST_TRIES = 12
_FEWEST_TRIES = 3

_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 10.0

# Not with them: 501 and 505 (RFC 9110) are answers that stay.
_PASSING_STATUSES = frozenset({408, 425, 429})
_STAYING_STATUSES = frozenset({501, 505})

_log = structlog.get_logger(__name__)


class Passing(Exception):
    """What went wrong may go well the next time. It stays within this package."""

    def __init__(
        self,
        reason: str,
        *,
        told_seconds: float | None = None,
        is_at_once: bool = False,
        is_undone: bool = False,
    ) -> None:
        """`told_seconds` is how long the registry asks to wait; what is to be tried again with
        something changed needs no pause; `is_undone` says that nothing of it was done."""
        super().__init__(reason)
        self.reason, self.told_seconds = reason, told_seconds
        self.is_at_once, self.is_undone = is_at_once, is_undone


@dataclass(frozen=True, slots=True)
class Time:
    """How time passes, and chance; and how long it takes at most."""

    monotonic: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    random: Callable[[], float] = random.random  # of a pause, and of nothing secret
    answer_seconds: float = 60.0
    """For a whole answer, and for each piece of what is sent."""
    commit_seconds: float = 600.0
    """For the answer to a part of a blob, or to its end: it may have to be hashed or copied."""


def is_passing(status: int) -> bool:
    """Whether an answer of this status may be another the next time."""
    return status in _PASSING_STATUSES or (500 <= status < 600 and status not in _STAYING_STATUSES)


def told_seconds(text: str | None, now: datetime) -> float | None:
    """What `Retry-After` says (RFC 9110): seconds or a date; None where it says nothing."""
    if text is None:
        return None
    text = text.strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    date = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
    return max((date - now).total_seconds(), 0.0)


class Patience:
    """How long one operation is tried on. It ends when nothing goes forward."""

    def __init__(self, place: Place, time: Time) -> None:
        self._place, self._time = place, time
        self._failures = 0
        self._told_seconds = 0.0
        self._since = time.monotonic()

    def moved(self) -> None:
        """Bytes are on their way: that takes the time that it takes."""
        self._since = self._time.monotonic()

    def progressed(self) -> None:
        """The registry has more than it ever had: count anew."""
        self._failures, self._told_seconds = 0, 0.0
        self.moved()

    async def wait(self, failure: Passing) -> None:
        """Wait until it is time to try again. Raises RegistryUnavailable when it is over."""
        self._failures += 1
        pause = self._pause(failure)
        told = failure.told_seconds
        if told is not None and self._told_seconds + told > MOST_TOLD_SECONDS:
            raise self._over(f"{failure.reason}; it asks to wait {told:.0f} s") from failure
        passed = self._time.monotonic() - self._since - self._told_seconds
        is_late = passed + (0.0 if told is not None else pause) > PATIENCE_SECONDS
        if self._failures >= _MOST_TRIES or (is_late and self._failures >= _FEWEST_TRIES):
            raise self._over(failure.reason) from failure
        self._told_seconds += told or 0.0
        _log.info(
            "registry_asked_again",
            registry=self._place.registry,
            reason=failure.reason,
            pause_seconds=round(pause, 2),
        )
        if pause:
            await self._time.sleep(pause)

    def _pause(self, failure: Passing) -> float:
        if failure.is_at_once:
            return 0.0
        # Chance keeps those apart that one outage brought together.
        growing = _FIRST_PAUSE_SECONDS * (1 << min(self._failures - 1, 10))
        pause = min(growing, _LONGEST_PAUSE_SECONDS) * (0.5 + self._time.random() / 2)
        # Behind what all of them are told, too: they would come at one moment again.
        return (failure.told_seconds or 0.0) + pause

    def _over(self, reason: str) -> RegistryUnavailable:
        return RegistryUnavailable(self._place, reason)
