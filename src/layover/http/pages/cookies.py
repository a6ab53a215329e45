"""The cookies of the pages.

With HTTPS their names begin with `__Host-`: a browser takes them from this very host alone, over
HTTPS, and from no name beside or below it (RFC 6265bis, section 4.1.3.2).
"""

from datetime import timedelta
from enum import StrEnum

from starlette.requests import Request
from starlette.responses import Response


class Cookie(StrEnum):
    """What a browser keeps for us."""

    SESSION = "layover"
    """The secret of a session."""
    FORM = "layover-form"
    """What ties a form to the browser it was sent to, where nobody is signed in."""
    FLOW = "layover-flow"
    """A sign-in at the provider that is under way."""


class Cookies:
    """Reads and sets them."""

    def __init__(self, *, https: bool) -> None:
        self._https = https

    def name(self, cookie: Cookie) -> str:
        """As browsers know it."""
        return f"__Host-{cookie}" if self._https else cookie.value

    def read(self, request: Request, cookie: Cookie) -> str:
        """Its value; empty where there is none."""
        return request.cookies.get(self.name(cookie), "")

    def set(
        self, response: Response, cookie: Cookie, value: str, lifetime: timedelta | None = None
    ) -> None:
        """Let the browser keep it for `lifetime`, or until it is closed."""
        response.set_cookie(
            self.name(cookie),
            value,
            max_age=None if lifetime is None else int(lifetime.total_seconds()),
            path="/",
            secure=self._https,
            httponly=True,
            samesite="lax",
        )

    def clear(self, response: Response, cookie: Cookie) -> None:
        """Let the browser forget it."""
        response.delete_cookie(
            self.name(cookie), path="/", secure=self._https, httponly=True, samesite="lax"
        )
