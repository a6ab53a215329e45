"""One push: every blob, then every manifest, then the tags, to every repository it goes to.

What a repository has is asked for and never assumed, so that a push which is done again, by this
server or another, sends only what had not arrived whole. Nothing names an image before all of it
is there: manifests come after their blobs, indexes after their manifests, the tags last.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import groupby
from typing import Protocol, TypeVar

from layover.oci.digest import Digest
from layover.oci.manifests import Descriptor
from layover.oci.names import Reference, RepositoryName
from layover.oci.references import Destination, Place
from layover.promotion.fallback import list_referrer
from layover.promotion.keeping import Keeping
from layover.promotion.models import (
    InvalidPush,
    Push,
    RegistryRefused,
    RegistryUnauthorized,
    SourceGone,
    Transfer,
    TransferState,
)
from layover.promotion.plan import Plan, PlannedManifest, make_plan
from layover.promotion.ports import PushSource, Registry

Result = TypeVar("Result")

# To one repository. A few large blobs fill a disk or a line, and more of them are slower; of many
# small ones each waits for the registry's answers most of the time.
_FEWEST_BLOBS_AT_ONCE, _MOST_BLOBS_AT_ONCE = 3, 16
_BYTES_AT_ONCE = 384 * 1024 * 1024

# Of one push, wherever it goes: all pushes of a server share so many connections.
_REQUESTS_AT_ONCE = 24

# A registry that mounts nothing from one repository does not from another.
_MOST_MOUNTS = 2

# Each blob is a row in the database.
_MOST_TRANSFERS = 20_000

# An authorization that is refused at once, so often in a row, is not one for this repository.
_MOST_REFUSALS = 3


class Standing(Protocol):
    """How a push stands: what its transfer tells, and is told."""

    async def begins(self, digest: Digest, transfers: Sequence[Transfer]) -> None:
        """The transfer knows what is to be done, and what the tags will name."""
        ...

    def moved(self, transfer: Transfer) -> None:
        """One of the transfers went on."""
        ...

    def authorization_key(self, place: Place) -> object:
        """What the place is shown right now, to compare; another where the same is given anew."""
        ...

    async def authorized_anew(self, place: Place, shown: object) -> bool:
        """Wait until the place's key is another than `shown`; False when none came."""
        ...


class TransferService:
    """Does pushes."""

    def __init__(
        self,
        source: PushSource,
        now: Callable[[], datetime],
        lease: timedelta,
    ) -> None:
        """`lease` is for how long at a time the source's content is kept."""
        self._source, self._now = source, now
        self._keeping = Keeping(source, now, lease)

    async def run(self, push: Push, registry: Registry, standing: Standing) -> None:
        """Do the push to its end.

        Raises TransferError, InvalidPush, StorageError; canceled, it stops wherever it is.
        """
        repository = RepositoryName(push.project_id)
        plan = await make_plan(
            self._source,
            repository,
            push.source,
            push.platforms,
            referrers_at=self._now() if push.with_referrers else None,
        )
        transfers = [
            Transfer(place, blob.digest, blob.size_bytes)
            for place in push.places
            for blob in plan.blobs
        ]
        parts = len(plan.blobs) + len(plan.manifests) + len(plan.referrers)
        if parts * len(push.places) > _MOST_TRANSFERS:
            raise InvalidPush(
                f"{parts} blobs and manifests to {len(push.places)} repositories are more than"
                f" {_MOST_TRANSFERS} transfers: push to fewer at once"
            )
        blobs = [blob.digest for blob in plan.blobs]
        async with self._keeping.kept(repository, plan.kept, blobs, "a part of the image"):
            await standing.begins(plan.root.digest, transfers)
            work = _Work(self._source, repository, registry, standing, plan)
            try:
                await self._send(work, push)
            except ExceptionGroup as errors:
                raise _first(errors) from errors

    async def _send(self, work: "_Work", push: Push) -> None:
        # What goes to one registry goes to one repository after the other: the next one takes
        # from the first what that has by then.
        by_registry = groupby(sorted(push.places), key=lambda place: place.registry)
        async with asyncio.TaskGroup() as group:
            for destination in push.destinations:
                group.create_task(work.look_for(destination.place, destination.tag))
            for _, places in by_registry:
                group.create_task(work.send_all(list(places)))
        # No tag is set before every repository has all of it.
        for destination in push.destinations:
            await work.set_tag(destination)


class _Work:
    """The steps of one push."""

    def __init__(
        self,
        source: PushSource,
        repository: RepositoryName,
        registry: Registry,
        standing: Standing,
        plan: Plan,
    ) -> None:
        self._source, self._repository = source, repository
        self._registry, self._standing, self._plan = registry, standing, plan
        self._at_once = asyncio.Semaphore(_REQUESTS_AT_ONCE)
        # What the repositories had when they were asked.
        self._found: dict[tuple[Place, Reference], Digest] = {}

    async def look_for(self, place: Place, reference: Reference) -> None:
        """Ask which manifest the repository has by a tag or a digest, and note it."""
        async with self._at_once:
            found = await self._allowed(
                place, lambda: self._registry.find_manifest(place, reference)
            )
            if found is not None:
                self._found[place, reference] = found

    async def send_all(self, places: Sequence[Place]) -> None:
        """Send everything but the tags to repositories of one registry."""
        plan = self._plan
        holders: dict[Digest, list[Place]] = {blob.digest: [] for blob in plan.blobs}
        # All questions at once: a registry may be far away.
        async with asyncio.TaskGroup() as group:
            for place in places:
                for blob in plan.blobs:
                    group.create_task(self._look(place, blob, holders[blob.digest]))
                for manifest in (*plan.manifests, *plan.referrers):
                    group.create_task(self.look_for(place, manifest.digest))
        for place in places:
            missing = [blob for blob in plan.blobs if place not in holders[blob.digest]]
            sending = asyncio.Semaphore(_blobs_at_once(missing))
            async with asyncio.TaskGroup() as group:
                # The largest first: none of them is left to go alone in the end.
                for blob in sorted(missing, key=lambda blob: -blob.size_bytes):
                    group.create_task(self._bring(place, blob, holders[blob.digest], sending))
            for manifest in (*plan.manifests, *plan.referrers):
                await self._put(place, manifest)

    async def set_tag(self, destination: Destination) -> None:
        """Let the tag name the image, and look that it does."""
        place, root = destination.place, self._plan.root

        async def work() -> None:
            # Asked once more: since the push began somebody may have set it to something else.
            if await self._is_there_still(place, destination.tag, root.digest):
                return
            await self._registry.put_manifest(place, destination.tag, root.media_type, root.body)
            found = await self._registry.find_manifest(place, destination.tag)
            if found != root.digest:
                named = f"{found}" if found else "nothing"
                raise RegistryRefused(
                    place,
                    f"tag {destination.tag}",
                    201,
                    f"it names {named} there, not {root.digest}",
                )

        await self._allowed(place, work)

    async def _look(self, place: Place, blob: Descriptor, holders: list[Place]) -> None:
        """Ask whether the repository has the blob, and note it."""
        async with self._at_once:
            if await self._allowed(
                place, lambda: self._registry.has_blob(place, blob.digest, blob.size_bytes)
            ):
                holders.append(place)
                self._standing.moved(
                    Transfer(place, blob.digest, blob.size_bytes, state=TransferState.EXISTS)
                )

    async def _bring(
        self, place: Place, blob: Descriptor, holders: list[Place], sending: asyncio.Semaphore
    ) -> None:
        """Let the repository have the blob: from one of its `holders`, else from here."""
        transfer = Transfer(place, blob.digest, blob.size_bytes)
        async with sending, self._at_once:
            for holder in holders[:_MOST_MOUNTS]:
                if await self._allowed(
                    place, partial(self._registry.mount, place, blob.digest, holder.repository)
                ):
                    holders.append(place)
                    self._standing.moved(transfer.at(TransferState.MOUNTED))
                    return
            stored = await self._source.blob(self._repository, blob.digest)
            if stored is None:
                raise SourceGone(f"blob {blob.digest}")
            found = stored

            def read(start: int) -> AsyncGenerator[bytes]:
                return self._source.read(found, start, found.size_bytes)

            def sent(size_bytes: int) -> None:
                self._standing.moved(transfer.at(TransferState.SENDING, size_bytes))

            sent(0)
            await self._allowed(
                place,
                lambda: self._registry.send_blob(place, found.digest, found.size_bytes, read, sent),
            )
            holders.append(place)
            self._standing.moved(transfer.at(TransferState.SENT, found.size_bytes))

    async def _put(self, place: Place, manifest: PlannedManifest) -> None:
        async def work() -> None:
            # What refers to something goes again: a push that broke off may not have listed it. The
            # others are asked for once more: what no tag names is removed by many a registry.
            if manifest.subject is None and await self._is_there_still(
                place, manifest.digest, manifest.digest
            ):
                return
            is_listed = await self._registry.put_manifest(
                place, manifest.digest, manifest.media_type, manifest.body
            )
            if manifest.subject is not None and not is_listed:
                await list_referrer(self._registry, place, manifest.subject.digest, manifest)

        async with self._at_once:
            await self._allowed(place, work)

    async def _is_there_still(self, place: Place, reference: Reference, digest: Digest) -> bool:
        """Whether the reference named the digest when it was asked for, and names it now."""
        return (
            self._found.get((place, reference)) == digest
            and await self._registry.find_manifest(place, reference) == digest
        )

    async def _allowed(self, place: Place, work: Callable[[], Awaitable[Result]]) -> Result:
        """Do it, again with another authorization where the first one is over."""
        refusals = 0
        while True:
            shown = self._standing.authorization_key(place)
            try:
                return await work()
            except RegistryUnauthorized:
                refusals += 1
                if refusals == _MOST_REFUSALS:
                    raise
                if not await self._standing.authorized_anew(place, shown):
                    raise


def _blobs_at_once(blobs: Sequence[Descriptor]) -> int:
    """How many of them are sent at once: the fewer, the larger they are."""
    size_bytes = sum(blob.size_bytes for blob in blobs) or 1
    at_once = _BYTES_AT_ONCE * len(blobs) // size_bytes
    return min(max(at_once, _FEWEST_BLOBS_AT_ONCE), _MOST_BLOBS_AT_ONCE)


def _first(errors: ExceptionGroup[Exception]) -> Exception:
    """The first of what went wrong at once; the others are mostly its consequence."""
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first
