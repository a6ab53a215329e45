"""One blob of a build to another registry, for a client that pushes by itself.

The client puts the manifests; the blobs never pass through it.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from datetime import datetime, timedelta

import structlog

from layover.builds.life import BuildService
from layover.builds.pulls import check_finished
from layover.identity.access import Action
from layover.identity.models import Principal
from layover.oci.digest import Digest
from layover.oci.names import RepositoryName
from layover.oci.references import Place
from layover.promotion.keeping import Keeping
from layover.promotion.models import Authorization, TooManyBlobs
from layover.promotion.ports import PushSource, Registries
from layover.registry.blobs import BlobService
from layover.registry.models import StoredBlob

# On this server, beside what its pushes send, and of one project half of them.
_AT_ONCE = 32
_OF_A_PROJECT = 16

# Of a project, on their way and waiting for their turn.
MOST_WAITING = 500

_log = structlog.get_logger(__name__)


class BlobPushService:
    """Sends single blobs."""

    def __init__(
        self,
        builds: BuildService,
        blobs: BlobService,
        source: PushSource,
        registries: Registries,
        now: Callable[[], datetime],
        lease: timedelta,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        """`lease` is for how long at a time a blob is kept that is on its way."""
        self._builds, self._blobs, self._source = builds, blobs, source
        self._registries, self._keeping = registries, Keeping(source, now, lease)
        self._turns = _Turns(_AT_ONCE, _OF_A_PROJECT, most_waiting)

    async def push(
        self,
        principal: Principal,
        build_id: str,
        digest: Digest,
        place: Place,
        authorization: Authorization | None,
    ) -> None:
        """Let the repository have the blob; done when it shows it, by whomever it was sent.

        Canceled, it stops wherever it is. Raises BuildUnknown, BuildGone, ActionDenied,
        BuildStillRunning, BuildUnsuccessful; BlobUnknown for what the build does not need;
        TooManyBlobs; TransferError, StorageError.
        """
        build = await self._builds.find(principal, build_id, Action.PUSH_ON)
        check_finished(build, "push")
        repository = RepositoryName(build.project_id)
        # Knowing a digest opens nothing: the blob has to be of that very build.
        blob = await self._blobs.find(repository, digest, may_push=False, of_build=build.id)
        kept = self._keeping.kept(repository, (), (digest,), f"blob {digest}")
        async with self._turns.turn(build.project_id), kept:
            registry = self._registries.open(lambda _: authorization)
            if await registry.has_blob(place, digest, blob.size_bytes):
                return
            await registry.send_blob(
                place, digest, blob.size_bytes, lambda start: self._read(blob, start), _ignore
            )
        _log.info(
            "blob_pushed_on",
            build_id=build.id,
            digest=str(digest),
            place=str(place),
            size_bytes=blob.size_bytes,
        )

    def _read(self, blob: StoredBlob, start: int) -> AsyncGenerator[bytes]:
        return self._source.read(blob, start, blob.size_bytes)


class _Turns:
    """Lets so many work at once, so many of one project, and so many of one wait."""

    def __init__(self, at_once: int, of_a_project: int, most_waiting: int) -> None:
        self._all = asyncio.Semaphore(at_once)
        self._of_a_project, self._most_waiting = of_a_project, most_waiting
        self._projects: dict[str, asyncio.Semaphore] = {}
        self._counts: defaultdict[str, int] = defaultdict(int)

    @contextlib.asynccontextmanager
    async def turn(self, project_id: str) -> AsyncIterator[None]:
        """Raises TooManyBlobs."""
        if self._counts[project_id] >= self._most_waiting:
            raise TooManyBlobs(self._most_waiting)
        self._counts[project_id] += 1
        own = self._projects.setdefault(project_id, asyncio.Semaphore(self._of_a_project))
        try:
            # The project's first: what waits for that takes nobody else's turn.
            async with own, self._all:
                yield
        finally:
            self._counts[project_id] -= 1
            if not self._counts[project_id]:
                del self._counts[project_id], self._projects[project_id]


def _ignore(sent_bytes: int) -> None:
    """Nobody asks how far a single blob is."""
