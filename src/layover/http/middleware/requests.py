"""Gives each request an ID, logs how it ended, and keeps bugs from reaching clients."""

import secrets
import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from layover.http.origin import TrustedProxies, bind_origin, user_agent
from layover.identity.origin import Origin

_log = structlog.get_logger(__name__)

_BUG_BODY = b'{"errors":[{"code":"UNKNOWN","message":"internal error","detail":null}]}'

_INVITATIONS = "/join/"

# Asked every few seconds by whatever watches the server; not worth a line each.
_QUIET_PATHS = frozenset({"/healthz", "/readyz"})


class RequestMiddleware:
    """Says who calls, and under which ID: `origin` and the logs have both from here.

    The ID is answered as X-Request-ID.
    """

    def __init__(self, app: ASGIApp, proxies: TrustedProxies | None = None) -> None:
        self._app, self._proxies = app, proxies or TrustedProxies()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = secrets.token_hex(8)
        started_at = time.monotonic()
        # As it was sent, percent-encoded: what it decodes to can drive a terminal.
        # But for the link of an invitation, which is its secret.
        is_secret = scope["path"].startswith(_INVITATIONS)
        path = _INVITATIONS if is_secret else scope["raw_path"].decode("ascii", "replace")
        status: int | None = None
        headers, (peer, _) = scope["headers"], scope.get("client") or ("", 0)
        address = self._proxies.client_address(peer, headers)
        if address != peer:
            # The port was the proxy's.
            scope = {**scope, "client": (address, 0)}
        bind_origin(Origin(address, user_agent(headers), request_id))

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
                message = {**message, "headers": headers}
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_with_id)
            except Exception:
                _log.exception("request_failed", method=scope["method"], path=path)
                if status is not None:
                    # The response has begun: cutting it off is all that is left.
                    raise
                await _send_bug(send_with_id)
            finally:
                if scope["path"] not in _QUIET_PATHS:
                    _log.info(
                        "request_served",
                        method=scope["method"],
                        # Never the query: it can hold what belongs in no log.
                        path=path,
                        status=status,
                        duration_ms=round((time.monotonic() - started_at) * 1000, 1),
                        client=address,
                    )


async def _send_bug(send: Send) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(_BUG_BODY)).encode()),
    ]
    await send({"type": "http.response.start", "status": 500, "headers": headers})
    await send({"type": "http.response.body", "body": _BUG_BODY})
