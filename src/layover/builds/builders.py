"""What a builder is to the rest: where it listens, what it can build, how it fares."""

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class BuilderConfig:
    """A BuildKit daemon from the settings.

    `platforms` empty means: ask the builder. `ca_cert`, `cert` and `key` are paths of PEM files;
    without `ca_cert` the daemon is dialled in plain text. `server_name` is the name in its
    certificate where that is not the address's host.
    """

    name: str
    address: str
    platforms: tuple[str, ...] = ()
    server_name: str = ""
    ca_cert: str | None = None
    cert: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Platforms:
    """What a builder can build: `native` by itself, `emulated` too, but slowly."""

    native: tuple[str, ...]
    emulated: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client needs to dial a builder over TLS; PEM texts."""

    ca_cert: str
    cert: str | None = None
    key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Connection:
    """Where a build's client finds its builder."""

    builder: str
    endpoint: str
    server_name: str
    credentials: Credentials | None
    """None: in plain text."""


@dataclass(frozen=True, slots=True)
class Health:
    """How a builder answered when it was last asked: with platforms, or with what is wrong."""

    checked_at: datetime
    platforms: Platforms | None
    reason: str = ""
    can_recover: bool = True

    @property
    def is_healthy(self) -> bool:
        return self.platforms is not None


@dataclass(frozen=True, slots=True)
class LeaseState:
    """What the database knows when a builder is chosen for a build."""

    current: str | None
    """The builder that works for this very build and platform already."""
    last_used: str | None
    """The one that built for the project and platform last: its cache is warm."""
    loads: dict[str, int]
    """Leases in use, by builder; one without any may be missing."""
