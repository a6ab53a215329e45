import asyncio
import os
import signal

import pytest

from layover.cli.buildx.process import Interruption

pytestmark = pytest.mark.anyio


async def test_a_stop_that_comes_while_buildx_is_being_started_ends_it() -> None:
    interruption = Interruption()
    interruption.stop()
    process = await asyncio.create_subprocess_exec("sleep", "600")
    interruption.watch(process)
    assert await process.wait() == -signal.SIGINT


async def test_a_stop_ends_a_running_buildx() -> None:
    interruption = Interruption()
    process = await asyncio.create_subprocess_exec("sleep", "600")
    interruption.watch(process)
    interruption.stop()
    assert await process.wait() == -signal.SIGINT


async def test_a_stop_is_not_the_users_wish() -> None:
    interruption = Interruption()
    interruption.stop()
    assert not interruption.is_requested


async def test_a_signal_that_is_ignored_from_the_start_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            os.kill(os.getpid(), signal.SIGHUP)
            await asyncio.sleep(0.05)
            assert not interruption.is_requested
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
