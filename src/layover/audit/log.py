"""Records what happens: call `record` when it has, and before anybody is told."""

import contextlib
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from layover.audit.models import NOBODY, AuditEvent, Result
from layover.audit.ports import AuditPlaces, AuditStore, Named
from layover.audit.tallies import Tallies
from layover.audit.text import cleaned
from layover.audit.writer import Writer
from layover.errors import StorageError
from layover.identity.access import sees
from layover.identity.ids import public_part, secret_hash
from layover.identity.models import Organization, Principal, Project, TokenKind
from layover.identity.origin import Origin
from layover.identity.service import IdentityService
from layover.identity.throttle import client_network

# Of a name; texts.LONGEST is that of everything else.
_LONGEST_NAME = 100

_LONGEST_ID = 100

# Known callers cannot invent kinds of event: their own IDs times the actions that there are.
_MAX_KINDS_OF_CALLERS = 10_000

# Of one transaction, while what is old is deleted.
_DELETED_TOGETHER = 500

# An organization's log and, of it, a project's; of neither, the server's own.
Place = tuple[str | None, str | None]


class AuditLog:
    """Writes events durably, and those that may come in floods counted by the minute.

    Where the log cannot be written, the event goes to the server's log as an error, and nothing is
    raised: what it tells of has happened.
    """

    def __init__(
        self,
        store: AuditStore,
        places: AuditPlaces,
        identity: IdentityService,
        now: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._whereabouts = store, places
        self._identity, self._now = identity, now
        self._writer = Writer(store)
        self._callers = Tallies(_MAX_KINDS_OF_CALLERS, monotonic)
        self._strangers = Tallies(monotonic=monotonic)

    async def record(
        self,
        action: str,
        by: Principal | None,
        origin: Origin,
        *,
        where: Project | Organization | None = None,
        subject: str = "",
        result: Result = Result.DONE,
        details: Mapping[str, str] | None = None,
        is_counted: bool = False,
    ) -> None:
        """Keep what `by` did or tried, durably when this returns.

        It stands in the log of `where`; without one, of every organization that `by` is in, and
        else in the server's own. So what was tried on what `by` does not see is recorded without a
        `where`, and nobody learns from it what others have.

        What was not done, and what `is_counted`, is counted: what is like it in the minute that
        follows is written when that minute is over.
        """
        places = await self._places(by, where)
        events = self._events(action, by, origin, places, subject, result, details or {})
        if is_counted or result is not Result.DONE:
            events = self._count(events)
        await self._writer.write(events)

    async def login_refused(
        self,
        action: str,
        origin: Origin,
        *,
        by: Principal | None = None,
        token: str = "",
        details: Mapping[str, str] | None = None,
    ) -> None:
        """Keep that somebody could not log in: as `by`, whoever that is known to be meant to be, or
        whose `token` it was before that was over.

        Counted, and written a little later: a refusal takes as long whoever was meant.
        """
        facts = dict(details or {})
        if (beginning := public_part(token)) is not None:
            facts["token"] = beginning
            by = await self._holder(token)
        events = self._events(
            action, by, origin, await self._places(by, None), "", Result.DENIED, facts
        )
        self._writer.put(self._count(events))

    async def place_of(
        self, by: Principal, named: Named, key: str
    ) -> Project | Organization | None:
        """Where what has this ID is, as a `where` for `record`; None unless `by` sees it.

        Asked before it is changed: afterwards it may not be there.
        """
        # No ID of ours is longer: nothing of a stranger's choosing is searched for.
        if not key or len(key) > _LONGEST_ID:
            return None
        with contextlib.suppress(StorageError):
            place = await self._whereabouts.find_place(named, key)
            return place if place is not None and sees(by, place) else None
        return None

    async def write_counted(self) -> None:
        """Write what was counted in the minutes that are over: a job for every few seconds."""
        await self._writer.write([*self._callers.due(), *self._strangers.due()])

    async def forget_older_than(self, kept: timedelta) -> int:
        """Delete the events that are older than `kept`, a few at a time; return how many."""
        before, deleted = self._now() - kept, 0
        while count := await self._store.delete_before(before, _DELETED_TOGETHER):
            deleted += count
        return deleted

    async def close(self) -> None:
        """Write all that there is yet to write; for the server's end."""
        self._writer.put([*self._callers.end(), *self._strangers.end()])
        await self._writer.close()

    async def _holder(self, token: str) -> Principal | None:
        with contextlib.suppress(StorageError):
            return await self._whereabouts.find_holder(secret_hash(token))
        return None

    async def _places(
        self, by: Principal | None, where: Project | Organization | None
    ) -> Sequence[Place]:
        match where:
            case Project():
                return [(where.organization_id, where.id)]
            case Organization():
                return [(where.id, None)]
        if by is None:
            return [(None, None)]
        if by.kind is TokenKind.USER:
            return [(organization_id, None) for organization_id in sorted(by.roles)] or [
                (None, None)
            ]
        if by.kind is TokenKind.CI:
            with contextlib.suppress(StorageError):
                projects = await self._identity.list_projects(by)
                return [(each.organization_id, each.id) for each in projects] or [(None, None)]
            return [(None, None)]
        return [(by.organization_id, by.project_id)]

    def _events(
        self,
        action: str,
        by: Principal | None,
        origin: Origin,
        places: Sequence[Place],
        subject: str,
        result: Result,
        details: Mapping[str, str],
    ) -> list[AuditEvent]:
        facts = {name: cleaned(value) for name, value in details.items() if value}
        if origin.user_agent:
            facts["client"] = cleaned(origin.user_agent)
        if by is not None and by.user_id is not None and by.token_id:
            facts["token_id"] = by.token_id
        event = AuditEvent(
            at=self._now(),
            organization_id=None,
            project_id=None,
            actor_kind=NOBODY if by is None else by.kind.value,
            actor_id=None if by is None else by.user_id or by.token_id,
            actor_name="" if by is None else cleaned(by.name, _LONGEST_NAME),
            action=action,
            subject=cleaned(subject),
            result=result,
            address=cleaned(origin.address),
            request_id=origin.request_id,
            details=facts,
        )
        return [
            replace(event, organization_id=organization_id, project_id=project_id)
            for organization_id, project_id in places
        ]

    def _count(self, events: Sequence[AuditEvent]) -> list[AuditEvent]:
        told: list[AuditEvent] = []
        for event in events:
            place = (event.organization_id, event.project_id)
            if event.actor_id is not None:
                caller = (*place, event.actor_kind, event.actor_id, event.action, event.result)
                told += self._callers.add(caller, event)
                continue
            kind: Hashable = (*place, event.action, event.result, client_network(event.address))
            if self._strangers.is_full_for(kind):
                # Too many addresses at one time to tell them apart.
                kind = (*place, event.action, event.result)
                event = replace(event, address="", details={"addresses": "many"})
            told += self._strangers.add(kind, event)
        return told
