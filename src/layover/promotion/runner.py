"""Which pushes this server works on, and how each of them ends.

A push is some server's for as long as that server says so every second. One that died says
nothing, and another goes on with its pushes a moment later.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime, timedelta
from functools import partial

import structlog

from layover.errors import LayoverError, StorageError
from layover.oci.digest import Digest
from layover.oci.references import Place
from layover.promotion.models import Push, PushStatus, Transfer
from layover.promotion.ports import PushStore, Registries
from layover.promotion.sealing import AuthorizationVault
from layover.promotion.transfer import TransferService

# Of this server, and of one project on all of them.
_PUSHES_AT_ONCE = 8
_OF_A_PROJECT = 4

# How soon a push that another server took is noticed, and one whose server died.
_LOOK_SECONDS = 1.0
_LEASE = timedelta(seconds=10)

# How often it is said that this server still works on a push, and how far it is.
_REPORT_SECONDS = 0.5

# How long a push waits for whoever asked for it to authorize it anew.
_AUTHORIZATION_SECONDS = 60.0

# Of one push, whoever works on it: a registry could take a byte now and then for ever.
_LONGEST = timedelta(hours=24)
_TOO_LONG = f"it was not done within {_LONGEST / timedelta(hours=1):g} hours: push again"

# One that ends each server that takes it up would go on for ever.
_MOST_TAKEOVERS = 20
_NEVER_ENDED = (
    f"{_MOST_TAKEOVERS + 1} servers in a row began it, and none ended it: push again, and see the"
    " servers' logs"
)

_FAULT = "the server failed: push again, and see the server's log"

_log = structlog.get_logger(__name__)


class PushRunner:
    """Works on pushes until it is canceled."""

    def __init__(
        self,
        store: PushStore,
        transfers: TransferService,
        registries: Registries,
        vault: AuthorizationVault,
        now: Callable[[], datetime],
        holder: str,
    ) -> None:
        """`holder` names this server among those that share the database, and this start of it."""
        self._store, self._transfers, self._registries = store, transfers, registries
        self._vault, self._now, self._holder = vault, now, holder
        self._working: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        try:
            while True:
                self._vault.given.clear()
                try:
                    while len(self._working) < _PUSHES_AT_ONCE and await self._take():
                        pass
                except StorageError as error:
                    _log.warning("pushes_not_taken", reason=str(error))
                except Exception:
                    # A bug must not end pushes for the server's whole life.
                    _log.exception("pushes_not_taken")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_SECONDS):
                        # A new push has what authorizes it here, so that this server is the one
                        # to take it.
                        await self._vault.given.wait()
        finally:
            working = list(self._working.values())
            for task in working:
                task.cancel()
            await asyncio.gather(*working, return_exceptions=True)

    async def _take(self) -> bool:
        now = self._now()
        claim = await self._store.claim(self._holder, now, now + _LEASE, _OF_A_PROJECT)
        if claim is None:
            return False
        push_id = claim.push.id
        if push_id in self._working:
            # This machine slept for longer than its lease: it goes on where it was.
            return True
        if claim.takeovers > _MOST_TAKEOVERS:
            _log.error("push_given_up", push_id=push_id, takeovers=claim.takeovers)
            is_canceled = claim.push.is_canceled
            status = PushStatus.CANCELED if is_canceled else PushStatus.FAILED
            error = None if is_canceled else _NEVER_ENDED
            await self._store.end(push_id, self._holder, status, error, self._now())
            return True
        _log.info("push_taken", push_id=push_id, takeovers=claim.takeovers)
        task = self._working[push_id] = asyncio.create_task(self._work(claim.push))
        task.add_done_callback(partial(self._done, push_id))
        return True

    def _done(self, push_id: str, task: asyncio.Task[None]) -> None:
        del self._working[push_id]
        self._vault.given.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("push_work_failed", push_id=push_id, exc_info=error)

    async def _work(self, push: Push) -> None:
        job = _Job(push, self._store, self._vault, self._now, self._holder)
        registry = self._registries.open(lambda place: self._vault.of(push.id, place))
        try:
            await self._vault.refresh(push.id)
            ended = await job.follow(self._transfers.run(push, registry, job))
        except asyncio.CancelledError:
            # The server stops: another may go on at once.
            with contextlib.suppress(StorageError):
                await job.leave()
            raise
        finally:
            self._vault.forget(push.id)
        if ended is not None:
            status, error = ended
            await job.end(status, error)


class _Job:
    """A push that this server works on: it tells the database, and hears what it is told there."""

    def __init__(
        self,
        push: Push,
        store: PushStore,
        vault: AuthorizationVault,
        now: Callable[[], datetime],
        holder: str,
    ) -> None:
        self._push, self._store, self._vault = push, store, vault
        self._now, self._holder = now, holder
        self._digest: Digest | None = None
        # What is not reported yet.
        self._moved: dict[tuple[Place, Digest], Transfer] = {}
        self._waits_for: dict[Place, int] = {}
        # What it waits for is looked for with each report.
        self._looked = asyncio.Event()
        self._lease_ends = now() + _LEASE
        self._over_at = (push.started_at or now()) + _LONGEST

    # --- what the transfer tells -----------------------------------------------------------------

    async def begins(self, digest: Digest, transfers: Sequence[Transfer]) -> None:
        self._digest = digest
        self._moved = {(one.place, one.digest): one for one in transfers}
        await self._report()

    def moved(self, transfer: Transfer) -> None:
        self._moved[transfer.place, transfer.digest] = transfer

    def authorization_key(self, place: Place) -> object:
        return self._vault.key(self._push.id, place)

    async def authorized_anew(self, place: Place, shown: object) -> bool:
        self._waits_for[place] = self._waits_for.get(place, 0) + 1
        try:
            async with asyncio.timeout(_AUTHORIZATION_SECONDS):
                while self.authorization_key(place) == shown:
                    self._looked.clear()
                    await self._looked.wait()
            return True
        except TimeoutError:
            return False
        finally:
            self._waits_for[place] -= 1
            if not self._waits_for[place]:
                del self._waits_for[place]

    # --- its life ----------------------------------------------------------------------------

    async def follow(
        self, work: Coroutine[None, None, None]
    ) -> tuple[PushStatus, str | None] | None:
        """Let the work be done while this server may; return how it ended, None when the push is
        another server's by now."""
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                stops = await self._report_kindly()
                if stops is not None and not task.done():
                    return None if stops is _LOST else (PushStatus.CANCELED, None)
                if self._now() > self._over_at and not task.done():
                    return PushStatus.FAILED, _TOO_LONG
                await asyncio.wait({task}, timeout=_REPORT_SECONDS)
            return _end_of(task, self._push.id)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})

    async def end(self, status: PushStatus, error: str | None) -> None:
        """Keep how it ended. Until the database takes it the push stays this server's, or is done
        again by another, which finds that everything is there."""
        while True:
            try:
                await self._report()
                if not await self._store.end(
                    self._push.id, self._holder, status, error, self._now()
                ):
                    _log.warning("push_lost", push_id=self._push.id)
                    return
                _log.info("push_ended", push_id=self._push.id, status=status.value)
                return
            except StorageError as failure:
                if self._now() > self._lease_ends:
                    raise
                _log.warning("push_end_not_kept", push_id=self._push.id, reason=str(failure))
                await asyncio.sleep(_REPORT_SECONDS)

    async def leave(self) -> None:
        """Let another server go on at once."""
        now = self._now()
        await self._store.report(self._push.id, self._holder, now, now)

    async def _report_kindly(self) -> object | None:
        """Report. Returns _LOST when the push is another server's, _STOP when it is to stop."""
        try:
            is_canceled = await self._report()
            if self._waits_for:
                await self._vault.refresh(self._push.id)
                self._looked.set()
        except StorageError as error:
            # It is this server's until its lease is over.
            if self._now() < self._lease_ends:
                return None
            _log.warning("push_lost", push_id=self._push.id, reason=str(error))
            return _LOST
        if is_canceled is None:
            _log.warning("push_lost", push_id=self._push.id)
            return _LOST
        return _STOP if is_canceled else None

    async def _report(self) -> bool | None:
        moved, self._moved = self._moved, {}
        now = self._now()
        try:
            is_canceled = await self._store.report(
                self._push.id,
                self._holder,
                now,
                now + _LEASE,
                transfers=list(moved.values()),
                digest=self._digest,
                waits_for=list(self._waits_for),
            )
        except StorageError:
            self._moved = moved | self._moved
            raise
        if is_canceled is not None:
            self._lease_ends = now + _LEASE
        return is_canceled


_LOST, _STOP = object(), object()


def _end_of(task: "asyncio.Future[None]", push_id: str) -> tuple[PushStatus, str | None]:
    error = task.exception()
    if error is None:
        return PushStatus.DONE, None
    if isinstance(error, LayoverError):
        _log.info("push_failed", push_id=push_id, reason=str(error))
        return PushStatus.FAILED, str(error)
    _log.error("push_broke", push_id=push_id, exc_info=error)
    return PushStatus.FAILED, _FAULT
