"""HTTP/1.1 as uvicorn speaks it, with bounds on what is no body.

uvicorn 0.54 with httptools takes a request's head, and the trailers behind a chunked body, of any
size: its memory grows with them, and a value that comes in many pieces is copied anew with each,
so that one connection keeps the whole server busy. It also waits for a head for as long as the
connection lasts.
"""

import asyncio
import json

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Registry tokens with many scopes make heads of tens of KiB. What arrives at once counts whole,
# so that a head may be one read longer.
MAX_HEAD_BYTES = 128 * 1024
HEAD_SECONDS = 60


class BoundedHttpProtocol(HttpToolsProtocol):
    """Closes connections whose heads or trailers are too long, or too long in coming."""

    head_seconds: float = HEAD_SECONDS

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._progressed = False
        # What came without getting any further.
        self._waiting_bytes = 0
        self._patience: asyncio.TimerHandle | None = None
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._progressed = False
        super().data_received(data)
        self._waiting_bytes = 0 if self._progressed else self._waiting_bytes + len(data)
        if self._waiting_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._wait_for_head()

    def on_headers_complete(self) -> None:
        self._progressed = True
        self._stop_waiting()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._progressed = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._progressed = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, in the form of the registry's errors, and hang up.

        uvicorn's own answer is plain text, before any route is known.
        """
        error = {"code": "UNSUPPORTED", "message": msg, "detail": None}
        body = json.dumps({"errors": [error]}).encode()
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _wait_for_head(self) -> None:
        self._stop_waiting()
        self._patience = self.loop.call_later(self.head_seconds, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _refuse(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.send_400_response("Request head too large.")
        else:
            # Behind a body there is an answer on its way, and no room for another.
            self.transport.close()
