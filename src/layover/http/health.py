"""/healthz: the process answers. /readyz: it can do its work."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from layover.errors import StorageError
from layover.redaction import redact

ReadinessCheck = Callable[[], Awaitable[None]]


def health_routes(checks: dict[str, ReadinessCheck]) -> list[Route]:
    """`checks` by the name of what they check; each raises StorageError when it is not there."""

    async def healthz(_request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_request: Request) -> Response:
        found = {}
        for name, check in checks.items():
            try:
                await check()
                found[name] = "ok"
            except StorageError as error:
                found[name] = redact(str(error))
        ready = set(found.values()) <= {"ok"}
        return JSONResponse(
            {"status": "ok" if ready else "unavailable", "checks": found},
            HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE,
        )

    return [
        Route("/healthz", healthz, methods=["GET"]),
        Route("/readyz", readyz, methods=["GET"]),
    ]
