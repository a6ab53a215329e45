"""Telling the server what a build does while it runs. A lost report never fails a build.

buildx writes refs/BUILDER/NODE/REF when a build starts (a bake: one a target); each is
followed on its builder, and what the builder says is sent on as it is.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from layover.cli.buildx.workspace import BUILDER_NAME, node_name
from layover.client.api import Client
from layover.client.buildkit import Builder, BuilderAddress
from layover.client.errors import ClientError
from layover.rpc.depot.cli.v1 import build_pb as wire
from layover.rpc.moby.buildkit.v1.control_pb import StatusResponse

HEALTH_INTERVAL_SECONDS = 5.0
_LOOK_INTERVAL_SECONDS = 0.2
# A stream is ended and begun anew this often: only its end tells that the server has it all.
_STREAM_SECONDS = 10.0
# What a server that is away for long has to be told is worth this much memory.
_QUEUE_LENGTH = 10_000
# How long a finished build's last words may take.
_LAST_WORDS_SECONDS = 5.0
_FIRST_WORD_SECONDS = 1.0


async def report_health(
    client: Client, build_id: str, platforms: Sequence[wire.BuilderPlatform]
) -> str:
    """Say every few seconds that the client lives; returns why, when the build has to stop."""
    while True:
        for platform in platforms:
            try:
                answer = await client.report_build_health(build_id, platform)
            except ClientError:
                continue  # The next report is the next try; the server allows for some missed.
            if answer.cancels_at is not None and _is_past(answer.cancels_at.to_datetime()):
                return "the server canceled the build"
        await asyncio.sleep(HEALTH_INTERVAL_SECONDS)


def _is_past(when: datetime) -> bool:
    return when.astimezone(UTC) <= datetime.now(UTC)


class StatusReporter:
    """Follows a build on its builders, and reports it. Use it as a context manager.

    Leaving waits a little for what the builders still have to say. `error` is the last step
    that failed, in BuildKit's words; `lost_builder` the endpoint of a builder that went away.
    """

    def __init__(
        self,
        client: Client,
        build_id: str,
        buildx_folder: Path,
        addresses: Sequence[BuilderAddress],
    ) -> None:
        self.error = ""
        self.lost_builder = ""
        self._client, self._build_id = client, build_id
        self._folders = [
            (address, buildx_folder / "refs" / BUILDER_NAME / node_name(index))
            for index, address in enumerate(addresses)
        ]
        self._queue: asyncio.Queue[StatusResponse | None] = asyncio.Queue(_QUEUE_LENGTH)
        self._followers: dict[Path, asyncio.Task[None]] = {}
        self._begun: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._has_ended = False

    async def __aenter__(self) -> "StatusReporter":
        self._tasks = [asyncio.create_task(self._look()), asyncio.create_task(self._send())]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        looking, sending = self._tasks
        looking.cancel()
        self._find()
        followers = list(self._followers.values())
        if followers:
            # A builder that has said nothing of the build so far hardly knows it.
            patience = _LAST_WORDS_SECONDS if self._begun else _FIRST_WORD_SECONDS
            _, late = await asyncio.wait(followers, timeout=patience)
            for task in late:
                task.cancel()
        with contextlib.suppress(asyncio.QueueFull):
            self._queue.put_nowait(None)
        _, late = await asyncio.wait([sending], timeout=_LAST_WORDS_SECONDS)
        for task in late:
            task.cancel()
        await asyncio.gather(*self._tasks, *followers, return_exceptions=True)

    async def _look(self) -> None:
        while True:
            self._find()
            await asyncio.sleep(_LOOK_INTERVAL_SECONDS)

    def _find(self) -> None:
        for address, folder in self._folders:
            for path in folder.iterdir() if folder.is_dir() else ():
                # buildx writes a temporary file first, whose name has a dot.
                if path not in self._followers and "." not in path.name:
                    self._followers[path] = asyncio.create_task(self._follow(address, path.name))

    async def _follow(self, address: BuilderAddress, ref: str) -> None:
        try:
            async with Builder(address) as builder:
                async for status in builder.follow(ref):
                    self._begun.add(ref)
                    for vertex in status.vertexes:
                        # What was only canceled because of another step says nothing.
                        if vertex.error and "context canceled" not in vertex.error:
                            self.error = vertex.error
                    if self._queue.full():
                        self._queue.get_nowait()
                    self._queue.put_nowait(status)
        except ClientError:
            # A stream that breaks off lost its builder, whatever the transport calls that; what
            # could not be followed from the start is built all the same.
            if ref in self._begun:
                self.lost_builder = address.endpoint

    async def _send(self) -> None:
        while not self._has_ended and (first := await self._queue.get()) is not None:
            sent: list[StatusResponse] = []
            try:
                await self._client.report_status_stream(self._requests(first, sent))
            except ClientError:
                await self._send_again(sent)

    async def _requests(
        self, first: StatusResponse, sent: list[StatusResponse]
    ) -> AsyncIterator[wire.ReportStatusStreamRequest]:
        loop = asyncio.get_running_loop()
        until = loop.time() + _STREAM_SECONDS
        status: StatusResponse | None = first
        while status is not None:
            sent.append(status)
            yield wire.ReportStatusStreamRequest(build_id=self._build_id, statuses=[status])
            try:
                async with asyncio.timeout_at(until):
                    status = await self._queue.get()
            except TimeoutError:
                return
        self._has_ended = True

    async def _send_again(self, statuses: list[StatusResponse]) -> None:
        # A stream that broke tells nothing of what arrived; steps are merged by their digest,
        # and a log line twice is better than none. One try more, in one request.
        with contextlib.suppress(ClientError):
            await self._client.report_status(
                wire.ReportStatusRequest(build_id=self._build_id, statuses=statuses)
            )
