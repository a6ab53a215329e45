"""The registry's routes, and how its errors leave."""

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable

import structlog
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, request_response
from starlette.types import ASGIApp, Receive, Scope, Send

from layover.audit.log import AuditLog
from layover.errors import LayoverError
from layover.http.oci.auth import Authenticator
from layover.http.oci.blobs import BlobRoutes
from layover.http.oci.catalog import CatalogRoutes
from layover.http.oci.errors import OCI_ERRORS, Unsupported, error_response
from layover.http.oci.manifests import ManifestRoutes
from layover.http.oci.tokens import TOKEN_PATH, TokenRoutes
from layover.http.oci.uploads import UploadRoutes
from layover.identity.registry_tokens import RegistryTokens
from layover.identity.service import IdentityService
from layover.identity.throttle import LoginThrottle
from layover.registry.blobs import BlobService
from layover.registry.manifests import ManifestService
from layover.registry.uploads import UploadService

Endpoint = Callable[[Request], Awaitable[Response]]

_API_VERSION = {"Docker-Distribution-Api-Version": "registry/2.0"}

# How long a refused upload may go on arriving before it is cut off.
_UNWANTED_SECONDS = 10

_log = structlog.get_logger(__name__)


class _Rest(Convertor[str]):
    """All of a path that is left, line breaks included, which Starlette's `path` ends at."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("rest", _Rest())


def oci_routes(
    identity: IdentityService,
    registry_tokens: RegistryTokens,
    throttle: LoginThrottle,
    audit: AuditLog,
    blobs: BlobService,
    uploads: UploadService,
    manifests: ManifestService,
    url: str,
) -> list[Route]:
    """Every route of the registry; `url` is how clients reach this server."""
    authenticator = Authenticator(identity, registry_tokens, throttle, audit, url)

    async def base(request: Request) -> Response:
        """distribution-spec v1.1.1, "Determining Support"."""
        await authenticator.caller(request)
        return JSONResponse({})

    async def unsupported(request: Request) -> Response:
        path = request.scope["path"]
        if path != TOKEN_PATH:
            await authenticator.caller(request)
        allowed = {
            method
            for route in endpoints
            if route.path_regex.match(path)
            for method in route.methods or ()
        }
        raise Unsupported(request.method, path, frozenset(allowed))

    endpoints = [
        # Without the slash too: nobody is sent elsewhere to find out.
        Route("/v2", base, methods=["GET"]),
        Route("/v2/", base, methods=["GET"]),
        *UploadRoutes(authenticator, uploads, blobs, audit).routes(),
        *BlobRoutes(authenticator, blobs, audit).routes(),
        *ManifestRoutes(authenticator, manifests, audit).routes(),
        *CatalogRoutes(authenticator, manifests).routes(),
        *TokenRoutes(authenticator, registry_tokens, audit).routes(),
    ]
    known = [
        Route(route.path, _answering(authenticator, route.endpoint), methods=list(route.methods))
        for route in endpoints
        if route.methods
    ]
    # An application, where Starlette looks at no method: it would answer those in its own words.
    rest = request_response(_answering(authenticator, unsupported))
    return known + [Route(path, _Any(rest)) for path in ("/v2", "/v2/{rest:rest}", TOKEN_PATH)]


class _Any:
    """An application as an object: Starlette takes a function for an endpoint."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def _answering(authenticator: Authenticator, endpoint: Endpoint) -> Endpoint:
    """`endpoint`, with its errors told in the specification's form."""

    @functools.wraps(endpoint)
    async def answer(request: Request) -> Response:
        try:
            response = await endpoint(request)
        except LayoverError as error:
            if type(error) not in OCI_ERRORS:
                raise
            response = error_response(error, authenticator.challenge(request, error))
            _log.info(
                "request_refused",
                status=response.status_code,
                code=OCI_ERRORS[type(error)].code,
                reason=str(error),
            )
            await _let_body_end(request)
        response.headers.update(_API_VERSION)
        return response

    return answer


async def _let_body_end(request: Request) -> None:
    """Read what of a refused request's body still arrives, so that the client reads the refusal.

    uvicorn closes a connection that the client does not want to keep together with the answer,
    and with bytes unread that is a TCP reset: skopeo 1.9 reports it instead of the error.
    """
    if "expect" in request.headers:
        # It waits to be asked for its body (100 Continue), and reading asks.
        return
    with contextlib.suppress(ClientDisconnect, RuntimeError, TimeoutError):
        # RuntimeError is Starlette's word for a body that was read to its end already.
        async with asyncio.timeout(_UNWANTED_SECONDS):
            async for _ in request.stream():
                pass
