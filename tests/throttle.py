"""A line to a server that is slow, or breaks: what a client sends is counted on its way."""

import contextlib
import socket
import threading
import time

_PIECE_BYTES = 16 << 10


class Throttle:
    """Forwards connections to a port of 127.0.0.1, in threads that end with it."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        # Bytes a second of each connection, from client to server; None for all there are.
        self.rate: float | None = None
        # Bytes that passed from clients to the server, and after how many of them everything that
        # is open breaks, once each.
        self.passed_bytes = 0
        self.breaks_at: list[int] = []
        self._counting = threading.Lock()
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Break every connection that there is."""
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        # Closing alone does not wake who waits for it.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()
                continue
            self._open |= {client, server}
            for source, target, is_slow in ((client, server, True), (server, client, False)):
                arguments = (source, target, is_slow)
                threading.Thread(target=self._forward, args=arguments, daemon=True).start()

    def _count(self, size_bytes: int) -> int | None:
        """Count what is to pass; how much of it does before a break, None where none is due."""
        with self._counting:
            at = min(self.breaks_at, default=None)
            left = None if at is None else at - self.passed_bytes
            if at is None or left is None or left > size_bytes:
                self.passed_bytes += size_bytes
                return None
            self.breaks_at.remove(at)
            left = max(left, 0)
            self.passed_bytes += left
            return left

    def _forward(self, source: socket.socket, target: socket.socket, is_slow: bool) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(_PIECE_BYTES):
                if is_slow and self.rate is not None:
                    time.sleep(len(piece) / self.rate)
                if is_slow and (left := self._count(len(piece))) is not None:
                    target.sendall(piece[:left])
                    self.cut()
                    break
                target.sendall(piece)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            self._open.discard(one)
            # Each is closed by the thread that reads from it.
        source.close()
