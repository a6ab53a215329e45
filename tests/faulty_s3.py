"""A network in front of the tests' S3 server that fails as tests say: one fault a request."""

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Callable
from typing import Literal

from tests.objects import S3Server

Fault = Literal["500", "503", "hang", "cut answer", "cut request", "no answer", "refused"]
# What becomes of a request: it gets its number, its method and its path.
Plan = Callable[[int, str, str], Fault | None]

_ERROR = b'<?xml version="1.0"?><Error><Code>%s</Code><Message>of the tests</Message></Error>'
_HALF_OF_BODY = 64 * 1024


def sound(_number: int, _method: str, _path: str) -> None:
    """Nothing fails."""


class FaultyS3:
    """A proxy on a port of its own, in a thread of its own. `plan` may be changed at any time."""

    def __init__(self, server: S3Server) -> None:
        self._server = server
        self.plan: Plan = sound
        self.faults: list[Fault] = []
        self._numbers = itertools.count()
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=[started], daemon=True)
        self._thread.start()
        started.wait()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def fail(self, plan: Plan) -> None:
        """Fail by `plan` from now on, counting requests and faults anew."""
        self.faults = []
        self._numbers = itertools.count()
        self.plan = plan

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        listener = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1"))
        self.port: int = listener.sockets[0].getsockname()[1]
        started.set()
        self._loop.run_forever()
        listener.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.05))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._pass_on(reader, writer)
        writer.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request a connection."""
        head = await reader.readuntil(b"\r\n\r\n")
        method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        length = int(fields.get(b"content-length", b"0"))
        fault = self.plan(next(self._numbers), method, path)
        if fault is not None:
            self.faults.append(fault)
        if fault == "refused":
            return
        if fault in ("500", "503", "hang"):
            await reader.readexactly(length)
            if fault == "hang":
                await reader.read(1)  # It gives up.
                return
            code = {"500": b"InternalError", "503": b"SlowDown"}[fault]
            body = _ERROR % code
            writer.write(
                b"HTTP/1.1 %s Failed\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
                % (fault.encode(), len(body), b"" if method == "HEAD" else body)
            )
            await writer.drain()
            writer.close()
            await writer.wait_closed()
            return
        upstream, downstream = await asyncio.open_connection("127.0.0.1", self._server.port)
        try:
            lines = [
                line for line in head.split(b"\r\n") if not line.lower().startswith(b"connect")
            ]
            downstream.write(b"\r\n".join([*lines[:-2], b"Connection: close", b"", b""]))
            if b"100-continue" in fields.get(b"expect", b""):
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            sent = length // 2 if fault == "cut request" else length
            while sent:
                block = await reader.read(min(sent, _HALF_OF_BODY))
                if not block:
                    return
                downstream.write(block)
                await downstream.drain()
                sent -= len(block)
            if fault == "cut request":
                return
            answer = await upstream.readuntil(b"\r\n\r\n")
            while answer.startswith(b"HTTP/1.1 100"):
                answer = await upstream.readuntil(b"\r\n\r\n")
            if fault == "no answer":
                return  # It was done all the same.
            writer.write(answer)
            room = _HALF_OF_BODY if fault == "cut answer" else None
            while block := await upstream.read(room or _HALF_OF_BODY):
                writer.write(block)
                await writer.drain()
                if fault == "cut answer":
                    return
            writer.close()
            await writer.wait_closed()
        finally:
            downstream.transport.abort()
