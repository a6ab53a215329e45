"""Stores that fail or stop where a test says, on top of real ones."""

from collections.abc import Callable
from typing import Any


class Crash(BaseException):
    """The process ends here: no handler of the code's own may run on."""


class Faulty:
    """`inner`, but the call named `method` raises instead of working, or after it has worked."""

    def __init__(
        self, inner: Any, method: str, error: Callable[[], BaseException], *, after: bool = False
    ) -> None:
        self._inner, self._method, self._error, self._after = inner, method, error, after

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._inner, name)
        if name != self._method:
            return attribute

        async def fails(*arguments: Any, **named: Any) -> Any:
            if self._after:
                await attribute(*arguments, **named)
            raise self._error()

        return fails


class Crashing:
    """`inner` in a process that dies at its step number `at`, before or after that step worked.

    A step is an awaited call that changes something. After the crash nothing works any more, so
    that what the code does on its way out does not count.
    """

    STEPS = frozenset(
        {
            *("create_upload", "add_place", "resize_upload", "delete_upload", "link_upload"),
            *("append", "publish", "delete"),
        }
    )

    def __init__(self, inner: Any, clock: "Steps") -> None:
        self._inner, self._clock = inner, clock

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._inner, name)
        if name not in self.STEPS:
            return attribute

        async def step(*arguments: Any, **named: Any) -> Any:
            self._clock.before()
            result = await attribute(*arguments, **named)
            self._clock.after()
            return result

        return step


class Steps:
    """Counts steps in halves: 0 is before the first step, 1 is after it, 2 before the second."""

    def __init__(self, crash_at: int) -> None:
        self._crash_at, self._now = crash_at, 0
        self.has_crashed = False

    def before(self) -> None:
        self._tick()

    def after(self) -> None:
        self._tick()

    def _tick(self) -> None:
        if self.has_crashed or self._now == self._crash_at:
            self.has_crashed = True
            raise Crash
        self._now += 1
