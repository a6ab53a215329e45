"""Which requests reach the Connect library, and which are refused before it sees them.

connectrpc 0.13 fails on a few requests in ways that a client should not be able to cause: a
server error with a traceback for gRPC, which needs trailers that ASGI servers do not send, and
for a header that is not UTF-8; and its JSON reader (protobuf-py 0.7) recurses without a limit,
so that a deeply nested message would end the whole process.
"""

import re
from typing import Any, TypeVar

from connectrpc.codec import Codec, proto_binary_codec, proto_json_codec
from connectrpc.server import ConnectASGIApplication
from protobuf import Message
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

# JSON is for calls made by hand; the clients speak binary, with a limit of its own.
MAX_JSON_BYTES = 1024 * 1024

# The API's own messages are five deep; protocol buffers' usual limit is 100.
MAX_JSON_DEPTH = 100

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_OPENING = frozenset(b"[{")

M = TypeVar("M", bound=Message)


class BoundedJsonCodec(Codec[Message, Message]):
    """The library's JSON codec for messages of a bounded size and depth."""

    def __init__(self) -> None:
        self._codec = proto_json_codec()

    def name(self) -> str:
        return self._codec.name()

    def encode(self, message: Message) -> bytes:
        return self._codec.encode(message)

    def decode(self, data: bytes | bytearray, message_class: type[M]) -> M:
        """Raise ValueError for a message that is too large or too deep, or no JSON."""
        if len(data) > MAX_JSON_BYTES:
            raise ValueError(f"longer than {MAX_JSON_BYTES} bytes: use application/proto")
        if depth_exceeds(data, MAX_JSON_DEPTH):
            raise ValueError(f"nested deeper than {MAX_JSON_DEPTH}")
        message: M = self._codec.decode(data, message_class)
        return message


def depth_exceeds(data: bytes | bytearray, limit: int) -> bool:
    """Whether JSON text has more than `limit` arrays and objects inside each other.

    Up to where a text stops being JSON this sees what a reader sees, and no reader goes on.
    """
    depth = 0
    for bracket in _STRING.sub(b"", data).translate(None, _NOT_BRACKETS):
        depth += 1 if bracket in _OPENING else -1
        if depth > limit:
            return True
    return False


CODECS: tuple[Codec[Any, Any], ...] = (proto_binary_codec(), BoundedJsonCodec())


class ConnectOnly:
    """The ASGI application of a service, for Connect's own requests alone."""

    def __init__(self, app: ConnectASGIApplication[Any]) -> None:
        self.path = app.path
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = _refusal(scope["headers"])
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _refusal(headers: list[tuple[bytes, bytes]]) -> PlainTextResponse | None:
    for name, value in headers:
        try:
            value.decode()
        except UnicodeDecodeError:
            return PlainTextResponse("a header is not UTF-8\n", 400)
        if name == b"content-type" and value.lower().startswith(b"application/grpc"):
            return PlainTextResponse("this server speaks the Connect protocol, not gRPC\n", 415)
    return None
