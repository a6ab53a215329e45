"""Blobs as objects of a bucket: S3 and what speaks its protocol, Google Cloud Storage, Azure.

An object is written by one request when it is small and by a multipart upload otherwise, so it
is there whole or not at all; once written it never changes. Each append of an upload makes an
object of its own, under a key that the session's row names before. An upload that came in one
request is published where it lies, without a copy.

What a multipart upload brought that nobody completed is hidden from everything but the
protocol's own list of such uploads. It is aborted with its key, by botocore, because obstore
has no call for that: on S3 alone. Elsewhere a rule of the bucket has to do it (docs/operations.md).
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache, partial
from secrets import token_hex
from threading import Lock
from typing import Any, TypeVar
from urllib.parse import urlsplit

import botocore.config
import botocore.exceptions
import botocore.session
import obstore
import structlog
from obstore.exceptions import BaseError
from obstore.store import from_url

from layover.adapters.blobs.blocks import blocks
from layover.adapters.blobs.keys import FOLDERS, check_key, key_of
from layover.errors import StorageError, StorageFull, StorageUnavailable
from layover.oci.digest import Hash
from layover.registry.models import Part, StoredObject

Result = TypeVar("Result")

_BLOCK_BYTES = 512 * 1024

# The least that S3 takes as a part of a multipart upload, and how many parts it takes. A
# transfer holds about three of them: one that fills, and those that are on their way.
_PART_BYTES = 5 << 20
_MAX_PARTS = 10_000
_PARTS_AT_ONCE = 2

# An append to an upload whose last part is smaller than this writes that part anew, so that the
# parts of an upload stay few however small the chunks are that it comes in.
_SMALL_PART_BYTES = 8 << 20

# How often a key's unfinished uploads are aborted until none is listed any more.
_ABORTS = 5

_THREADS = 16
_DELETIONS_AT_ONCE = 8
_LIST_PAGE = 1_000

# Between two pieces of an answer, and from a request's first byte to the answer's.
_STALL = timedelta(seconds=15)
_CONNECT = timedelta(seconds=5)
# A download is as long as its reader takes.
_LONGEST = timedelta(hours=24)
_PING_SECONDS = 10

# Before an answer that was cut off is asked for again from there.
_READ_PAUSE_SECONDS = 0.2

# Not any 507: requests are told with how many milliseconds they took.
_FULL = re.compile(
    r"(?:status code: |\()507\b|StorageFull|InsufficientStorage|QuotaExceeded|No space left", re.I
)
_QUERY = re.compile(r"\?[^\s\"']*")
_LOGGED_CHARACTERS = 500

_making_client = Lock()

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where the objects are. What is None is taken from the environment, as AWS_REGION is."""

    url: str
    endpoint: str | None = None
    region: str | None = None
    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)

    @property
    def is_s3(self) -> bool:
        return urlsplit(self.url).scheme == "s3"

    def config(self) -> dict[str, str]:
        """What obstore is to know of an S3 bucket."""
        known = {
            "endpoint": self.endpoint,
            "region": self.region,
            "access_key_id": self.access_key_id,
            "secret_access_key": self.secret_access_key,
        }
        return {name: value for name, value in known.items() if value}


class ObjectBlobStore:
    """The BlobStore of a bucket, which any number of processes may use at once."""

    def __init__(
        self,
        bucket: Bucket,
        *,
        retry_timeout: timedelta = timedelta(seconds=45),
        stall: timedelta = _STALL,
    ) -> None:
        """A request that fails is made again until `retry_timeout` is over; one that brings
        nothing for as long as `stall` has failed.
        """
        self._bucket = bucket
        self._retry_seconds = retry_timeout.total_seconds()
        self._stall = stall
        options: dict[str, Any] = {
            "connect_timeout": _CONNECT,
            "read_timeout": stall,
            "timeout": _LONGEST,
        }
        if (bucket.endpoint or "").startswith("http://"):
            options["allow_http"] = True
        retry: dict[str, Any] = {
            "max_retries": 20,
            "retry_timeout": retry_timeout,
            "backoff": {
                "init_backoff": timedelta(milliseconds=100),
                "max_backoff": timedelta(seconds=5),
                "base": 2,
            },
        }
        # Its types know only literal URLs' kinds of options.
        open_store: Any = from_url
        with _translated("open", bucket.url):
            self._store: Any = open_store(
                bucket.url,
                config=bucket.config() if bucket.is_s3 else None,
                client_options=options,
                retry_config=retry,
            )
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="blobs")
        self._s3: Any = None

    def close(self) -> None:
        """Wait for what is being hashed."""
        self._executor.shutdown()

    async def ping(self) -> None:
        """Raise StorageUnavailable unless the bucket answers."""
        with _translated("ping", self._bucket.url):
            try:
                async with asyncio.timeout(_PING_SECONDS):
                    async for _ in obstore.list(self._store, FOLDERS[0], chunk_size=1):
                        return
            except TimeoutError:
                where = self._bucket.endpoint or "the service"
                raise TimeoutError(f"no answer from {where} in {_PING_SECONDS} s") from None

    @property
    def grows_in_place(self) -> bool:
        return False

    def place(self, upload_id: str) -> str:
        # Never twice the same: of two requests that meet on two replicas, one is too late, and
        # what it wrote goes.
        return key_of(upload_id, f"-{token_hex(4)}")

    async def size(self, key: str) -> int | None:
        check_key(key)
        with _translated("size", key):
            try:
                found = await obstore.head_async(self._store, key)
            except FileNotFoundError:
                return None
        return int(found["size"])

    async def read(self, key: str, start: int, stop: int) -> AsyncGenerator[bytes]:
        check_key(key)
        loop = asyncio.get_running_loop()
        came_at = loop.time()
        while start < stop:
            try:
                async with aclosing(self._stream(key, start, stop)) as answered:
                    async for block in answered:
                        start += len(block)
                        yield block
                        came_at = loop.time()
            except StorageUnavailable as error:
                # An answer that was cut off: the reader need not know, as long as it goes on.
                is_gone = isinstance(error.__cause__, FileNotFoundError)
                if is_gone or loop.time() - came_at >= self._retry_seconds:
                    raise
                await asyncio.sleep(_READ_PAUSE_SECONDS)
            else:
                if start < stop:
                    _log.error("blob_truncated", key=key, at_byte=start)
                    raise StorageUnavailable

    async def delete(self, keys: Collection[str]) -> frozenset[str]:
        room = asyncio.Semaphore(_DELETIONS_AT_ONCE)

        async def delete(key: str) -> bool:
            async with room:
                return await self._delete(key)

        gone = await asyncio.gather(*(delete(key) for key in keys))
        return frozenset(key for key, is_gone in zip(keys, gone, strict=True) if is_gone)

    async def _delete(self, key: str) -> bool:
        """Whether there is nothing left of the key."""
        try:
            check_key(key)
            if self._bucket.is_s3:
                # First: what is aborted cannot be completed after the object was deleted.
                await self._run(lambda: self._abort(key))
            with _translated("delete", key), suppress(FileNotFoundError):
                await obstore.delete_async(self._store, key)
        except StorageError as error:
            _log.warning("bytes_not_removed", key=key, reason=str(error))
            return False
        return True

    async def list_blobs(self) -> AsyncGenerator[StoredObject]:
        with _translated("list", self._bucket.url):
            for folder in FOLDERS:
                async for page in obstore.list(self._store, folder, chunk_size=_LIST_PAGE):
                    for found in page:
                        yield StoredObject(
                            found["path"], int(found["size"]), found["last_modified"]
                        )

    async def append(
        self,
        parts: Sequence[Part],
        key: str,
        chunks: AsyncIterator[bytes],
        hashes: Sequence[Hash],
        *,
        length: int | None = None,
    ) -> tuple[Part, ...]:
        check_key(key)
        async with aclosing(self._hashed(chunks, hashes)) as content:
            first = await anext(content, b"")
            if not first:
                return tuple(parts)
            kept, again = list(parts), None
            if kept and kept[-1].size_bytes < _SMALL_PART_BYTES:
                again = kept.pop()
            if length is not None and again is not None:
                length += again.size_bytes
            size_bytes = await self._put(key, self._joined(again, first, content), length)
        return (*kept, Part(key, size_bytes))

    async def publish(self, parts: Sequence[Part], key: str, hashes: Sequence[Hash]) -> str:
        check_key(key)
        if len(parts) == 1:
            (part,) = parts
            if await self.size(part.key) != part.size_bytes:
                _log.error("upload_truncated", key=part.key, size_bytes=part.size_bytes)
                raise StorageUnavailable
            if hashes:
                async with aclosing(self._hashed(self._bytes_of(parts), hashes)) as content:
                    async for _ in content:
                        pass
            return part.key
        size_bytes = sum(part.size_bytes for part in parts)
        async with aclosing(self._hashed(self._bytes_of(parts), hashes)) as content:
            await self._put(key, content, size_bytes)
        return key

    # --- reading ------------------------------------------------------------------------------

    async def _stream(self, key: str, start: int, stop: int) -> AsyncGenerator[bytes]:
        with _translated("read", key):
            answer = await obstore.get_async(self._store, key, options={"range": (start, stop)})
            async for piece in answer.stream(min_chunk_size=_BLOCK_BYTES):
                view = memoryview(piece)
                for at in range(0, len(view), 2 * _BLOCK_BYTES):
                    yield bytes(view[at : at + 2 * _BLOCK_BYTES])

    async def _bytes_of(self, parts: Sequence[Part]) -> AsyncGenerator[bytes]:
        for part in parts:
            async with aclosing(self.read(part.key, 0, part.size_bytes)) as pieces:
                async for piece in pieces:
                    yield piece

    async def _joined(
        self, again: Part | None, first: bytes, rest: AsyncIterator[bytes]
    ) -> AsyncIterator[bytes]:
        if again is not None:
            async with aclosing(self._bytes_of([again])) as pieces:
                async for piece in pieces:
                    yield piece
        yield first
        async for block in rest:
            yield block

    # --- writing ------------------------------------------------------------------------------

    async def _hashed(
        self, chunks: AsyncIterator[bytes], hashes: Sequence[Hash]
    ) -> AsyncGenerator[bytes]:
        """`chunks` in blocks, each hashed in a thread while its reader works on it."""
        under_way: list[asyncio.Future[None]] = []
        try:
            async for block in blocks(chunks, _BLOCK_BYTES):
                await asyncio.gather(*under_way)
                under_way = [self._start(partial(hash_.update, block)) for hash_ in hashes]
                yield block
            await asyncio.gather(*under_way)
        finally:
            # A hash is its caller's again only when no thread uses it any more.
            if under_way:
                await asyncio.wait(under_way)

    async def _put(
        self, key: str, content: AsyncIterator[bytes], size_bytes: int | None = None
    ) -> int:
        """Write an object, of about `size_bytes` if that is known; return how long it is."""
        head: list[bytes] = []
        held = 0
        while held <= _PART_BYTES:
            block = await anext(content, None)
            if block is None:
                with _translated("put", key):
                    body = b"".join(head)
                    await obstore.put_async(self._store, key, body, use_multipart=False)
                return held
            head.append(block)
            held += len(block)
        part_bytes = max(_PART_BYTES, (size_bytes or 0) // (_MAX_PARTS - 1) + 1)
        return await self._put_in_parts(key, head, content, part_bytes)

    async def _put_in_parts(
        self, key: str, head: list[bytes], content: AsyncIterator[bytes], part_bytes: int
    ) -> int:
        # obstore asks for the content from outside of our task. It gets blocks from a queue, so
        # that whatever ends our task is told there: only then does it abort the upload.
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=1)
        writing = asyncio.ensure_future(
            obstore.put_async(
                self._store,
                key,
                _taken_from(queue),
                chunk_size=part_bytes,
                max_concurrency=_PARTS_AT_ONCE,
            )
        )
        size_bytes = 0
        try:
            while head:
                size_bytes += len(head[0])
                await _offer(queue, head.pop(0), writing)
            async for block in content:
                size_bytes += len(block)
                await _offer(queue, block, writing)
            await _offer(queue, b"", writing)
            with _translated("put", key):
                await asyncio.shield(writing)
        finally:
            await _end(queue, writing)
        if self._bucket.is_s3:
            # Where the answer to its beginning was lost it was begun again, and the other one is
            # nobody's. What fails here is done again with the key's end.
            with contextlib.suppress(StorageUnavailable):
                await self._run(lambda: self._abort(key))
        return size_bytes

    # --- multipart uploads that nobody completed ----------------------------------------------

    def _abort(self, key: str) -> None:
        with _translated("abort", key):
            client, address = self._client(), urlsplit(self._bucket.url)
            prefix = address.path.strip("/")
            name = f"{prefix}/{key}" if prefix else key
            # Asked again: a part that was on its way meanwhile may have brought one back
            # (Amazon S3 API, AbortMultipartUpload).
            for _ in range(_ABORTS):
                uploads = _unfinished(client, address.netloc, name)
                for upload_id in uploads:
                    _abort_one(client, address.netloc, name, upload_id)
                if not uploads:
                    return
        _log.error("upload_not_aborted", key=key)
        raise StorageUnavailable

    def _client(self) -> Any:
        # A session makes one client at a time; a client is then used by many threads.
        with _making_client:
            if self._s3 is None:
                self._s3 = _session().create_client(
                    "s3",
                    endpoint_url=self._bucket.endpoint,
                    region_name=self._bucket.region,
                    aws_access_key_id=self._bucket.access_key_id,
                    aws_secret_access_key=self._bucket.secret_access_key,
                    config=botocore.config.Config(
                        connect_timeout=_CONNECT.total_seconds(),
                        read_timeout=self._stall.total_seconds(),
                        retries={"mode": "standard", "total_max_attempts": 5},
                        s3={"addressing_style": "path"},
                        max_pool_connections=_THREADS,
                    ),
                )
            return self._s3

    def _start(self, call: Callable[[], Result]) -> asyncio.Future[Result]:
        return asyncio.get_running_loop().run_in_executor(self._executor, call)

    async def _run(self, call: Callable[[], Result]) -> Result:
        return await self._start(call)


@cache
def _session() -> botocore.session.Session:
    """What has read the description of the API, which takes half a second."""
    return botocore.session.get_session()


class _GivenUpError(Exception):
    """Nothing more comes for an object that is being written."""


async def _taken_from(queue: "asyncio.Queue[bytes | None]") -> AsyncIterator[bytes]:
    """What is offered, up to an empty block; None is the end of all of it."""
    while (block := await queue.get()) != b"":
        if block is None:
            raise _GivenUpError
        yield block


async def _offer(
    queue: "asyncio.Queue[bytes | None]", block: bytes, writing: "asyncio.Future[Any]"
) -> None:
    """Wait for room, unless the writing has ended: then its result is asked for, which tells."""
    offering = asyncio.ensure_future(queue.put(block))
    try:
        await asyncio.wait({offering, writing}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        offering.cancel()
    if writing.done():
        with _translated("put", "multipart"):
            writing.result()


async def _end(queue: "asyncio.Queue[bytes | None]", writing: "asyncio.Future[Any]") -> None:
    """Let go of what is still being written, and of whoever waits for more of it."""
    while not queue.empty():
        queue.get_nowait()
    if writing.done():
        queue.put_nowait(b"")
        return
    queue.put_nowait(None)
    await asyncio.wait({writing})
    if not writing.cancelled():
        writing.exception()


def _unfinished(client: Any, bucket: str, key: str) -> list[str]:
    """The IDs of the key's multipart uploads that nobody completed."""
    pages = client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=key)
    uploads = (upload for page in pages for upload in page.get("Uploads", ()))
    return [upload["UploadId"] for upload in uploads if upload["Key"] == key]


def _abort_one(client: Any, bucket: str, key: str, upload_id: str) -> None:
    try:
        client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload_id)
    except client.exceptions.NoSuchUpload:
        return  # It was completed or aborted since it was listed.


@contextmanager
def _translated(work: str, key: str) -> Iterator[None]:
    """Turn the clients' exceptions into ours."""
    try:
        yield
    except (
        BaseError,
        OSError,
        botocore.exceptions.BotoCoreError,
        botocore.exceptions.ClientError,
    ) as error:
        text = str(error)
        if _FULL.search(text):
            raise StorageFull from error
        # A request's query may sign it, and never helps.
        text = _QUERY.sub("", text.split("\n\nDebug source", 1)[0])[:_LOGGED_CHARACTERS]
        _log.error("object_store_failed", work=work, key=key, error=text)
        raise StorageUnavailable from error
