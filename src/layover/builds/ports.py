"""What builds need of a database, of the registry and of builders."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

from layover.builds.builders import Credentials, LeaseState, Platforms
from layover.builds.models import (
    Build,
    BuildPage,
    BuildStatus,
    Dockerfile,
    LogEntry,
    PageKey,
    SavedImage,
    Step,
)
from layover.registry.models import Gone


class BuildStore(Protocol):
    """Builds and what they reported. Every method is one transaction."""

    async def add(self, build: Build) -> None: ...

    async def find(self, build_id: str) -> Build | None: ...

    async def mark_seen(self, build_id: str, now: datetime, *, starts: bool) -> None:
        """The build's client was heard of; with `starts`, a created build is running from now.

        Does nothing to a build that has ended or is unknown.
        """
        ...

    async def end(
        self, build_id: str, status: BuildStatus, error: str | None, now: datetime
    ) -> bool:
        """End a live build and release its builders. False, and no change, if it had ended.

        What it named is there for everybody from now on if it finished; nothing of what it pushed
        is if it did not.
        """
        ...

    async def has_vanished(self, seen_before: datetime) -> bool:
        """Whether there is a live build that was not seen since `seen_before`."""
        ...

    async def end_vanished(self, seen_before: datetime, error: str, now: datetime) -> list[str]:
        """End as canceled, as `end` does, every live build not seen since `seen_before`; return
        their IDs."""
        ...

    async def delete(self, build_id: str, now: datetime) -> bool:
        """Let the build's time be over, with all that belongs to it. False if it was over."""
        ...

    async def keep(self, build_id: str, until: datetime, now: datetime) -> datetime | None:
        """Let an ended build live until `until` at least; return until when it does.

        None, and no change, when its time is over or it has not ended.
        """
        ...

    async def find_buried(self, build_id: str) -> tuple[str, Gone] | None:
        """The project of a build that was collected, and what became of the build."""
        ...

    async def list_page(
        self, project_id: str, after: PageKey | None, limit: int, now: datetime
    ) -> BuildPage:
        """The project's builds that are not over at `now`, newest first, from behind `after` on.

        Up to `limit`; fewer, but one at least, where theirs would be more than is read at once.
        """
        ...

    async def record(
        self, build_id: str, steps: Sequence[Step], log: Sequence[LogEntry], now: datetime
    ) -> None:
        """Merge `steps` into the build's and append `log`, within the limits of reports.py.

        Marks the build as seen. Does nothing when the build is gone.
        """
        ...

    async def list_steps(self, build_id: str) -> list[Step]:
        """The build's steps, in the order in which they were first reported.

        Those that are more than is read at once are left out.
        """
        ...

    async def read_log(self, build_id: str, after: int, limit: int) -> list[tuple[int, LogEntry]]:
        """Up to `limit` entries with their positions, in order, from behind position `after`."""
        ...

    async def put_dockerfiles(self, build_id: str, dockerfiles: Sequence[Dockerfile]) -> None:
        """Keep the Dockerfiles, one a target; does nothing when the build is gone."""
        ...

    async def list_dockerfiles(self, build_id: str) -> list[Dockerfile]:
        """The build's Dockerfiles, by target; what is more than is read at once is left out."""
        ...


class LeaseStore(Protocol):
    """Which builder works for which build; one view for all replicas."""

    async def lease(
        self,
        build: Build,
        platform: str,
        choose: Callable[[LeaseState], str],
        now: datetime,
    ) -> str | None:
        """Lease the builder that `choose` names, in one transaction with what it chose from.

        A lease of the same build and platform is replaced. None when the build is not live.
        """
        ...

    async def count_leases(self) -> dict[str, int]:
        """Leases in use, by builder; for tests and metrics."""
        ...


class SavedImages(Protocol):
    """What the registry holds of builds."""

    async def of_build(self, project_id: str, build_id: str) -> list[SavedImage]:
        """The build's images, by tag; empty when nothing is saved."""
        ...

    async def sizes(self, build_ids: Sequence[str]) -> dict[str, int]:
        """The distinct bytes of each build's images; a build without any may be missing."""
        ...

    async def used_bytes(self, project_id: str) -> int:
        """What counts for the project's quota: its blobs, and uploads under way."""
        ...


class Builder(Protocol):
    """A BuildKit daemon, whoever runs it."""

    @property
    def name(self) -> str: ...

    @property
    def address(self) -> str:
        """`tcp://host:port`, as clients dial it."""
        ...

    @property
    def server_name(self) -> str:
        """The name in its certificate; empty for the address's host."""
        ...

    async def check(self) -> Platforms:
        """Ask the daemon what it can build. Raises BuilderUnhealthy, soon, when it cannot."""
        ...

    async def credentials(self, build_id: str) -> Credentials | None:
        """What the client of this build dials with; None for plain text.

        Raises BuilderUnhealthy when the certificates cannot be read or made.
        """
        ...
