"""The first signal is a wish, the second one leaves; both are told with what was left behind."""

import asyncio
import os
import signal

import pytest

from layover.cli.errors import Interrupted
from layover.cli.interruption import Interruption


def send(number: signal.Signals = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


async def never() -> None:
    await asyncio.Event().wait()


def test_work_that_ends_by_itself_gives_its_result() -> None:
    async def work() -> str:
        with Interruption() as interruption:
            return await interruption.stopping(asyncio.sleep(0, "done"), "stopped")

    assert asyncio.run(work()) == "done"


def test_work_that_fails_fails_as_ever() -> None:
    async def fail() -> None:
        raise LookupError

    async def work() -> None:
        with Interruption() as interruption:
            await interruption.stopping(fail(), "stopped")

    with pytest.raises(LookupError):
        asyncio.run(work())


def test_a_wish_to_stop_cancels_the_work_and_says_what_that_means() -> None:
    canceled: list[bool] = []

    async def waits() -> None:
        send()
        try:
            await never()
        finally:
            canceled.append(True)

    async def work() -> None:
        with Interruption() as interruption:
            await interruption.stopping(waits(), "nothing was done")

    with pytest.raises(Interrupted, match="nothing was done"):
        asyncio.run(work())
    assert canceled == [True]


def test_a_wish_from_before_stops_what_begins_after_it() -> None:
    async def work() -> None:
        with Interruption() as interruption:
            interruption.request()
            await interruption.stopping(never(), "too late")

    with pytest.raises(Interrupted, match="too late"):
        asyncio.run(work())


def test_a_second_signal_leaves_whatever_is_waited_for() -> None:
    async def work() -> None:
        with Interruption() as interruption:
            interruption.left = "the rest goes on"
            send()
            await interruption.first(asyncio.create_task(never()))
            assert interruption.is_requested
            send(signal.SIGTERM)
            await never()

    with pytest.raises(Interrupted, match="the rest goes on"):
        asyncio.run(work())


def test_a_task_that_others_cancel_is_canceled_and_not_interrupted() -> None:
    async def work() -> None:
        with Interruption():
            await never()

    async def cancel() -> bool:
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        return task.cancelled()

    assert asyncio.run(cancel())


def test_signals_mean_afterwards_what_they_meant_before() -> None:
    before = signal.getsignal(signal.SIGTERM)

    async def work() -> None:
        with Interruption():
            assert signal.getsignal(signal.SIGTERM) is not before

    asyncio.run(work())
    assert signal.getsignal(signal.SIGTERM) is before
