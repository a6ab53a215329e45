"""HTTP/1.1 as uvicorn speaks it, with bounds on what comes and how long that takes.

uvicorn 0.54 with httptools takes a request's head, and the trailers behind a chunked body, of any
size: its memory grows with them, and a value that comes in many pieces is copied anew with each,
so that one connection keeps the whole server busy. It also waits for a head, and for a body, for
as long as the connection lasts.

What bounds a response that its client does not take is the socket's (startup.py), and a TLS
handshake's time is the loop's (tls.py).
"""

import asyncio
import json
import re
import sys
from http import HTTPStatus

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from layover.http.middleware.headers import BASE_HEADERS

# Registry tokens with many scopes make heads of tens of KiB. What arrives at once counts whole,
# so that a head may be one read longer.
MAX_HEAD_BYTES = 128 * 1024
HEAD_SECONDS = 60

# A whole body: a manifest, an API message, a form. Those of some MiB have longer on a slow line, as
# much as they bring at this rate.
BODY_SECONDS = 30
SLOWEST_BYTES_PER_SECOND = 64 * 1024

# Between two pieces of an upload's body, which may take hours.
UPLOAD_IDLE_SECONDS = 60

# Between two messages of a stream of the API: a build may be silent for long.
STREAM_IDLE_SECONDS = 15 * 60

# How long what nobody reads any more may go on arriving: its request has been answered.
UNWANTED_SECONDS = 10

# A limit is looked at this often while it runs, so that a body may take a quarter longer.
_LOOKS = 4

_UPLOAD = re.compile(rb"/v2/.+/blobs/uploads/")
_REQUEST_LINE = re.compile(rb"[A-Z][A-Z-]{0,30} \S+ HTTP/1\.[01]\r\n")

_SECURITY_HEADERS = b"".join(b"%s: %s\r\n" % header for header in BASE_HEADERS).decode()


class TransferCodingUnknown(Exception):
    """A body is sent in a coding that this server does not know."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """Closes connections on which too much comes, or what has to come does not in time.

    Time that this server itself takes, because it does not read on, counts for nothing.
    """

    head_seconds: float = HEAD_SECONDS
    body_seconds: float = BODY_SECONDS
    upload_idle_seconds: float = UPLOAD_IDLE_SECONDS
    stream_idle_seconds: float = STREAM_IDLE_SECONDS
    unwanted_seconds: float = UNWANTED_SECONDS

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._received = b""
        self._progressed = False
        # What came without getting any further.
        self._waiting_bytes = 0
        self._patience: asyncio.TimerHandle | None = None
        self._in_body = False
        # How often the client let us look in vain, and what it brought meanwhile.
        self._looks = 0
        self._body_bytes = 0
        self._limit, self._may_pause = self.body_seconds, False
        self._body_timer: asyncio.TimerHandle | None = None
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._stop_watching()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._progressed = False
        self._received = data
        super().data_received(data)
        self._received = b""
        self._waiting_bytes = 0 if self._progressed else self._waiting_bytes + len(data)
        if self.transport.is_closing():
            return
        if self._waiting_bytes > MAX_HEAD_BYTES:
            self._refuse(HTTPStatus.BAD_REQUEST, "Request head too large.")
        elif self._in_body:
            self._watch_body()
        elif self.timeout_keep_alive_task is None and self._patience is None and self._is_idle():
            # uvicorn no longer waits for a next request once anything came, as an empty line.
            self._wait_for_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._wait_for_head()

    def on_headers_complete(self) -> None:
        self._progressed = True
        self._stop_waiting()
        for name, value in self.headers:
            if name == b"transfer-encoding" and value.strip().lower() != b"chunked":
                # What it hides cannot be known (RFC 9112, section 6.1).
                raise TransferCodingUnknown
        self._in_body = True
        self._body_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._progressed = True
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._progressed = True
        self._in_body = False
        self._stop_watching()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._in_body and self.cycle.response_complete:
            self._stop_watching()
            self._body_timer = self.loop.call_later(self.unwanted_seconds, self.transport.close)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP; uvicorn calls this while it handles the parser's error."""
        error = sys.exc_info()[1]
        if isinstance(error, httptools.HttpParserInvalidMethodError):
            if _REQUEST_LINE.match(self._received):
                self._refuse(HTTPStatus.NOT_IMPLEMENTED, "No such method.")
                return
        elif isinstance(error, httptools.HttpParserCallbackError) and isinstance(
            error.__context__, TransferCodingUnknown
        ):
            self._refuse(HTTPStatus.NOT_IMPLEMENTED, "No such transfer coding.")
            return
        self._refuse(HTTPStatus.BAD_REQUEST, msg)

    def _unsupported_upgrade_warning(self) -> None:
        """It is answered as if it had not asked to upgrade, and needs no warning."""

    def _wait_for_head(self) -> None:
        self._stop_waiting()
        self._patience = self.loop.call_later(self.head_seconds, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _watch_body(self) -> None:
        """Something of the body came, and not yet its end."""
        if self._body_timer is None:
            self._looks = 0
            self._limit, self._may_pause = self._body_limit()
            self._look_later()
        elif self._may_pause:
            self._looks = 0

    def _body_limit(self) -> tuple[float, bool]:
        """How many seconds this request's body may take; whether that is only between pieces."""
        if _UPLOAD.match(self.scope["raw_path"]):
            return self.upload_idle_seconds, True
        for name, value in self.headers:
            # "Connect Protocol Reference", "Streaming-Request".
            if name == b"content-type" and value.startswith(b"application/connect+"):
                return self.stream_idle_seconds, True
        return self.body_seconds, False

    def _look_later(self) -> None:
        self._body_timer = self.loop.call_later(self._limit / _LOOKS, self._look)

    def _look(self) -> None:
        if self.transport.is_closing():
            return
        if not (self.flow.read_paused or self.cycle.waiting_for_100_continue):
            self._looks += 1
        earned = 0
        if not self._may_pause:
            earned = int(self._body_bytes / SLOWEST_BYTES_PER_SECOND / self._limit * _LOOKS)
        if self._looks < _LOOKS + earned:
            self._look_later()
        else:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "The request's body did not come in time.")

    def _stop_watching(self) -> None:
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        """Say what is wrong, in the form of the registry's errors, and hang up.

        Only hang up where an answer is on its way: there is no room for another.
        """
        cycle = self.cycle
        if self._is_idle() or not (cycle.response_started or self.pipeline):
            self.transport.write(_refusal(status, message))
        if not self._is_idle():
            # What serves the request is told at once, and nothing of it comes behind this.
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.close()


def _refusal(status: HTTPStatus, message: str) -> bytes:
    error = {"code": "UNSUPPORTED", "message": message, "detail": None}
    body = json.dumps({"errors": [error]}).encode()
    head = (
        f"HTTP/1.1 {status} {status.phrase}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n{_SECURITY_HEADERS}connection: close\r\n\r\n"
    )
    return head.encode() + body
