"""What pushes need: a database, the saved images, and other registries."""

from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from layover.oci.digest import Digest
from layover.oci.names import Reference, RepositoryName
from layover.oci.references import Place
from layover.promotion.models import (
    Authorization,
    Push,
    PushPage,
    PushStatus,
    Transfer,
)
from layover.registry.models import StoredBlob, StoredManifest


@dataclass(frozen=True, slots=True)
class Claim:
    """A push that a server works on, for as long as it says that it still does."""

    push: Push
    takeovers: int
    """How often it was taken over from a server that had begun, another one or this one before it
    was started again, since the last blob arrived by it."""


class PushStore(Protocol):
    """Pushes, and which server works on which. Every method is one transaction.

    A server works on a push while its lease lasts, which `report` renews. What it says of one that
    is another's by then changes nothing.
    """

    async def add(
        self,
        push: Push,
        most_live: int,
        *,
        holder: str | None = None,
        until: datetime | None = None,
    ) -> None:
        """Keep a new push, which nobody but the holder takes before `until`. Raises TooManyPushes
        when its project has `most_live` that have not ended."""
        ...

    async def find(self, push_id: str) -> Push | None: ...

    async def list_page(
        self, project_id: str, after: tuple[datetime, str] | None, limit: int
    ) -> PushPage:
        """The project's pushes, newest first, from behind `after` on; up to `limit`."""
        ...

    async def cancel(self, push_id: str, now: datetime) -> Push | None:
        """Ask a push to stop: a queued one has ended with that, a running one ends soon, and of
        one that has ended nothing changes. Returns it as it stands; None when there is none."""
        ...

    async def claim(
        self, holder: str, now: datetime, until: datetime, most_of_project: int
    ) -> Claim | None:
        """Lease the oldest push that is queued, or whose server is gone, to `holder`, and let it
        be running.

        A queued one of a project that has `most_of_project` running is left out. None when there
        is none.
        """
        ...

    async def report(
        self,
        push_id: str,
        holder: str,
        now: datetime,
        until: datetime,
        *,
        transfers: Sequence[Transfer] = (),
        digest: Digest | None = None,
        waits_for: Collection[Place] | None = None,
    ) -> bool | None:
        """Renew the lease and keep what is given; None leaves as it was. Returns whether the push
        was asked to stop; None when it is no longer the holder's."""
        ...

    async def end(
        self, push_id: str, holder: str, status: PushStatus, error: str | None, now: datetime
    ) -> bool:
        """End the push, with its transfers as they were last reported, and forget what it was
        authorized by. False, and no change, when it is no longer the holder's."""
        ...

    async def keep_sealed(self, push_id: str, sealed: Mapping[Place, bytes]) -> bool:
        """Keep what authorizes a push that has not ended, as nobody but the servers can read it,
        in place of what was kept for the same places. False when it has ended."""
        ...

    async def sealed(self, push_id: str) -> dict[Place, bytes]:
        """What was kept so."""
        ...

    async def forget_ended(self, before: datetime, limit: int) -> int:
        """Forget up to `limit` pushes that ended before then; return how many."""
        ...


class Authorizations(Protocol):
    """What pushes show the registries that they go to, for whichever server works on them."""

    async def put(self, push_id: str, authorizations: Mapping[Place, Authorization]) -> bool:
        """Keep these for the push, in place of what was kept for the same places; what may not be
        written down, in memory alone. False when it has ended."""
        ...


class PushSource(Protocol):
    """What the registry holds of a build, also while its time runs out.

    What `keep` was told of is there for as long as it said, whatever becomes of the build.
    """

    async def manifest(self, repository: RepositoryName, digest: Digest) -> StoredManifest | None:
        """The manifest, for as long as it is there at all."""
        ...

    async def blob(self, repository: RepositoryName, digest: Digest) -> StoredBlob | None:
        """The blob, for as long as it is there at all."""
        ...

    async def referrers(
        self, repository: RepositoryName, digest: Digest, now: datetime
    ) -> list[Digest]:
        """The live manifests whose subject is `digest`."""
        ...

    async def keep(
        self,
        repository: RepositoryName,
        manifests: Collection[Digest],
        blobs: Collection[Digest],
        now: datetime,
        lease: timedelta,
    ) -> bool:
        """Lease all of these for `lease` from now on, visible or not; False, and nothing leased,
        where one of them is not there any more."""
        ...

    def read(self, blob: StoredBlob, start: int, stop: int) -> AsyncGenerator[bytes]:
        """The bytes from `start` up to and without `stop`, in bounded pieces. The caller closes
        it. Raises StorageUnavailable."""
        ...


# How many bytes of a blob the registry has by now; fewer than before when it began anew.
Sent = Callable[[int], None]

# A blob's bytes from a position on, in bounded pieces. The caller closes it.
ReadFrom = Callable[[int], AsyncGenerator[bytes]]


class Registry(Protocol):
    """Another registry, as one push sees it (distribution-spec v1.1.1).

    Every method tries again what may go through the next time: connections that break, 408, 429
    and 5xx, with growing pauses or as long as `Retry-After` says. All raise RegistryRefused for
    what the registry does not want, RegistryUnauthorized for 401, and for 403 where that says that
    no or another authorization is needed, RegistryUnavailable when patience is over,
    RegistryForbidden where the server may not dial. A message of the registry is quoted in part
    and without control characters.

    `authorization` is asked for before each request: it may have been renewed.
    """

    async def has_blob(self, place: Place, digest: Digest, size_bytes: int) -> bool:
        """Whether the repository shows the blob, of that size."""
        ...

    async def mount(self, place: Place, digest: Digest, source: RepositoryName) -> bool:
        """Show in the repository what another one of the same registry shows; False where the
        registry does not, with the session closed that it opened instead."""
        ...

    async def send_blob(
        self, place: Place, digest: Digest, size_bytes: int, read: ReadFrom, sent: Sent
    ) -> None:
        """Upload a blob whose digest the registry verifies. What was cut off goes on from where
        the registry says that it stopped, where it takes chunks; else anew."""
        ...

    async def find_manifest(self, place: Place, reference: Reference) -> Digest | None:
        """The digest of the manifest that the repository has there, None without one."""
        ...

    async def read_manifest(self, place: Place, reference: Reference) -> bytes | None:
        """The bytes of the manifest that the repository has there, None without one."""
        ...

    async def put_manifest(
        self, place: Place, reference: Reference, media_type: str, body: bytes
    ) -> bool:
        """Put a manifest that names only what is there already; returns whether the registry lists
        it among the referrers of its subject (its answer has `OCI-Subject`)."""
        ...


# What a push shows the registry of a place right now; None to show nothing.
AuthorizationOf = Callable[[Place], Authorization | None]


class Registries(Protocol):
    """Reaches other registries."""

    def open(self, authorization: AuthorizationOf) -> Registry:
        """Registries as one push sees them; nothing is to be closed."""
        ...
