"""The AuditStore in memory; tests/contract holds it to what the real adapters do."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime

from layover.audit.models import AuditEvent, AuditQuery, PageKey
from layover.audit.ports import Named
from layover.builds.ports import BuildStore
from layover.errors import StorageError
from layover.identity.models import Organization, Principal, Project
from layover.identity.ports import IdentityStore


class MemoryAuditStore:
    """Keeps events; fails, or waits, as a test says."""

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []
        # What each transaction kept.
        self.batches: list[int] = []
        self.failure: Exception | StorageError | None = None
        self.is_open = asyncio.Event()
        self.is_open.set()

    async def add(self, events: Sequence[AuditEvent]) -> None:
        await self.is_open.wait()
        if self.failure is not None:
            raise self.failure
        first = len(self.events) + 1
        self.events += [replace(event, id=first + at) for at, event in enumerate(events)]
        self.batches.append(len(events))

    async def list_page(
        self, query: AuditQuery, after: PageKey | None, limit: int
    ) -> list[AuditEvent]:
        found = sorted(
            (event for event in self.events if _is_asked_for(event, query)),
            key=lambda event: (event.at, event.id),
            reverse=True,
        )
        if after is not None:
            found = [event for event in found if (event.at, event.id) < (after.at, after.id)]
        return found[:limit]

    async def delete_before(self, time: datetime, limit: int) -> int:
        old = sorted((event for event in self.events if event.at < time), key=lambda each: each.at)
        self.events = [event for event in self.events if event not in old[:limit]]
        return len(old[:limit])


class MemoryAuditPlaces:
    """The AuditPlaces of memory's other stores; tokens' places and holders are what a test says."""

    def __init__(self, identity: IdentityStore, builds: BuildStore) -> None:
        self._identity, self._builds = identity, builds
        self.tokens: dict[str, Project | Organization] = {}
        # Where the pushes are: a test that has some says so.
        self.project_of_push: Callable[[str], Awaitable[str | None]] | None = None
        self.holders: dict[bytes, Principal] = {}

    async def find_place(self, named: Named, key: str) -> Project | Organization | None:
        match named:
            case Named.PROJECT:
                return await self._identity.find_project(key)
            case Named.BUILD:
                build = await self._builds.find(key)
                if build is None:
                    return None
                return await self._identity.find_project(build.project_id)
            case Named.PUSH:
                found = await self.project_of_push(key) if self.project_of_push else None
                return await self._identity.find_project(found) if found else None
            case Named.TOKEN:
                return self.tokens.get(key)
            case Named.ORGANIZATION:
                projects = await self._identity.list_projects([key])
                return Organization(key, key, projects[0].created_at) if projects else None

    async def find_holder(self, secret_hash: bytes) -> Principal | None:
        return self.holders.get(secret_hash)


def _is_asked_for(event: AuditEvent, query: AuditQuery) -> bool:
    if query.project_id is not None:
        is_there = event.project_id == query.project_id
    else:
        is_there = event.organization_id == query.organization_id
    return (
        is_there
        and (query.since is None or event.at >= query.since)
        and (query.until is None or event.at < query.until)
        and (not query.action or f"{event.action}.".startswith(f"{query.action}."))
        and (not query.actor_id or event.actor_id == query.actor_id)
    )
