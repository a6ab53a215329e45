"""Plain ASGI middleware: blobs stream through it untouched."""

from starlette.types import ASGIApp

from layover.http.middleware.headers import SecurityHeaders
from layover.http.middleware.requests import RequestMiddleware
from layover.http.origin import TrustedProxies


def surrounded(app: ASGIApp, proxies: TrustedProxies, *, https: bool) -> ASGIApp:
    """`app` with all that holds for every request; `https` as in SecurityHeaders."""
    return SecurityHeaders(RequestMiddleware(app, proxies), https=https)
