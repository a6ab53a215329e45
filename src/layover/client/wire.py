"""Connect's error codes as the errors that a caller of this client sees."""

import re

from connectrpc.code import Code
from connectrpc.errors import ConnectError

from layover.client.errors import (
    AccessRefused,
    ClientError,
    NotFound,
    NotLayover,
    NotTrusted,
    RequestRefused,
    ServerFailed,
    ServerUnreachable,
    TokenRefused,
)

_REQUEST = re.compile(r"^Request failed: error sending request for url \([^)]*\): ")

# rustls's words, which pyqwest passes on.
_BAD_CERTIFICATE = "invalid peer certificate: "

_REFUSALS = frozenset(
    {
        Code.INVALID_ARGUMENT,
        Code.FAILED_PRECONDITION,
        Code.ALREADY_EXISTS,
        Code.RESOURCE_EXHAUSTED,
        Code.ABORTED,
        Code.OUT_OF_RANGE,
        Code.CANCELED,
    }
)


def from_connect(error: ConnectError, url: str) -> ClientError:
    """Turn an error of the wire into ours."""
    reason = error.message.strip()
    match error.code:
        case Code.UNAVAILABLE | Code.DEADLINE_EXCEEDED:
            # The transport names the whole request before the cause; the address is told anyway.
            cause = _REQUEST.sub("", reason)
            _, found, why = cause.partition(_BAD_CERTIFICATE)
            return NotTrusted(url, why) if found else ServerUnreachable(url, cause)
        case Code.UNAUTHENTICATED:
            return TokenRefused(url, reason)
        case Code.PERMISSION_DENIED:
            return AccessRefused(reason)
        case Code.NOT_FOUND:
            return NotFound(reason)
        case Code.UNIMPLEMENTED:
            return NotLayover(url)
        case code if code in _REFUSALS:
            return RequestRefused(reason)
        case _:
            return ServerFailed(url, reason)
