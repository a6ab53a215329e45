"""POST /blobs/BUILD_ID/DIGEST: one blob to another registry, as the public client asks for it.

The request has the registry's token in it: nothing of its body is logged, and no error quotes it.
"""

import asyncio
import json
from collections.abc import Coroutine, Mapping
from http import HTTPStatus

import structlog
from connectrpc.code import Code
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive

from layover.audit.ports import Named
from layover.errors import LayoverError
from layover.http.auditing import Deed, audited
from layover.http.rpc.authentication import Authentication
from layover.http.rpc.errors import CONNECT_CODES
from layover.http.rpc.protocol import depth_exceeds
from layover.identity.models import Principal
from layover.identity.throttle import TooManyAttempts
from layover.oci.digest import Digest, InvalidDigest
from layover.oci.references import Place
from layover.promotion.authorizing import MAX_SECRET_BYTES, basic_encoded, bearer
from layover.promotion.models import (
    Authorization,
    InvalidPush,
    RegistryUnavailable,
)
from layover.promotion.single import BlobPushService
from layover.redaction import redact
from layover.registry.models import BlobUnknown


class ClientGone(LayoverError):
    """Whoever asked for the blob does not wait for it any more."""

    def __init__(self) -> None:
        super().__init__("the client went away before the blob was there")


BLOB_PATH = "/blobs/{build_id}/{digest}"

# The secret, escaped, and a few words around it.
_MAX_BODY_BYTES = 2 * MAX_SECRET_BYTES
_MAX_DEPTH = 10

# The API's own words and numbers for errors, and those that it has none for.
_CODES: Mapping[type[LayoverError], Code] = {
    **CONNECT_CODES,
    BlobUnknown: Code.NOT_FOUND,
    # Nobody reads it.
    ClientGone: Code.INVALID_ARGUMENT,
    InvalidDigest: Code.INVALID_ARGUMENT,
}
# "Connect Protocol Reference", "Error Codes".
_STATUSES: Mapping[Code, HTTPStatus] = {
    Code.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    Code.FAILED_PRECONDITION: HTTPStatus.BAD_REQUEST,
    Code.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    Code.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    Code.NOT_FOUND: HTTPStatus.NOT_FOUND,
    Code.ALREADY_EXISTS: HTTPStatus.CONFLICT,
    Code.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    Code.UNIMPLEMENTED: HTTPStatus.NOT_IMPLEMENTED,
    # The client tries again after these.
    Code.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
}

_log = structlog.get_logger(__name__)


class BlobPushRoutes:
    """Parses the request, pushes the blob, answers when it is there."""

    def __init__(self, authentication: Authentication, pushes: BlobPushService) -> None:
        self._authentication, self._pushes = authentication, pushes

    def routes(self) -> list[Route]:
        return [Route(BLOB_PATH, self._blob, methods=["POST"])]

    async def _blob(self, request: Request) -> Response:
        try:
            # Before its body is read.
            principal = await self._authentication.holder(request.headers.get("authorization", ""))
            await self._push(request, principal)
        except LayoverError as error:
            if type(error) not in _CODES:
                raise
            response = _told(error)
            _log.info("request_refused", status=response.status_code, reason=str(error))
            return response
        return JSONResponse({})

    async def _push(self, request: Request, principal: Principal) -> None:
        build_id, digest = request.path_params["build_id"], request.path_params["digest"]
        audit = self._authentication.audit
        where = await audit.place_of(principal, Named.BUILD, build_id)
        deed = Deed("pushes.blob", principal, where, build_id, {"digest": digest})
        async with audited(audit, deed):
            parsed = Digest.parse(digest)
            place, authorization = _read(await _body(request))
            deed.details["destination"] = str(place)
            await _unless_gone(
                request.receive,
                self._pushes.push(principal, build_id, parsed, place, authorization),
            )


async def _body(request: Request) -> bytes:
    """Raises InvalidPush before more than the limit is held, ClientGone."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MAX_BODY_BYTES:
                raise InvalidPush(f"the message is longer than {_MAX_BODY_BYTES} bytes")
    except ClientDisconnect:
        raise ClientGone from None
    return bytes(body)


def _read(body: bytes) -> tuple[Place, Authorization | None]:
    """Where the blob is to be, and what is shown there. Raises InvalidPush, InvalidDestination."""
    if depth_exceeds(body, _MAX_DEPTH):
        raise InvalidPush(f"the message is nested deeper than {_MAX_DEPTH}")
    try:
        # As UTF-8 alone, as which its depth was looked at.
        message = json.loads(body.decode())
    except ValueError:
        # Without its cause: that quotes what it could not read.
        raise InvalidPush("the message is no JSON") from None
    if not isinstance(message, dict):
        raise InvalidPush("the message is no JSON object")
    place = Place.parse(_text(message, "registryHost"), _text(message, "repositoryNamespace"))
    token = _text(message, "registryToken")
    scheme = _text(message, "tokenScheme").lower()
    if not token:
        return place, None
    match scheme:
        case "" | "bearer":
            return place, bearer(token)
        case "basic":
            return place, basic_encoded(token)
        case _:
            raise InvalidPush("tokenScheme has to be Bearer or Basic")


def _text(message: Mapping[str, object], name: str) -> str:
    value = message.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidPush(f"{name} is no text")
    return value


async def _unless_gone(receive: Receive, work: Coroutine[None, None, None]) -> None:
    """Let it be done, for as long as the client waits for it. Raises ClientGone."""
    task = asyncio.ensure_future(work)
    gone = asyncio.create_task(_until_gone(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        await task
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.wait({task, gone})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _told(error: LayoverError) -> Response:
    """The response that tells `error`; its type stands in _CODES."""
    code = _CODES[type(error)]
    status = _STATUSES[code]
    if isinstance(error, RegistryUnavailable):
        status = HTTPStatus.BAD_GATEWAY
    headers = {}
    if isinstance(error, TooManyAttempts):
        headers["Retry-After"] = str(error.retry_after_seconds)
    if status is HTTPStatus.UNAUTHORIZED:
        # RFC 9110, section 11.6.1.
        headers["WWW-Authenticate"] = "Bearer"
    body = {"code": code.value, "message": redact(str(error))}
    return JSONResponse(body, status, headers=headers)
