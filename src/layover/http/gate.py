"""What answers before the server can do its work: it is alive, and not ready."""

from collections.abc import Callable, Mapping
from http import HTTPStatus

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from layover.http.oci.errors import OciError, error_body

_STARTING = "the server is starting: try again in a moment"
_RETRY = {"Retry-After": "2"}


class Gate:
    """Passes requests on to the application once there is one."""

    def __init__(
        self,
        missing: Mapping[str, str],
        surround: Callable[[ASGIApp], ASGIApp],
    ) -> None:
        """`missing` says at each time what is waited for; `surround` puts around the answers
        that say so what the application has around its own."""
        self._missing = missing
        self._app = surround(self._refuse)
        self.is_open = False

    def open(self, app: ASGIApp) -> None:
        """From now on `app` answers."""
        self._app = app
        self.is_open = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._refusal(scope["path"])(scope, receive, send)

    def _refusal(self, path: str) -> Response:
        if path == "/healthz":
            return JSONResponse({"status": "ok"})
        if path == "/readyz":
            return JSONResponse(
                {"status": "unavailable", "checks": dict(self._missing)},
                HTTPStatus.SERVICE_UNAVAILABLE,
            )
        if path in ("/v2", "/token") or path.startswith("/v2/"):
            told = OciError(HTTPStatus.SERVICE_UNAVAILABLE, "UNKNOWN")
            return error_body(
                told, _STARTING, {**_RETRY, "Docker-Distribution-Api-Version": "registry/2.0"}
            )
        # "Connect Protocol Reference", "Error End-Stream" and "Unary-Response".
        return JSONResponse(
            {"code": "unavailable", "message": _STARTING},
            HTTPStatus.SERVICE_UNAVAILABLE,
            headers=_RETRY,
        )
