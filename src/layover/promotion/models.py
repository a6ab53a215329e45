"""What a push to other registries is, and why one is refused or fails."""

import base64
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from layover.errors import LayoverError
from layover.oci.digest import Digest
from layover.oci.references import Destination, Place


class PushStatus(StrEnum):
    """A push's life: queued, running, then one of three ends that nothing changes again."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def has_ended(self) -> bool:
        return self not in (PushStatus.QUEUED, PushStatus.RUNNING)


class TransferState(StrEnum):
    """How far a blob is on its way to a repository."""

    WAITING = "waiting"
    SENDING = "sending"
    EXISTS = "exists"
    """It was there."""
    MOUNTED = "mounted"
    """It was in another repository of the same registry."""
    SENT = "sent"


@dataclass(frozen=True, slots=True)
class Transfer:
    """A blob on its way to a repository."""

    place: Place
    digest: Digest
    size_bytes: int
    sent_bytes: int = 0
    state: TransferState = TransferState.WAITING

    def at(self, state: TransferState, sent_bytes: int = 0) -> "Transfer":
        return replace(self, state=state, sent_bytes=sent_bytes)


class AuthorizationScheme(StrEnum):
    """What a registry is shown (RFC 9110, "Authentication Scheme")."""

    BEARER = "bearer"
    BASIC = "basic"


@dataclass(frozen=True, slots=True)
class Authorization:
    """What a push shows the registry of one of its places."""

    scheme: AuthorizationScheme
    secret: str = field(repr=False)
    """A token, or for Basic `user:password` in base64 (RFC 7617)."""
    expires_at: datetime | None = None

    @property
    def is_kept(self) -> bool:
        """Whether it may be written down, sealed, for another server that goes on with the push:
        a token that is over soon may, what a user signs in with may not."""
        return self.scheme is AuthorizationScheme.BEARER

    @property
    def secrets(self) -> tuple[str, ...]:
        """Whatever of it nobody else may read."""
        if self.scheme is AuthorizationScheme.BEARER:
            return (self.secret,)
        login = base64.b64decode(self.secret).decode(errors="replace")
        password = login.partition(":")[2]
        return (self.secret, password) if password else (self.secret,)

    @property
    def header(self) -> str:
        """The value of an `Authorization` header."""
        return f"{self.scheme.value.title()} {self.secret}"


@dataclass(frozen=True, slots=True)
class Push:
    """A push as it stands."""

    id: str
    project_id: str
    build_id: str
    target: str
    """The bake target that is pushed; empty for a plain build."""
    source: Digest
    """The manifest that is pushed, in the project's own repository."""
    destinations: tuple[Destination, ...]
    created_at: datetime
    created_by: str
    """Who asked for it, in words for a listing."""
    platforms: tuple[str, ...] = ()
    """Of an index these alone; empty for all."""
    with_referrers: bool = False
    """Whether signatures and SBOMs that refer to the image go along."""
    status: PushStatus = PushStatus.QUEUED
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error: str | None = None
    """Why it failed."""
    digest: Digest | None = None
    """Of what the tags name at the destinations, once that is known."""
    transfers: tuple[Transfer, ...] = ()
    waits_for: tuple[Place, ...] = ()
    """The places whose authorization ran out, or is not to be had since another server goes on:
    whoever asked for the push is to send it anew."""
    is_canceled: bool = False
    """Whether somebody asked it to stop; its end follows."""

    @property
    def places(self) -> tuple[Place, ...]:
        """The repositories that it goes to, each once."""
        return tuple(dict.fromkeys(one.place for one in self.destinations))


@dataclass(frozen=True, slots=True)
class PushPage:
    """A part of a project's pushes, newest first."""

    pushes: tuple[Push, ...]
    next: tuple[datetime, str] | None
    """The time and the ID of the last one, where there are more."""


class PushError(LayoverError):
    """Why a push is refused, or what is wrong with what was asked of it."""


class PushUnknown(PushError):
    """No such push, as far as the caller can tell."""

    def __init__(self, push_id: str) -> None:
        super().__init__(f"unknown push {push_id[:64]!r}: `layover pushes list` shows pushes")
        self.push_id = push_id


class PushEnded(PushError):
    """What was asked of the push only makes sense while it has not ended."""

    def __init__(self, push_id: str, status: PushStatus) -> None:
        super().__init__(f"push {push_id} has ended: it is {status}")
        self.push_id, self.status = push_id, status


class TooManyPushes(PushError):
    """The project has as many pushes under way as one may have."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"this project has {limit} pushes under way, as many as one may: wait until one has"
            " ended, or stop one with `layover pushes cancel`"
        )
        self.limit = limit


class TooManyBlobs(PushError):
    """The project has as many single blobs on their way, and waiting, as one may have."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"this project has {limit} blobs on their way to other registries, as many as one may:"
            " try again in a moment"
        )
        self.limit = limit


class InvalidPush(PushError):
    """What was asked for cannot be pushed: no such target or platform, no destination, ..."""


class TransferError(PushError):
    """Why a push failed; its text is what the user reads."""


class SourceGone(TransferError):
    """What was to be pushed is no longer there, or is damaged."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is no longer in the registry: build it again")


class RegistryRefused(TransferError):
    """A registry said no, in a way that trying again does not change."""

    def __init__(
        self, place: Place, doing: str, status: int, told: str, *, is_tag: bool = False
    ) -> None:
        """`doing` says what it refused, `told` is the registry's own message; `is_tag` says that
        the refusal is of a tag, with everything that it is to name being there."""
        message = f"{place.registry} refused {doing} ({status})"
        if told:
            message += f": {told}"
        if advice := _advice(place, status, is_tag=is_tag):
            message = f"{message.rstrip('.')}. {advice}"
        super().__init__(message)
        self.place, self.status, self.told = place, status, told


def _advice(place: Place, status: int, *, is_tag: bool) -> str:
    """What may help, as far as a status tells: registries mean different things by the same."""
    if is_tag and status in (400, 409, 412):
        return "If it lets no tag be overwritten, push under another one"
    match status:
        case 403:
            return (
                f"If the login may not push there, run `docker login {place.registry}` with one"
                " that may"
            )
        case 404:
            return (
                f"If it has no repository {place.repository}, create that there first, or correct"
                " the name"
            )
        case 405:
            return "If it is a mirror that only hands images out, push to where it has them from"
        case 413:
            return "Whoever runs it can let a proxy in front of it take larger requests"
        case 415:
            return "If it takes no indexes, push the image of one platform: `--platform OS/ARCH`"
        case _:
            return ""


class RegistryUnauthorized(TransferError):
    """A registry asks for an authorization, or for another than the one that it was shown."""

    def __init__(self, place: Place, told: str = "") -> None:
        super().__init__(
            f"{place.registry} does not let this push into {place.repository}"
            + (f": {told}" if told else "")
            + f". Run `docker login {place.registry}` and push again"
        )
        self.place, self.told = place, told


class RegistryUnavailable(TransferError):
    """A registry did not answer, or failed, each time that it was tried."""

    def __init__(self, place: Place, reason: str) -> None:
        super().__init__(f"{place.registry} takes no push now: {reason}. Push again later")
        self.place, self.reason = place, reason


class RegistryForbidden(TransferError):
    """The server's settings do not let it dial the registry, or a host that it refers to."""

    def __init__(self, place: Place, reason: str) -> None:
        super().__init__(f"this server may not push to {place.registry}: {reason}")
        self.place, self.reason = place, reason
