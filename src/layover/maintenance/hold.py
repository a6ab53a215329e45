"""Holding collection off while a command of the operator's own works, as one that copies a bucket.

Whatever the database names when the command begins has its bytes when it ends.
"""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from secrets import token_hex

from layover.adapters.sql import server_leases
from layover.adapters.sql.database import Database
from layover.errors import StorageError
from layover.maintenance.collect import PATIENCE, CollectorBusy
from layover.maintenance.opening import NoServerData, opened
from layover.settings import Settings

__all__ = ["CollectorBusy", "Held", "NoServerData", "hold"]

_LEASE = timedelta(minutes=2)
_RENEWAL_SECONDS = 20.0
_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Held:
    """How the command ended."""

    status: int
    """Minus a signal's number where one ended it."""
    was_interrupted: bool
    """Whether something may have been collected while it worked."""


async def hold(
    settings: Settings,
    command: Sequence[str],
    patience: timedelta = PATIENCE,
    renewal_seconds: float = _RENEWAL_SECONDS,
) -> Held:
    """Run a command while nothing is collected; pushes and pulls go on.

    Raises CollectorBusy when a collection does not end within `patience`, OSError when the command
    cannot be started, and as `opened` does.
    """
    async with opened(settings) as (database, _):
        holder = f"hold-{token_hex(8)}"
        await _take(database, holder, patience)
        try:
            return await _run(database, holder, command, renewal_seconds)
        finally:
            # It ends by itself where the database does not answer any more.
            with contextlib.suppress(StorageError):
                await database.write(
                    partial(server_leases.release, name=server_leases.COLLECTOR, holder=holder)
                )


async def _take(database: Database, holder: str, patience: timedelta) -> None:
    deadline = time.monotonic() + patience.total_seconds()
    while True:
        now = datetime.now(UTC)
        take = partial(
            server_leases.take,
            name=server_leases.COLLECTOR,
            holder=holder,
            now=now,
            until=now + _LEASE,
        )
        if await database.write(take):
            return
        if time.monotonic() > deadline:
            raise CollectorBusy(patience)
        await asyncio.sleep(_POLL_SECONDS)


async def _run(
    database: Database, holder: str, command: Sequence[str], renewal_seconds: float
) -> Held:
    process = await asyncio.create_subprocess_exec(*command)
    was_interrupted = False
    try:
        while True:
            try:
                await asyncio.wait_for(process.wait(), renewal_seconds)
            except TimeoutError:
                was_interrupted |= not await _renewed(database, holder)
            else:
                was_interrupted |= not await _renewed(database, holder)
                assert process.returncode is not None
                return Held(process.returncode, was_interrupted)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def _renewed(database: Database, holder: str) -> bool:
    renew = partial(
        server_leases.renew,
        name=server_leases.COLLECTOR,
        holder=holder,
        until=datetime.now(UTC) + _LEASE,
    )
    try:
        return await database.write(renew)
    except StorageError:
        # A database that is restarted is asked again; the lease outlives that.
        return True
