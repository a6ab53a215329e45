"""Which requests reach the Connect library, and which are refused before it sees them.

connectrpc 0.13 fails on a few requests in ways that a client should not be able to cause: a
server error with a traceback for gRPC, which needs trailers that ASGI servers do not send, and
for a header that is not UTF-8; and its JSON reader (protobuf-py 0.7) recurses without a limit,
so that a deeply nested message would end the whole process. Its binary reader makes an object of
each message inside a message, two bytes on the wire: 8 MiB of them, which compress to 8 KiB, kept
the server busy for 18 seconds and took 2 GB.
"""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

from connectrpc.codec import Codec, proto_binary_codec, proto_json_codec
from connectrpc.server import ConnectASGIApplication
from protobuf import DescFieldValueList, DescFieldValueMessage, DescMessage, Message
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

# JSON is for calls made by hand; the clients speak binary, with a limit of its own.
MAX_JSON_BYTES = 1024 * 1024

# The API's own messages are five deep; protocol buffers' usual limit is 100.
MAX_JSON_DEPTH = 100

# A mebibyte of log, which is BuildKit's most at a time, in lines of 100 bytes is 80,000.
MAX_FIELDS = 100_000

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


class BoundedBinaryCodec(Codec[Message, Message]):
    """The library's binary codec for messages of a bounded number of fields."""

    def __init__(self) -> None:
        self._codec = proto_binary_codec()

    def name(self) -> str:
        return self._codec.name()

    def encode(self, message: Message) -> bytes:
        return self._codec.encode(message)

    def decode(self, data: bytes | bytearray, message_class: type[M]) -> M:
        """Raise ValueError for a message with too many fields, or none."""
        if fields_exceed(data, message_class.desc(), MAX_FIELDS):
            raise ValueError(f"more than {MAX_FIELDS} fields: send it in parts")
        try:
            message: M = self._codec.decode(data, message_class)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
        return message


def fields_exceed(data: bytes | bytearray, message: DescMessage, limit: int) -> bool:
    """Whether a binary message has more than `limit` fields, with those of messages inside it.

    Of what is no message this counts at least what a reader reads before it gives up.
    """
    inside = [(0, len(data), message)]
    while inside:
        at, end, description = inside.pop()
        messages = _messages_of(description)
        while at < end:
            limit -= 1
            if limit < 0:
                return True
            tag, at = _varint(data, at, end)
            # protobuf.dev, "Encoding", "Message Structure": what follows a tag.
            match tag & 7:
                case 0:
                    _, at = _varint(data, at, end)
                case 1:
                    at += 8
                case 2:
                    length, at = _varint(data, at, end)
                    if (found := messages.get(tag >> 3)) is not None:
                        inside.append((at, min(at + length, end), found))
                    at += length
                case 5:
                    at += 4
    return False


def _varint(data: bytes | bytearray, at: int, end: int) -> tuple[int, int]:
    """The number at `at`, and where it ends; behind `end` when it does not."""
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    return 0, end


@cache
def _messages_of(message: DescMessage) -> Mapping[int, DescMessage]:
    """The fields of a message that hold messages, by their numbers."""
    found = {}
    for field in message.fields:
        match field.value:
            case DescFieldValueMessage(message=inner):
                found[field.number] = inner
            case DescFieldValueList(element=DescMessage() as inner):
                found[field.number] = inner
    return found


CODECS: tuple[Codec[Any, Any], ...] = (BoundedBinaryCodec(), BoundedJsonCodec())


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
