"""Online garbage collection: what is over goes, bytes included, beside pushes and pulls.

Every step is a small transaction that leaves a state from which any server goes on, so that a
crash costs nothing but time. What may be unneeded is marked where its need ends (see
docs/decisions/0006), so nothing is scanned to find it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import structlog

from layover.registry.ports import BlobStore
from layover.retention.models import Removal
from layover.retention.ports import RetentionStore
from layover.retention.receipts import ReceiptService

# Also taken by who must not have bytes disappear meanwhile, as a backup.
LEASE_NAME = "collector"
LEASE = timedelta(seconds=30)

# Rows a transaction: a push waits for one of these at most.
_BATCH = 200

# A step is followed by a rest of so many times its length, so that pulls hardly notice; of fewer
# when the next collection is due soon and nobody is there to notice. One that waited long for the
# disk was in nobody's way.
_REST, _LATE_REST = 9.0, 1.0
_LONGEST_REST_SECONDS = 1.0

# A rest that ends later by this was ended by an event loop that had requests to answer.
_BUSY_SECONDS = 0.004

# What is remembered of what is gone.
_TOMBSTONE_LIFETIME = timedelta(days=30)
_RECEIPT_LIFETIME = timedelta(days=365)

# The wall clock and the machine's own differ by less while nobody sets the clock.
_CLOCK_TOLERANCE = timedelta(seconds=30)

_log = structlog.get_logger(__name__)


class Collector:
    """Takes away what is over; one server at a time does."""

    def __init__(
        self,
        store: RetentionStore,
        blobs: BlobStore,
        receipts: ReceiptService,
        now: Callable[[], datetime],
        holder: str,
        grace: timedelta,
        interval: timedelta,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        """`holder` names this server among those that share the database; `interval` is how
        often it collects; `elapsed` is a clock in seconds that nobody sets."""
        self._store, self._blobs, self._receipts = store, blobs, receipts
        self._now, self._elapsed = now, elapsed
        self._holder, self._grace, self._interval = holder, grace, interval
        self._late_at = float("inf")
        self._is_busy = False
        # When the clock was last found as it should be, and by how much it is ahead of `elapsed`.
        self._checked_at = now()
        self._offset: float | None = None
        self._paused_until = float("-inf")
        self._renew_at = float("-inf")

    async def run_once(self) -> bool:
        """Collect all that can be collected now; False where another server is at it, or where
        the clock was set forward.

        Raises StorageError when a store fails; what is left is left for the next time.
        """
        if self._clock_jumped() or not await self._lease():
            return False
        self._late_at = self._elapsed() + self._interval.total_seconds() / 2
        # One time for all of it: the clock may be set forward between two steps.
        now = self._checked_at
        try:
            await self._repeat(lambda: self._store.end_due(now, _BATCH))
            await self._repeat(lambda: self._store.release_ended(now, _BATCH))
            await self._repeat(lambda: self._store.collect_manifests(now, _BATCH))
            await self._repeat(lambda: self._store.collect_links(now, _BATCH))
            await self._remove_bytes()
            await self._sign_receipts()
            await self._repeat(
                lambda: self._store.forget_gone(
                    now - _TOMBSTONE_LIFETIME, now - _RECEIPT_LIFETIME, _BATCH
                )
            )
        finally:
            await self._store.release_lease(LEASE_NAME, self._holder)
            self._renew_at = float("-inf")
        return True

    async def plan(self) -> list[Removal]:
        """What `run_once` would take away now, and why."""
        return await self._store.plan(self._now())

    async def _repeat(self, step: Callable[[], Awaitable[int]]) -> None:
        """Do a step until there is nothing left to do, or another server took over."""
        while await self._lease():
            began = self._elapsed()
            if not await step():
                return
            await self._rest_from(began)

    async def _rest_from(self, began: float) -> None:
        ended = self._elapsed()
        hurries = ended >= self._late_at and not self._is_busy
        rest = (ended - began) * (_LATE_REST if hurries else _REST)
        rest = min(rest, _LONGEST_REST_SECONDS)
        await asyncio.sleep(rest)
        self._is_busy = self._elapsed() - ended > rest + _BUSY_SECONDS

    async def _remove_bytes(self) -> None:
        after = ""

        async def remove_some() -> bool:
            nonlocal after
            doomed = await self._store.doomed(after, _BATCH)
            removed = await self._blobs.delete([one.key for one in doomed])
            if removed:
                await self._store.forget_doomed(removed)
                _log.info("bytes_removed", objects=len(removed))
            if len(doomed) < _BATCH:
                return False
            # What cannot be removed now keeps the rest from nothing: the next time perhaps it can.
            after = doomed[-1].key
            return True

        await self._repeat(remove_some)

    async def _sign_receipts(self) -> None:
        after = ""

        async def sign_some() -> bool:
            nonlocal after
            more = await self._receipts.sign_decided(after)
            after = more or ""
            return more is not None

        await self._repeat(sign_some)

    async def _lease(self) -> bool:
        """Whether this server is the one that collects; renews what is half over."""
        if self._elapsed() < self._renew_at:
            return True
        now = self._now()
        if not await self._store.take_lease(LEASE_NAME, self._holder, now, now + LEASE):
            return False
        self._renew_at = self._elapsed() + LEASE.total_seconds() / 2
        return True

    def _clock_jumped(self) -> bool:
        """Whether the clock was set forward within the grace time.

        Every lease would be over at once then, and pushes that rely on them are under way.
        """
        self._checked_at = self._now()
        offset = self._checked_at.timestamp() - self._elapsed()
        before, self._offset = self._offset, offset
        if before is not None and offset - before > _CLOCK_TOLERANCE.total_seconds():
            self._paused_until = self._elapsed() + self._grace.total_seconds()
            _log.warning(
                "clock_set_forward",
                seconds=round(offset - before),
                collection_waits_seconds=round(self._grace.total_seconds()),
            )
        return self._elapsed() < self._paused_until
