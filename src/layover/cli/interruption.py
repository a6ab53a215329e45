"""Ctrl-C where a server is to hear of it before the command ends."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from layover.cli.errors import Interrupted

Value = TypeVar("Value")

# A terminal that is closed ends a command as Ctrl-C does: secrets in temporary folders go with it.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def heed(request: Callable[[], None]) -> Callable[[], None]:
    """Have the running event loop call `request` for each signal; return what ends that.

    A signal that the command was started to ignore, as by nohup, is ignored.
    """
    loop = asyncio.get_running_loop()
    heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    for number in heeded:
        loop.add_signal_handler(number, request)

    def end() -> None:
        for number in heeded:
            loop.remove_signal_handler(number)

    return end


class Interruption:
    """Ctrl-C, SIGTERM and a closed terminal while a command waits for a server.

    Use it as a context manager, in the event loop. The first signal is a wish, which the command
    sees to; the second cancels the task that entered, and leaving the block then raises
    Interrupted with what `left` says. A signal that the command was started to ignore, as by
    nohup, is ignored.
    """

    def __init__(self) -> None:
        self.left = "interrupted"
        """What there is to say of what was left behind, for whoever does not wait."""
        self._requested = asyncio.Event()
        self._is_impatient = False
        self._task: asyncio.Task[object] | None = None
        self._heed_no_more: Callable[[], None] | None = None

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        self._heed_no_more = heed(self.request)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._heed_no_more is not None:
            self._heed_no_more()
        if self._is_impatient and isinstance(error, asyncio.CancelledError):
            if self._task is not None:
                self._task.uncancel()
            raise Interrupted(self.left) from None

    @property
    def is_requested(self) -> bool:
        return self._requested.is_set()

    def request(self) -> None:
        """What a signal does."""
        if not self._requested.is_set():
            self._requested.set()
        elif self._task is not None:
            self._is_impatient = True
            self._task.cancel()

    async def first(self, work: "asyncio.Task[Value]") -> bool:
        """Wait for the work, or for a wish to stop; whether the work has ended."""
        asked = asyncio.create_task(self._requested.wait())
        try:
            await asyncio.wait({work, asked}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            asked.cancel()
        return work.done()

    async def stopping(self, work: Coroutine[Any, Any, Value], told: str) -> Value:
        """The work's result. A wish to stop cancels it, and raises Interrupted with `told`."""
        task = asyncio.create_task(work)
        try:
            if await self.first(task):
                return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
        raise Interrupted(told)
