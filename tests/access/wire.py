"""Requests to an application in process, and what comes back, in HTTP's and Connect's forms."""

import asyncio
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote

from starlette.types import ASGIApp, Message

# "Connect Protocol Reference", "Streaming-Response": flags, and the length of what follows.
_ENVELOPE = struct.Struct(">BI")
_LAST = 2


@dataclass(frozen=True)
class Call:
    """A request."""

    method: str
    path: str
    """With its query."""
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()

    def with_header(self, name: str, value: str) -> "Call":
        return replace(self, headers=(*self.headers, (name, value)))


@dataclass(frozen=True)
class Answer:
    """A response, whole."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes

    @property
    def verdict(self) -> str:
        """In one word: "ok", or how it was refused, as HTTP numbers it."""
        code = self._connect_code()
        if code is not None:
            return _STATUS_OF.get(code, code)
        return "ok" if self.status < 300 else str(self.status)

    def _connect_code(self) -> str | None:
        kind = self.headers.get("content-type", "")
        if kind.startswith("application/connect+"):
            error = json.loads(self.messages()[-1][1]).get("error")
            return error and str(error["code"])
        if self.status >= 400 and kind == "application/json":
            code = json.loads(self.body).get("code")
            return None if code is None else str(code)
        return None

    def messages(self) -> list[tuple[int, bytes]]:
        """The messages of a stream, each with its flags."""
        found, at = [], 0
        while at < len(self.body):
            flags, length = _ENVELOPE.unpack_from(self.body, at)
            at += _ENVELOPE.size
            found.append((flags, self.body[at : at + length]))
            at += length
        assert found and found[-1][0] & _LAST
        return found


_STATUS_OF = {
    "unauthenticated": "401",
    "permission_denied": "403",
    "not_found": "404",
    "failed_precondition": "412",
    "invalid_argument": "400",
    "unavailable": "503",
    "unimplemented": "501",
}


def rpc(path: str, message: Mapping[str, Any] | str, *, stream: bool = False) -> Call:
    """A Connect call by JSON: unary, or a stream of the one message."""
    body = (message if isinstance(message, str) else json.dumps(message)).encode()
    if stream:
        body = _ENVELOPE.pack(0, len(body)) + body
    kind = "application/connect+json" if stream else "application/json"
    return Call("POST", path, body, (("content-type", kind),))


async def send(app: ASGIApp, call: Call) -> Answer:
    """The application's answer; what it raises is the caller's, as a server's traceback is."""
    path, _, query = call.path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": call.method,
        "scheme": "http",
        "root_path": "",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [
            (b"host", b"127.0.0.1:5000"),
            *(
                (name.lower().encode("latin-1"), value.encode("latin-1"))
                for name, value in call.headers
            ),
        ],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 5000),
    }
    waiting: list[Message] = [{"type": "http.request", "body": call.body, "more_body": False}]
    sent: list[Message] = []

    async def receive() -> Message:
        if not waiting:
            # It waits for its answer.
            await asyncio.Event().wait()
        return waiting.pop()

    async def keep(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, keep)
    start, *rest = sent
    headers = {name.decode().lower(): value.decode() for name, value in start["headers"]}
    return Answer(
        int(start["status"]), headers, b"".join(message.get("body", b"") for message in rest)
    )
