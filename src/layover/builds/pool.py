"""The builders and how each fares: checked every few seconds, and again when one is needed."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import structlog

from layover.builds.builders import Health, Platforms
from layover.builds.errors import BuilderUnhealthy
from layover.builds.ports import Builder

CHECK_INTERVAL = timedelta(seconds=5)

# A builder found healthy this recently is given to a build without asking it again.
FRESH_FOR = timedelta(seconds=1)

_log = structlog.get_logger(__name__)


class BuilderPool:
    """All builders of this server. `run` keeps their health up to date until it is cancelled."""

    def __init__(
        self,
        builders: Sequence[Builder],
        now: Callable[[], datetime],
        interval: timedelta = CHECK_INTERVAL,
    ) -> None:
        self._builders = {builder.name: builder for builder in builders}
        if len(self._builders) != len(builders):
            raise ValueError("two builders have the same name")
        self._now = now
        self._interval = interval
        self._health: dict[str, Health] = {}
        self._checks: dict[str, asyncio.Task[Health]] = {}

    @property
    def is_empty(self) -> bool:
        return not self._builders

    def builder(self, name: str) -> Builder | None:
        return self._builders.get(name)

    def healthy(self) -> dict[str, Platforms]:
        """The builders that answered when last asked, with what they can build."""
        return {
            name: health.platforms
            for name, health in self._health.items()
            if health.platforms is not None
        }

    def troubles(self) -> list[tuple[str, str]]:
        """What is wrong with each unhealthy builder: its name and address, and the reason."""
        return [
            (f"{name} ({builder.address})", self._health[name].reason)
            if name in self._health
            else (f"{name} ({builder.address})", "not checked yet")
            for name, builder in self._builders.items()
            if name not in self._health or not self._health[name].is_healthy
        ]

    @property
    def may_recover(self) -> bool:
        """Whether waiting may bring a builder; False when each needs a person to help it."""
        return any(
            name not in self._health or self._health[name].can_recover for name in self._builders
        )

    async def run(self) -> None:
        """Check every builder, each at its own pace, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for name in self._builders:
                    group.create_task(self._watch(name))
        finally:
            for check in self._checks.values():
                check.cancel()

    async def _watch(self, name: str) -> None:
        while True:
            await self.check(name)
            await asyncio.sleep(self._interval.total_seconds())

    async def check_all(self, max_age: timedelta = timedelta(0)) -> None:
        """Check, side by side, every builder that was not checked within `max_age`."""
        await asyncio.gather(*(self.check(name, max_age) for name in self._builders))

    async def check(self, name: str, max_age: timedelta = timedelta(0)) -> Health:
        """How the builder fares, asked now unless it answered well within `max_age`.

        Whoever asks while a check is on its way waits for that one.
        """
        known = self._health.get(name)
        if known is not None and known.is_healthy and self._now() - known.checked_at < max_age:
            return known
        task = self._checks.get(name)
        if task is None:
            task = asyncio.create_task(self._check(name))
            self._checks[name] = task
            task.add_done_callback(lambda _: self._checks.pop(name, None))
        # Shielded: a client that goes away must not end a check that others wait for.
        return await asyncio.shield(task)

    async def _check(self, name: str) -> Health:
        builder = self._builders[name]
        before = self._health.get(name)
        try:
            health = Health(self._now(), await builder.check())
        except BuilderUnhealthy as error:
            health = Health(self._now(), None, error.reason, error.can_recover)
        except Exception:
            # One builder's bug must not take the others' checks down with it.
            _log.exception("builder_check_crashed", builder=name)
            health = Health(self._now(), None, "checking it failed; see the server's log")
        if before is None or before.is_healthy != health.is_healthy:
            facts = {"builder": name, "address": builder.address}
            if health.platforms is not None:
                _log.info("builder_healthy", **facts, platforms=list(health.platforms.native))
            else:
                _log.warning("builder_unhealthy", **facts, reason=health.reason)
        self._health[name] = health
        return health

    def mark_unhealthy(self, name: str, reason: str) -> None:
        """What somebody else noticed of a builder; its next check may say otherwise."""
        self._health[name] = Health(self._now(), None, reason)
