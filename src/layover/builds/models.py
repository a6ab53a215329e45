"""What a build is: its life, what was asked of it, and what it reported of itself."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from layover.registry.models import Gone


class BuildStatus(StrEnum):
    """A build's life: created, running, then one of three ends that nothing changes again."""

    CREATED = "created"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def has_ended(self) -> bool:
        return self not in LIVE


LIVE = frozenset({BuildStatus.CREATED, BuildStatus.RUNNING})


class Command(StrEnum):
    """The client's command that made the build."""

    BUILD = "build"
    BAKE = "bake"


@dataclass(frozen=True, slots=True)
class BuildOutput:
    """One `--output`: an exporter's name and its attributes."""

    kind: str
    attributes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What the client asked for, of one target."""

    command: Command = Command.BUILD
    tags: tuple[str, ...] = ()
    outputs: tuple[BuildOutput, ...] = ()
    push: bool = False
    load: bool = False
    target_name: str | None = None
    lint: bool = False
    save: bool = False
    save_tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Build:
    """A build as it stands."""

    id: str
    project_id: str
    status: BuildStatus
    options: tuple[BuildOptions, ...]
    created_at: datetime
    seen_at: datetime
    """When its client was last heard of."""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error: str | None = None
    """Why it failed or was canceled."""
    retention: timedelta = timedelta(days=7)
    """How long it is kept from its end."""
    expires_at: datetime | None = None
    """When it is gone, with all that belongs to it; None while it lives."""
    deleted_at: datetime | None = None

    @property
    def command(self) -> Command:
        return self.options[0].command if self.options else Command.BUILD

    @property
    def is_saved(self) -> bool:
        """Whether the client asked to save it; whether it did is what the registry holds."""
        return any(option.save for option in self.options)

    @property
    def tags(self) -> tuple[str, ...]:
        """The names given with `-t`, of every target, each once."""
        return tuple(dict.fromkeys(tag for option in self.options for tag in option.tags))

    def gone(self, now: datetime) -> "Gone | None":
        """What became of a build whose time is over."""
        if self.deleted_at is not None:
            return Gone(is_deleted=True, at=self.deleted_at)
        if self.expires_at is not None and self.expires_at <= now:
            return Gone(is_deleted=False, at=self.expires_at)
        return None

    def accepts_reports(self, now: datetime, grace: timedelta) -> bool:
        """Whether its steps and log may still grow: while it lives and `grace` longer."""
        return self.finished_at is None or now - self.finished_at <= grace


@dataclass(frozen=True, slots=True)
class Step:
    """A vertex of BuildKit's graph, as far as it was reported."""

    digest: str
    name: str
    started_at: datetime | None = None
    completed_at: datetime | None = None
    cached: bool = False
    error: str | None = None

    def merged(self, later: "Step") -> "Step":
        """This step with what a later report says: a report leaves out what it does not know."""
        return Step(
            digest=self.digest,
            name=later.name or self.name,
            started_at=later.started_at or self.started_at,
            completed_at=later.completed_at or self.completed_at,
            cached=later.cached or self.cached,
            error=later.error or self.error,
        )


@dataclass(frozen=True, slots=True)
class LogEntry:
    """What a step wrote at once; a line, or a part of one."""

    step_digest: str
    timestamp: datetime
    stream: int
    """1 for standard output, 2 for standard error."""
    message: bytes


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """The Dockerfile of a target; the target's name is empty for a plain build."""

    target: str
    filename: str
    contents: str


@dataclass(frozen=True, slots=True)
class SavedImage:
    """What the registry holds under one of a build's tags."""

    tag: str
    digest: str
    platforms: tuple[str, ...]
    size_bytes: int


@dataclass(frozen=True, slots=True)
class BuildPage:
    """Builds of a project, newest first, and whether there are older ones."""

    builds: tuple[Build, ...]
    has_more: bool


@dataclass(frozen=True, slots=True)
class PageKey:
    """A place in a listing, newest first; what follows is older, or as old with a lower ID."""

    created_at: datetime
    build_id: str
