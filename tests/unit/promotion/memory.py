"""The ports of promotion/ in memory; tests/contract holds them to what the real adapters do."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from layover.oci.digest import Digest
from layover.oci.manifests import OCI_MANIFEST
from layover.oci.names import Reference, RepositoryName
from layover.oci.references import Place
from layover.promotion.models import (
    Authorization,
    Push,
    PushPage,
    PushStatus,
    TooManyPushes,
    Transfer,
    TransferState,
)
from layover.promotion.ports import AuthorizationOf, Claim, ReadFrom, Sent
from layover.registry.models import StoredBlob, StoredManifest


@dataclass(frozen=True)
class _Lease:
    holder: str
    until: datetime


class MemoryPushStore:
    """The PushStore in memory."""

    def __init__(self) -> None:
        self._pushes: dict[str, Push] = {}
        self._leases: dict[str, _Lease] = {}
        self._sealed: dict[str, dict[Place, bytes]] = {}
        self._takeovers: dict[str, int] = {}

    async def add(
        self,
        push: Push,
        most_live: int,
        *,
        holder: str | None = None,
        until: datetime | None = None,
    ) -> None:
        assert push.id not in self._pushes
        live = [one for one in self._of(push.project_id) if not one.status.has_ended]
        if len(live) >= most_live:
            raise TooManyPushes(most_live)
        self._pushes[push.id] = push
        if holder is not None and until is not None:
            self._leases[push.id] = _Lease(holder, until)

    async def find(self, push_id: str) -> Push | None:
        return self._pushes.get(push_id)

    async def list_page(
        self, project_id: str, after: tuple[datetime, str] | None, limit: int
    ) -> PushPage:
        found = sorted(self._of(project_id), key=_key, reverse=True)
        if after is not None:
            found = [push for push in found if _key(push) < after]
        page = tuple(found[:limit])
        return PushPage(page, _key(page[-1]) if len(found) > limit else None)

    async def cancel(self, push_id: str, now: datetime) -> Push | None:
        push = self._pushes.get(push_id)
        if push is None or push.status.has_ended:
            return push
        if push.status is PushStatus.QUEUED:
            push = replace(push, status=PushStatus.CANCELED, finished_at=now)
            self._sealed.pop(push_id, None)
        self._pushes[push_id] = replace(push, is_canceled=True)
        return self._pushes[push_id]

    async def claim(
        self, holder: str, now: datetime, until: datetime, most_of_project: int
    ) -> Claim | None:
        for push in sorted(self._pushes.values(), key=_key):
            takeovers = self._takeovers.get(push.id, 0)
            lease = self._leases.get(push.id)
            is_free = lease is None or lease.until <= now
            if push.status is PushStatus.RUNNING:
                takeovers += 1
                may_take = is_free
            else:
                may_take = (
                    push.status is PushStatus.QUEUED
                    and (is_free or (lease is not None and lease.holder == holder))
                    and self._count_running(push.project_id) < most_of_project
                )
            if not may_take:
                continue
            claimed = replace(push, status=PushStatus.RUNNING, started_at=push.started_at or now)
            self._pushes[push.id] = claimed
            self._leases[push.id] = _Lease(holder, until)
            self._takeovers[push.id] = takeovers
            return Claim(claimed, takeovers)
        return None

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
        if not self._is_held(push_id, holder):
            return None
        push = self._pushes[push_id]
        merged = {(one.place, one.digest): one for one in (*push.transfers, *transfers)}
        push = replace(push, transfers=tuple(merged.values()))
        if {one.state for one in transfers} & {TransferState.SENT, TransferState.MOUNTED}:
            self._takeovers.pop(push_id, None)
        if digest is not None:
            push = replace(push, digest=digest)
        if waits_for is not None:
            push = replace(push, waits_for=tuple(sorted(waits_for)))
        self._pushes[push_id] = push
        self._leases[push_id] = _Lease(holder, until)
        return push.is_canceled

    async def end(
        self, push_id: str, holder: str, status: PushStatus, error: str | None, now: datetime
    ) -> bool:
        if not self._is_held(push_id, holder):
            return False
        self._pushes[push_id] = replace(
            self._pushes[push_id], status=status, error=error, finished_at=now, waits_for=()
        )
        del self._leases[push_id]
        self._sealed.pop(push_id, None)
        return True

    async def keep_sealed(self, push_id: str, sealed: Mapping[Place, bytes]) -> bool:
        push = self._pushes.get(push_id)
        if push is None or push.status.has_ended:
            return False
        self._sealed.setdefault(push_id, {}).update(sealed)
        return True

    async def sealed(self, push_id: str) -> dict[Place, bytes]:
        return dict(self._sealed.get(push_id, {}))

    async def forget_ended(self, before: datetime, limit: int) -> int:
        over = [
            push.id
            for push in sorted(self._pushes.values(), key=_key)
            if push.finished_at is not None and push.finished_at < before
        ][:limit]
        for push_id in over:
            del self._pushes[push_id]
        return len(over)

    def _of(self, project_id: str) -> list[Push]:
        return [push for push in self._pushes.values() if push.project_id == project_id]

    def _count_running(self, project_id: str) -> int:
        return sum(push.status is PushStatus.RUNNING for push in self._of(project_id))

    def _is_held(self, push_id: str, holder: str) -> bool:
        lease, push = self._leases.get(push_id), self._pushes.get(push_id)
        is_running = push is not None and push.status is PushStatus.RUNNING
        return is_running and lease is not None and lease.holder == holder


class MemoryAuthorizations:
    """The Authorizations of pushes that a store has."""

    def __init__(self, store: MemoryPushStore) -> None:
        self._store = store
        self.of: dict[str, dict[Place, Authorization]] = {}
        self.failure: Exception | None = None

    async def put(self, push_id: str, authorizations: Mapping[Place, Authorization]) -> bool:
        if self.failure is not None:
            raise self.failure
        push = await self._store.find(push_id)
        if push is None or push.status.has_ended:
            return False
        self.of.setdefault(push_id, {}).update(authorizations)
        return True


class MemoryPushSource:
    """The PushSource of a registry that a test fills."""

    def __init__(self) -> None:
        self._manifests: dict[tuple[RepositoryName, Digest], StoredManifest] = {}
        self._blobs: dict[tuple[RepositoryName, Digest], StoredBlob] = {}
        self._contents: dict[Digest, bytes] = {}
        self._referrers: dict[tuple[RepositoryName, Digest], list[Digest]] = {}
        self.kept: list[tuple[frozenset[Digest], datetime]] = []

    def add_manifest(
        self,
        repository: RepositoryName,
        body: bytes,
        media_type: str = OCI_MANIFEST,
        subject: Digest | None = None,
    ) -> Digest:
        digest = Digest.of(body)
        self._manifests[repository, digest] = StoredManifest(digest, media_type, body)
        if subject is not None:
            self._referrers.setdefault((repository, subject), []).append(digest)
        return digest

    def add_blob(self, repository: RepositoryName, content: bytes) -> Digest:
        digest = Digest.of(content)
        self._blobs[repository, digest] = StoredBlob(digest, len(content), str(digest))
        self._contents[digest] = content
        return digest

    def remove(self, repository: RepositoryName, digest: Digest) -> None:
        self._manifests.pop((repository, digest), None)
        self._blobs.pop((repository, digest), None)

    async def manifest(self, repository: RepositoryName, digest: Digest) -> StoredManifest | None:
        return self._manifests.get((repository, digest))

    async def blob(self, repository: RepositoryName, digest: Digest) -> StoredBlob | None:
        return self._blobs.get((repository, digest))

    async def referrers(
        self, repository: RepositoryName, digest: Digest, now: datetime
    ) -> list[Digest]:
        return list(self._referrers.get((repository, digest), ()))

    async def keep(
        self,
        repository: RepositoryName,
        manifests: Collection[Digest],
        blobs: Collection[Digest],
        now: datetime,
        lease: timedelta,
    ) -> bool:
        if any((repository, digest) not in self._manifests for digest in manifests) or any(
            (repository, digest) not in self._blobs for digest in blobs
        ):
            return False
        self.kept.append((frozenset((*manifests, *blobs)), now + lease))
        return True

    async def read(self, blob: StoredBlob, start: int, stop: int) -> AsyncGenerator[bytes]:
        content = self._contents[blob.digest][start:stop]
        for at in range(0, len(content), 4):
            yield content[at : at + 4]


@dataclass
class MemoryRegistries:
    """The Registries, and the Registry of each push: one that takes all, or fails as told."""

    blobs: dict[tuple[Place, Digest], bytes] = field(default_factory=dict)
    manifests: dict[tuple[Place, str], bytes] = field(default_factory=dict)
    # What each request was shown.
    shown: list[tuple[Place, Authorization | None]] = field(default_factory=list)
    # What was asked, in order: "has", "mount", "send", "put", with the place and what.
    calls: list[tuple[str, Place, str]] = field(default_factory=list)
    failure: Exception | None = None
    mounts: bool = True
    lists_referrers: bool = True
    # What every reference is said to name, whatever it does.
    lie: Digest | None = None
    # Waited for before each call is answered.
    before: Callable[[str, Place], Awaitable[None]] | None = None

    def open(self, authorization: AuthorizationOf) -> "_MemoryRegistry":
        return _MemoryRegistry(self, authorization)


class _MemoryRegistry:
    def __init__(self, there: MemoryRegistries, authorization: AuthorizationOf) -> None:
        self._there, self._authorization = there, authorization

    async def has_blob(self, place: Place, digest: Digest, size_bytes: int) -> bool:
        await self._called("has", place, digest)
        content = self._there.blobs.get((place, digest))
        return content is not None and len(content) == size_bytes

    async def mount(self, place: Place, digest: Digest, source: RepositoryName) -> bool:
        await self._called("mount", place, digest)
        content = self._there.blobs.get((Place(place.registry, source), digest))
        if content is None or not self._there.mounts:
            return False
        self._there.blobs[place, digest] = content
        return True

    async def send_blob(
        self, place: Place, digest: Digest, size_bytes: int, read: ReadFrom, sent: Sent
    ) -> None:
        await self._called("send", place, digest)
        content = bytearray()
        async for piece in read(0):
            content += piece
            sent(len(content))
        assert len(content) == size_bytes
        assert Digest.of(bytes(content)) == digest
        self._there.blobs[place, digest] = bytes(content)

    async def find_manifest(self, place: Place, reference: Reference) -> Digest | None:
        await self._called("find", place, reference)
        body = self._there.manifests.get((place, str(reference)))
        return self._there.lie or (None if body is None else Digest.of(body))

    async def read_manifest(self, place: Place, reference: Reference) -> bytes | None:
        await self._called("read", place, reference)
        return self._there.manifests.get((place, str(reference)))

    async def put_manifest(
        self, place: Place, reference: Reference, media_type: str, body: bytes
    ) -> bool:
        await self._called("put", place, reference)
        self._there.manifests[place, str(reference)] = body
        self._there.manifests[place, str(Digest.of(body))] = body
        return self._there.lists_referrers

    async def _called(self, name: str, place: Place, what: Reference) -> None:
        self._there.shown.append((place, self._authorization(place)))
        self._there.calls.append((name, place, str(what)))
        if self._there.before is not None:
            await self._there.before(name, place)
        if self._there.failure is not None:
            raise self._there.failure


def _key(push: Push) -> tuple[datetime, str]:
    return push.created_at, push.id
