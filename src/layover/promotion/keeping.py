"""Keeps what is on its way to another registry, whatever becomes of its build meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from layover.errors import StorageError
from layover.oci.digest import Digest
from layover.oci.names import RepositoryName
from layover.promotion.models import SourceGone
from layover.promotion.ports import PushSource


@dataclass(frozen=True, slots=True)
class Keeping:
    """Leases content of the source, `lease` at a time."""

    source: PushSource
    now: Callable[[], datetime]
    lease: timedelta

    @asynccontextmanager
    async def kept(
        self,
        repository: RepositoryName,
        manifests: Collection[Digest],
        blobs: Collection[Digest],
        what: str,
    ) -> AsyncIterator[None]:
        """Keep these for as long as the block runs. Raises SourceGone, which says `what` is gone,
        where one is not there in the beginning; StorageError."""

        async def keep() -> None:
            now, lease = self.now(), self.lease
            if not await self.source.keep(repository, manifests, blobs, now, lease):
                raise SourceGone(what)

        async def keep_on() -> None:
            while True:
                await asyncio.sleep(self.lease.total_seconds() / 4)
                try:
                    await keep()
                except StorageError:
                    continue  # An outage: there is time to try again.
                except SourceGone:
                    return  # Whoever reads what is gone says so.

        await keep()
        keeping = asyncio.create_task(keep_on())
        try:
            yield
        finally:
            keeping.cancel()
