"""The headers that keep a browser from doing anything with an answer but reading it.

What is stored here was pushed by somebody, and may be HTML: it must not run in the server's own
origin, where a signed-in user's pages live. A page says itself what it may do; everything else may
do nothing.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

Header = tuple[bytes, bytes]

# Of everything; what a page sets of it itself stays.
BASE_HEADERS: tuple[Header, ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; sandbox"),
    (b"cross-origin-resource-policy", b"same-origin"),
)

# A year; of this very host and no other, which may have names beside it that speak plain HTTP.
_HSTS: Header = (b"strict-transport-security", b"max-age=31536000")

_NO_STORE: Header = (b"cache-control", b"no-store")


class SecurityHeaders:
    """Adds what an answer does not set itself.

    Answers are not to be stored by anybody, but for those that a client can ask about again (those
    with an ETag: manifests and blobs), which change nothing for whoever holds their digest.
    """

    def __init__(self, app: ASGIApp, *, https: bool) -> None:
        """`https` is whether clients reach the server over HTTPS."""
        self._app = app
        self._headers = (*BASE_HEADERS, _HSTS) if https else BASE_HEADERS
        self._names = {name for name, _ in (*self._headers, _NO_STORE)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": self._complete(message.get("headers", ()))}
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _complete(self, headers: list[Header]) -> list[Header]:
        names = {name for name, _ in headers}
        added = self._headers if b"etag" in names else (*self._headers, _NO_STORE)
        if names.isdisjoint(self._names):
            return [*headers, *added]
        return [*headers, *(header for header in added if header[0] not in names)]
