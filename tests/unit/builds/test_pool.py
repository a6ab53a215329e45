import asyncio
from datetime import timedelta

import pytest

from layover.builds.builders import Platforms
from layover.builds.errors import BuilderUnhealthy
from layover.builds.pool import BuilderPool
from tests.unit.builds.memory import Clock, MemoryBuilder

pytestmark = pytest.mark.anyio


async def test_a_checked_pool_knows_who_is_healthy_and_what_is_wrong_with_the_rest() -> None:
    good, bad = MemoryBuilder("good"), MemoryBuilder("bad")
    bad.trouble = BuilderUnhealthy("it is on fire")
    pool = BuilderPool([good, bad], Clock())
    await pool.check_all()
    assert pool.healthy() == {"good": Platforms(("linux/amd64",))}
    assert pool.troubles() == [("bad (tcp://bad:1234)", "it is on fire")]


async def test_a_builder_that_recovers_is_healthy_again() -> None:
    builder = MemoryBuilder("b")
    builder.trouble = BuilderUnhealthy("away")
    pool = BuilderPool([builder], Clock())
    await pool.check_all()
    builder.trouble = None
    await pool.check_all()
    assert list(pool.healthy()) == ["b"]


async def test_a_fresh_answer_is_not_asked_for_again() -> None:
    clock, builder = Clock(), MemoryBuilder("b")
    pool = BuilderPool([builder], clock)
    await pool.check("b", timedelta(seconds=1))
    await pool.check("b", timedelta(seconds=1))
    assert builder.checks == 1
    clock.advance(seconds=1)
    await pool.check("b", timedelta(seconds=1))
    assert builder.checks == 2


async def test_a_check_that_crashes_makes_that_builder_unhealthy_and_no_other() -> None:
    class Broken(MemoryBuilder):
        async def check(self) -> Platforms:
            raise RuntimeError("a bug")

    pool = BuilderPool([Broken("broken"), MemoryBuilder("fine")], Clock())
    await pool.check_all()
    assert list(pool.healthy()) == ["fine"]


async def test_those_who_ask_at_once_wait_for_one_check() -> None:
    class Slow(MemoryBuilder):
        def __init__(self) -> None:
            super().__init__("slow")
            self.may_answer = asyncio.Event()

        async def check(self) -> Platforms:
            self.checks += 1
            await self.may_answer.wait()
            return self.platforms

    slow = Slow()
    pool = BuilderPool([slow], Clock())
    first, second = (asyncio.create_task(pool.check("slow")) for _ in range(2))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    # One of them going away does not end the check for the other.
    first.cancel()
    slow.may_answer.set()
    assert (await second).is_healthy
    assert slow.checks == 1


async def test_running_checks_every_builder_until_cancelled() -> None:
    class Counted(MemoryBuilder):
        def __init__(self, name: str) -> None:
            super().__init__(name)
            self.was_checked_thrice = asyncio.Event()

        async def check(self) -> Platforms:
            platforms = await super().check()
            if self.checks == 3:
                self.was_checked_thrice.set()
            return platforms

    builders = [Counted("a"), Counted("b")]
    task = asyncio.create_task(BuilderPool(builders, Clock(), interval=timedelta(0)).run())
    for builder in builders:
        await builder.was_checked_thrice.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_waiting_helps_unless_every_builder_needs_a_person() -> None:
    hopeless, away = MemoryBuilder("hopeless"), MemoryBuilder("away")
    hopeless.trouble = BuilderUnhealthy("not installed", can_recover=False)
    away.trouble = BuilderUnhealthy("away")
    pool = BuilderPool([hopeless], Clock())
    assert pool.may_recover
    await pool.check_all()
    assert not pool.may_recover
    both = BuilderPool([hopeless, away], Clock())
    await both.check_all()
    assert both.may_recover


def test_two_builders_cannot_share_a_name() -> None:
    with pytest.raises(ValueError, match="same name"):
        BuilderPool([MemoryBuilder("a"), MemoryBuilder("a")], Clock())
