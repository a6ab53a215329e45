"""What builds report of themselves, steps, log and Dockerfiles, and how it is read again."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from layover.builds.errors import BuildEnded
from layover.builds.life import BuildService
from layover.builds.limits import (
    MAX_DIGEST_CHARACTERS,
    MAX_ERROR_CHARACTERS,
    MAX_NAME_CHARACTERS,
    clean_dockerfile,
    clean_entry,
    clean_text,
)
from layover.builds.models import Build, Dockerfile, LogEntry, Step
from layover.builds.ports import BuildStore
from layover.identity.access import Action
from layover.identity.models import Principal

# A client sends the last of its log while it ends the build; what is later is a mistake.
LATE_REPORTS = timedelta(seconds=60)

# Steps known by a timing alone, told apart from those with a vertex's digest.
_TIMING = "timing:"

_LOG_BATCH = 200


class ReportService:
    """Keeps what builds report. A report that is too long is cut, never refused."""

    def __init__(
        self, builds: BuildService, store: BuildStore, now: Callable[[], datetime]
    ) -> None:
        self._builds = builds
        self._store = store
        self._now = now

    async def report(
        self,
        principal: Principal,
        build_id: str,
        steps: Sequence[Step],
        log: Sequence[LogEntry],
    ) -> None:
        """Merge steps and append to the log, in one transaction.

        Raises BuildUnknown; BuildEnded for a build that ended a minute ago or earlier.
        """
        build = await self._reporting(principal, build_id)
        await self._store.record(
            build.id,
            [_clean_step(step) for step in steps],
            [clean_entry(entry) for entry in log],
            self._now(),
        )

    async def report_timings(
        self, principal: Principal, build_id: str, steps: Sequence[Step]
    ) -> None:
        """Keep the steps that no status report named.

        A client that sends its status sends a summary at its end too, with digests of another
        kind; by name the two tell of the same steps.
        """
        build = await self._reporting(principal, build_id)
        known = {
            step.name
            for step in await self._store.list_steps(build.id)
            if not step.digest.startswith(_TIMING)
        }
        unknown = [
            replace(_clean_step(step), digest=_TIMING + (step.digest or step.name))
            for step in steps
            if clean_text(step.name, MAX_NAME_CHARACTERS) not in known
        ]
        await self._store.record(build.id, unknown, [], self._now())

    async def report_dockerfiles(
        self, principal: Principal, build_id: str, dockerfiles: Sequence[Dockerfile]
    ) -> None:
        """Keep the Dockerfiles, the last one of each target."""
        build = await self._reporting(principal, build_id)
        await self._store.put_dockerfiles(
            build.id, [clean_dockerfile(dockerfile) for dockerfile in dockerfiles]
        )

    async def steps(self, build: Build) -> list[Step]:
        """The steps of a build that the caller was allowed to see, in order."""
        return await self._store.list_steps(build.id)

    async def dockerfiles(self, build: Build) -> list[Dockerfile]:
        """The Dockerfiles of a build that the caller was allowed to see, by target."""
        return await self._store.list_dockerfiles(build.id)

    async def log(self, principal: Principal, build_id: str) -> AsyncIterator[LogEntry]:
        """The build's log as it is now, in order, read in batches. Raises BuildUnknown."""
        build = await self._builds.find(principal, build_id, Action.SEE_BUILDS)
        position = 0
        while batch := await self._store.read_log(build.id, position, _LOG_BATCH):
            for position, entry in batch:  # noqa: B007  # the last one is where to go on
                yield entry

    async def _reporting(self, principal: Principal, build_id: str) -> Build:
        build = await self._builds.driven(principal, build_id)
        if not build.accepts_reports(self._now(), LATE_REPORTS):
            raise BuildEnded(build.id, build.status)
        return build


def _clean_step(step: Step) -> Step:
    return replace(
        step,
        digest=clean_text(step.digest, MAX_DIGEST_CHARACTERS),
        name=clean_text(step.name, MAX_NAME_CHARACTERS),
        error=clean_text(step.error, MAX_ERROR_CHARACTERS) if step.error else None,
    )
