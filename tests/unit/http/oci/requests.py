"""Requests as a server hands them to a route."""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.types import Message


def request(
    method: str = "GET",
    path: str = "/v2/",
    query: str = "",
    headers: dict[str, str] | None = None,
    messages: Sequence[Message] | None = None,
) -> Request:
    """A request whose body are `messages`, all of it at once when there are none."""
    waiting = list(messages or [{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Message:
        return waiting.pop(0)

    return Request(
        {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [
                (name.lower().encode("latin-1"), value.encode("latin-1"))
                for name, value in (headers or {}).items()
            ],
            "path_params": {},
        },
        receive,
    )
