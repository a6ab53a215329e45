"""A proxy for HTTPS that knows the way to one host: for a client whose address of that is fixed."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator

_END_OF_HEAD = b"\r\n\r\n"


class ConnectProxy:
    """On 127.0.0.1, in a thread of its own; every other host is refused."""

    def __init__(self, host: str, port: int) -> None:
        """What is meant for `host` goes to `port` of this machine."""
        self._host, self._port = host, port
        self.url = ""
        self.asked: list[str] = []

    async def serve(self, is_up: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        is_up.set()
        await self._stop.wait()
        server.close()

    def end(self) -> None:
        """From another thread: end it, with every connection."""
        self._loop.call_soon_threadsafe(self._stop.set)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            # RFC 9110, section 9.3.6.
            method, target, _ = (await reader.readuntil(_END_OF_HEAD)).split(b" ", 2)
            self.asked.append(target.decode())
            if method != b"CONNECT" or target.decode() != f"{self._host}:443":
                writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                return
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._port)
            with contextlib.closing(there_writer):
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
                ways = [_copy(reader, there_writer), _copy(there_reader, writer)]
                await asyncio.gather(*ways, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while block := await reader.read(1 << 16):
        writer.write(block)
        await writer.drain()
    writer.write_eof()


@contextlib.contextmanager
def connect_proxy(host: str, port: int) -> Iterator[ConnectProxy]:
    """The proxy while the block runs."""
    proxy, is_up = ConnectProxy(host, port), threading.Event()
    # At its end asyncio.run cancels what still goes on, which closes the connections.
    thread = threading.Thread(target=lambda: asyncio.run(proxy.serve(is_up)), name="connect-proxy")
    thread.start()
    try:
        assert is_up.wait(30)
        yield proxy
    finally:
        proxy.end()
        thread.join(30)
