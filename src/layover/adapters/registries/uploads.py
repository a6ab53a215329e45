"""The upload of one blob (distribution-spec v1.1.1, "Pushing blobs").

A blob of one chunk goes in the last request of its session; a larger one in chunks, and that
request has no content, as not every registry takes the last chunk with it. After whatever broke a
request the session itself is asked what it has. A registry that takes no chunks is sent the whole
blob in one request, which begins anew when it breaks. The digest is the registry's to verify, and
what it says that it has is compared.
"""

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from http import HTTPStatus

import httpx

from layover.adapters.registries.answers import Answer
from layover.adapters.registries.requests import Body, Requests
from layover.adapters.registries.retries import Passing, Patience
from layover.oci.digest import Digest
from layover.oci.references import Place
from layover.promotion.models import RegistryRefused, RegistryUnavailable
from layover.promotion.ports import ReadFrom, Sent

# A chunk is streamed, whatever its size, and costs a round trip and, at distribution, an fsync: of
# 1 GiB in chunks of 16 MiB that took 5.1 s, in one piece 2.8. Only what is lost with a chunk that
# breaks speaks for small ones; where that happens, they become smaller.
CHUNK_BYTES = 512 * 1024 * 1024

_SMALLEST_BROKEN_BYTES = 8 * 1024 * 1024
# A proxy that finds a chunk too large takes smaller ones: nginx by default up to this.
_SMALLEST_CHUNK_BYTES = 1024 * 1024
_LARGEST_CHUNK_BYTES = 1 << 40

# How often a blob is begun, whatever the registry does with what it took.
_MOST_BEGINNINGS = 8

# What a registry has to have more to be waited for anew: a byte at a time it would never end.
_PROGRESS_BYTES = 1024 * 1024

# What registries that take no chunks answer to one, or to the end of such a session.
_NO_CHUNKS = frozenset({400, 404, 405, 410, 411, 415, 416, 501})
_MOVED = frozenset({307, 308})
_OCTETS = {"content-type": "application/octet-stream"}


@dataclass(slots=True)
class Session:
    """An upload session of a registry, and how far it is."""

    url: httpx.URL
    chunk_bytes: int
    least_chunk_bytes: int = 0
    position: int = 0
    chunks: int = 0
    """How many it took."""
    is_certain: bool = True
    """Whether its position is what the registry said, with nothing sent since."""


class Upload:
    """One blob on its way to one repository."""

    def __init__(
        self,
        requests: Requests,
        place: Place,
        digest: Digest,
        size_bytes: int,
        read: ReadFrom,
        sent: Sent,
        has_blob: Callable[[], Awaitable[bool]],
        *,
        chunk_bytes: int,
        takes_chunks: bool,
        session: Session | None,
    ) -> None:
        """`session` is one that was left; `takes_chunks` what is known of the registry. Both are
        to be looked at again when the upload has ended, in whichever way."""
        self._requests, self._place, self._digest = requests, place, digest
        self._size_bytes, self._read, self._sent = size_bytes, read, sent
        self._has_blob, self._chunk_bytes = has_blob, chunk_bytes
        self.session, self.takes_chunks = session, takes_chunks
        self._patience = Patience(place, requests.time)
        self._beginnings = 0
        self._failure = "it lost the upload again and again"
        self._furthest = 0
        self._is_committing = False

    async def run(self) -> None:
        """Send the blob to its end. Raises what `Registry.send_blob` does."""
        if self.session is not None:
            self.session.is_certain = False
        while True:
            try:
                if await self._step():
                    return
            except Passing as failure:
                self._failure = failure.reason
                if failure.is_undone:
                    # A look whether the blob is there would count against a limit, too.
                    self._is_committing = False
                await self._patience.wait(failure)

    async def _step(self) -> bool:
        """Do what is next; whether it was the last."""
        session = self.session
        if session is None:
            await self._begin()
            return False
        if not session.is_certain:
            return await self._find_position(session)
        left = self._size_bytes - session.position
        is_whole = not self.takes_chunks or self._size_bytes <= session.chunk_bytes
        if not left or (is_whole and not session.position):
            return await self._commit(session, left)
        await self._send_chunk(session, min(left, session.chunk_bytes))
        return False

    # -- The session ------------------------------------------------------------------------------

    async def _begin(self) -> None:
        if self._beginnings == _MOST_BEGINNINGS:
            raise RegistryUnavailable(self._place, self._failure)
        self._sent(0)
        url = await self._requests.url(self._place, "blobs/uploads/")
        answer = await self._requests.ask_once(self._place, "POST", url)
        if answer.status != HTTPStatus.ACCEPTED:
            raise self._refused(answer)
        if answer.location is None:
            raise self._refused(answer, "it names no upload session")
        self._beginnings += 1
        least = answer.headers.get("oci-chunk-min-length", "")
        least_bytes = 0
        if least.isascii() and least.isdigit() and len(least) < 16:
            least_bytes = min(int(least), _LARGEST_CHUNK_BYTES)
        chunk_bytes = max(self._chunk_bytes, least_bytes)
        self.session = Session(answer.location, chunk_bytes, least_bytes)

    async def _find_position(self, session: Session) -> bool:
        """Ask the session what it has; whether the registry has the whole blob by now."""
        if self._is_committing:
            self._is_committing = False
            if await self._has_blob():
                self._sent(self._size_bytes)
                return True  # Only the answer was lost.
        if not self.takes_chunks:
            self.session = None
            return False
        answer = await self._requests.ask_once(self._place, "GET", session.url)
        end = answer.end if answer.is_success else None
        if end is None or end <= session.position:
            # Nothing is left of what broke.
            self._shrink(session, _SMALLEST_BROKEN_BYTES)
        if end is None or end > self._size_bytes:
            self.session = None
            return False
        session.url = answer.location or session.url
        self._has(session, end)
        return False

    def _has(self, session: Session, position: int) -> None:
        """The registry says that it has so much."""
        session.position, session.is_certain = position, True
        left_bytes = self._size_bytes - self._furthest
        least_bytes = min(_PROGRESS_BYTES, session.chunk_bytes // 2, left_bytes)
        if position >= self._furthest + least_bytes > self._furthest:
            self._furthest = position
            self._patience.progressed()
        self._sent(position)

    # -- What is sent -----------------------------------------------------------------------------

    async def _send_chunk(self, session: Session, size_bytes: int) -> None:
        start = session.position
        headers = {**_OCTETS, "content-range": f"{start}-{start + size_bytes - 1}"}
        answer = await self._send(session, "PATCH", session.url, headers, size_bytes)
        if answer.is_success:
            session.url = answer.location or session.url
            session.chunks += 1
            end = answer.end
            # Some took only a part of it; some count from the chunk's own beginning, or say none.
            stop = start + size_bytes
            took = end if end is not None and start < end < stop else stop
            self._has(session, took)
            if took < stop and took - start < min(_PROGRESS_BYTES, size_bytes // 2):
                raise Passing(f"it took {took - start} bytes of the {size_bytes} that it was sent")
        elif not self._is_answered_otherwise(session, answer):
            if answer.status not in _NO_CHUNKS and not answer.is_foreign:
                raise self._refused(answer)
            await self._chunk_is_refused(session, answer)

    async def _chunk_is_refused(self, session: Session, answer: Answer) -> None:
        position, chunks = session.position, session.chunks
        if answer.status in (HTTPStatus.NOT_FOUND, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE):
            # It may stand elsewhere than it was thought to.
            await self._find_position(session)
            if self.session is not None and session.position != position:
                raise Passing("the upload stood elsewhere", is_at_once=True)
        # One that took several lost the session, as with a restart.
        self.takes_chunks = chunks > 1
        self.session = None

    async def _commit(self, session: Session, size_bytes: int) -> bool:
        """Send what is left, and let the registry verify all of it."""
        self._is_committing = True
        query = session.url.query
        added = f"digest={self._digest.algorithm}%3A{self._digest.hex}".encode()
        url = session.url
        if added not in query.split(b"&"):  # as where a redirect named it
            # Put behind what is there, which may be signed to the letter.
            url = url.copy_with(query=query + b"&" + added if query else added)
        is_pieced = session.position > 0
        answer = await self._send(session, "PUT", url, _OCTETS, size_bytes)
        if answer.is_success and answer.status != HTTPStatus.ACCEPTED:
            if answer.denies(self._digest):
                raise self._refused(answer, f"it says that it has {answer.digest[:150]}")
            self._sent(self._size_bytes)
            return True
        self._is_committing = False
        if self._is_answered_otherwise(session, answer):
            return False
        is_gone = answer.status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE) or answer.is_foreign
        if is_gone or (is_pieced and answer.status in _NO_CHUNKS):
            # Put together from parts that a break left, or of chunks that it does not know, it can
            # be another blob: the next time it goes whole.
            self.takes_chunks = self.takes_chunks and not is_pieced
            self.session = None
            return False
        raise self._refused(answer)

    def _is_answered_otherwise(self, session: Session, answer: Answer) -> bool:
        """Whether it is to be sent once more, elsewhere or in smaller parts. Raises Passing."""
        if answer.status in _MOVED and answer.location is not None:
            session.url = answer.location
            raise Passing("it only leads elsewhere", is_at_once=True)
        is_too_large = answer.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        smallest = max(_SMALLEST_CHUNK_BYTES, session.least_chunk_bytes)
        if is_too_large and self.takes_chunks and session.chunk_bytes > smallest:
            self._shrink(session, _SMALLEST_CHUNK_BYTES)
            return True
        return False

    def _shrink(self, session: Session, smallest_bytes: int) -> None:
        if session.chunk_bytes > smallest_bytes:
            self._chunk_bytes = max(session.chunk_bytes // 4, smallest_bytes)
            session.chunk_bytes = max(self._chunk_bytes, session.least_chunk_bytes)

    async def _send(
        self,
        session: Session,
        method: str,
        url: httpx.URL,
        headers: dict[str, str],
        size_bytes: int,
    ) -> Answer:
        start = session.position
        session.is_certain = False

        def moved(done_bytes: int) -> None:
            self._patience.moved()
            self._sent(start + done_bytes)

        time = self._requests.time
        if not size_bytes:
            return await self._requests.ask_once(
                self._place, method, url, headers=headers, answer_seconds=time.commit_seconds
            )
        async with aclosing(self._read(start)) as pieces:
            return await self._requests.ask_once(
                self._place,
                method,
                url,
                headers=headers,
                body=Body(pieces, size_bytes, moved, time.monotonic),
                answer_seconds=time.commit_seconds,
            )

    def _refused(self, answer: Answer, told: str = "") -> RegistryRefused:
        return RegistryRefused(
            self._place, f"blob {self._digest}", answer.status, told or answer.told
        )
