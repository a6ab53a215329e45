"""How a build gets a builder, or is told to wait, or why there is none."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from layover.builds.builders import Connection
from layover.builds.errors import (
    BuildEnded,
    BuildersUnavailable,
    BuilderUnhealthy,
    NoBuilderConfigured,
)
from layover.builds.life import BuildService
from layover.builds.placement import choose_builder
from layover.builds.pool import FRESH_FOR, BuilderPool
from layover.builds.ports import LeaseStore
from layover.identity.models import Principal

BUILDER_WAIT = timedelta(minutes=2)
RETRY_AFTER = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Pending:
    """No builder is healthy yet: ask again after `retry_after`."""

    retry_after: timedelta


class ConnectionService:
    """Gives each build a builder that answers, and keeps it for the build."""

    def __init__(
        self,
        builds: BuildService,
        leases: LeaseStore,
        pool: BuilderPool,
        now: Callable[[], datetime],
        builder_wait: timedelta = BUILDER_WAIT,
    ) -> None:
        self._builds = builds
        self._leases = leases
        self._pool = pool
        self._now = now
        self._builder_wait = builder_wait

    async def connect(
        self, principal: Principal, build_id: str, platform: str
    ) -> Connection | Pending:
        """A builder for the build's part on `platform`; the same one when asked again.

        Raises BuildUnknown, BuildEnded; NoBuilderConfigured; BuildersUnavailable, naming what is
        wrong with each builder, once the build has waited `builder_wait` since it was created
        or when waiting cannot help.
        """
        build = await self._builds.driven(principal, build_id)
        if build.status.has_ended:
            raise BuildEnded(build.id, build.status)
        if self._pool.is_empty:
            raise NoBuilderConfigured
        if not self._pool.healthy():
            await self._pool.check_all()
        # Each turn ends or tries one builder fewer, also when a builder comes and goes.
        tried: set[str] = set()
        while True:
            healthy = {
                name: platforms
                for name, platforms in self._pool.healthy().items()
                if name not in tried
            }
            if not healthy:
                break
            chosen = await self._leases.lease(
                build,
                platform,
                partial(choose_builder, healthy, platform, build.project_id),
                self._now(),
            )
            if chosen is None:
                # It ended since it was read.
                build = await self._builds.driven(principal, build_id)
                raise BuildEnded(build.id, build.status)
            connection = await self._connection(build.id, chosen)
            if connection is not None:
                await self._builds.mark_seen(build.id, starts=True)
                return connection
            tried.add(chosen)
        waited = self._now() - build.created_at
        if not self._pool.may_recover:
            raise BuildersUnavailable(self._pool.troubles(), None)
        if waited >= self._builder_wait:
            raise BuildersUnavailable(self._pool.troubles(), waited)
        await self._builds.mark_seen(build.id, starts=False)
        return Pending(RETRY_AFTER)

    async def _connection(self, build_id: str, name: str) -> Connection | None:
        builder = self._pool.builder(name)
        if builder is None or not (await self._pool.check(name, FRESH_FOR)).is_healthy:
            return None
        try:
            credentials = await builder.credentials(build_id)
        except BuilderUnhealthy as error:
            self._pool.mark_unhealthy(name, error.reason)
            return None
        return Connection(name, builder.address, builder.server_name, credentials)
