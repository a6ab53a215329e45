"""How long the collector rests between its steps: so long that nobody who pulls notices it."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from layover.retention.collector import Collector

pytestmark = pytest.mark.anyio

INTERVAL = timedelta(seconds=10)
STEP_SECONDS = 0.05


@dataclass
class Machine:
    """A store with so many steps of work, each of which takes as long, and a clock for both.

    `late` is by how much every rest ends later than it should: an event loop with other work.
    """

    steps: int
    late: float = 0.0
    now: float = 0.0
    rests: list[float] = field(default_factory=list)

    async def take_lease(self, *_: object) -> bool:
        return True

    async def release_lease(self, *_: object) -> None: ...

    async def end_due(self, *_: object) -> int:
        self.now += STEP_SECONDS
        self.steps -= 1
        return self.steps

    async def nothing(self, *_: object) -> int:
        return 0

    release_ended = collect_manifests = collect_links = forget_gone = nothing

    async def doomed(self, *_: object) -> list[Any]:
        return []

    async def delete(self, *_: object) -> frozenset[str]:
        return frozenset()

    async def sign_decided(self, *_: object) -> None: ...

    async def sleep(self, seconds: float) -> None:
        self.rests.append(seconds)
        self.now += seconds + self.late


async def rests_of(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    monkeypatch.setattr(asyncio, "sleep", machine.sleep)
    store: Any = machine
    collector = Collector(
        store,
        store,
        store,
        lambda: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=machine.now),
        "server",
        timedelta(hours=1),
        INTERVAL,
        elapsed=lambda: machine.now,
    )
    assert await collector.run_once()
    return machine.rests


async def test_a_rest_is_nine_times_as_long_as_the_step_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rests = await rests_of(Machine(steps=5), monkeypatch)
    assert rests == pytest.approx([9 * STEP_SECONDS] * 4)


async def test_who_is_late_rests_less_where_nobody_is_there_to_notice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rests = await rests_of(Machine(steps=40), monkeypatch)
    # Half of the interval takes ten steps with their rests.
    assert rests == pytest.approx([9 * STEP_SECONDS] * 10 + [STEP_SECONDS] * 29)


async def test_who_is_late_rests_as_long_while_requests_are_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rests = await rests_of(Machine(steps=40, late=0.02), monkeypatch)
    assert rests == pytest.approx([9 * STEP_SECONDS] * 39)


async def test_no_rest_is_longer_than_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.unit.retention.test_collector.STEP_SECONDS", 2.0)
    assert await rests_of(Machine(steps=3, late=0.02), monkeypatch) == [1.0, 1.0]
