"""One collection of what is over, now: beside the server, or in its place."""

import asyncio
import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from secrets import token_bytes

from layover.adapters.sql.database import Database
from layover.adapters.sql.identity import SqlIdentityStore
from layover.adapters.sql.retention import SqlRetentionStore
from layover.errors import LayoverError
from layover.identity.ids import new_id
from layover.maintenance.opening import NoServerData, opened
from layover.registry.ports import BlobStore
from layover.retention.collector import Collector
from layover.retention.models import Kind, Removal
from layover.retention.receipts import KEY_BYTES, ReceiptService
from layover.settings import Settings

__all__ = ["CollectorBusy", "Counts", "Kind", "NoServerData", "Removal", "collect", "plan"]

# A collection gives its lease back after each round.
PATIENCE = timedelta(minutes=10)
_POLL_SECONDS = 0.2


class CollectorBusy(LayoverError):
    """A server, or a backup, holds the collector's lease."""

    def __init__(self, waited: timedelta) -> None:
        super().__init__(
            f"for {waited.total_seconds():.0f} s a server or a backup has kept the collection to"
            " itself: try again later"
        )


@dataclass(slots=True)
class Counts:
    """What a collection did."""

    ended: int = 0
    """Builds and pushes whose time was over."""
    objects: int = 0
    """Blobs whose bytes are off the medium."""


async def plan(settings: Settings) -> list[Removal]:
    """What a collection would take away now, and why; nothing is changed.

    Raises as `opened` does.
    """
    async with opened(settings) as (database, blob_store):
        return await (await _collector(settings, database, blob_store, Counts())).plan()


async def collect(settings: Settings, patience: timedelta = PATIENCE) -> Counts:
    """Take away what can be taken away now. Raises CollectorBusy, and as `opened` does."""
    counts = Counts()
    async with opened(settings) as (database, blob_store):
        collector = await _collector(settings, database, blob_store, counts)
        give_up_at = time.monotonic() + patience.total_seconds()
        while not await collector.run_once():
            if time.monotonic() > give_up_at:
                raise CollectorBusy(patience)
            await asyncio.sleep(_POLL_SECONDS)
    return counts


async def _collector(
    settings: Settings, database: Database, blob_store: BlobStore, counts: Counts
) -> Collector:
    store = _Counted(database, counts)
    key = await SqlIdentityStore(database).server_key("receipts", token_bytes(KEY_BYTES))
    receipts = ReceiptService(store, key, _now, settings.gc_grace + settings.reaper_interval)
    return Collector(
        store, blob_store, receipts, _now, new_id(), settings.gc_grace, settings.reaper_interval
    )


class _Counted(SqlRetentionStore):
    def __init__(self, database: Database, counts: Counts) -> None:
        super().__init__(database)
        self._counts = counts

    async def end_due(self, now: datetime, limit: int) -> int:
        ended = await super().end_due(now, limit)
        self._counts.ended += ended
        return ended

    async def forget_doomed(self, keys: Collection[str]) -> None:
        await super().forget_doomed(keys)
        self._counts.objects += len(keys)


def _now() -> datetime:
    return datetime.now(UTC)
