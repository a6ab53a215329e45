"""/v2/NAME/blobs/DIGEST (distribution-spec v1.1.1, "Pulling blobs", "Deleting Blobs")."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from layover.audit.log import AuditLog
from layover.http.auditing import Deed, audited
from layover.http.oci.auth import Authenticator
from layover.http.oci.paths import repository_of
from layover.http.oci.ranges import ByteRange, matches, parse_range
from layover.identity.access import Action
from layover.oci.digest import Digest
from layover.registry.blobs import BlobService
from layover.registry.manifests import Audience


class BlobRoutes:
    """Reads and deletes the blobs that a repository shows."""

    def __init__(self, authenticator: Authenticator, blobs: BlobService, audit: AuditLog) -> None:
        self._authenticator, self._blobs, self._audit = authenticator, blobs, audit

    def routes(self) -> list[Route]:
        path = "/v2/{name:path}/blobs/{digest}"
        return [Route(path, self._blob, methods=["GET", "HEAD", "DELETE"])]

    async def _blob(self, request: Request) -> Response:
        if request.method == "DELETE":
            return await self._delete(request)
        return await self._get(request)

    async def _get(self, request: Request) -> Response:
        repository, digest = repository_of(request), Digest.parse(request.path_params["digest"])
        reader = await self._authenticator.reader(request, repository)
        may_push = reader.audience is not Audience.READER
        blob = await self._blobs.find(
            repository, digest, may_push=may_push, of_build=reader.of_build
        )
        size = blob.size_bytes
        etag = f'"{digest}"'
        headers = {
            "Docker-Content-Digest": str(digest),
            "ETag": etag,
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
        }
        if matches(request.headers.get("if-none-match"), etag):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        part = parse_range(_range_asked_for(request, etag), size)
        status = HTTPStatus.OK
        if part is not None:
            status = HTTPStatus.PARTIAL_CONTENT
            headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
        part = part or ByteRange(0, size)
        headers["Content-Length"] = str(part.stop - part.start)
        if request.method == "HEAD":
            return Response(status_code=status, headers=headers)
        return _BlobResponse(status, headers, self._blobs.read(blob, part.start, part.stop))

    async def _delete(self, request: Request) -> Response:
        repository, digest = repository_of(request), Digest.parse(request.path_params["digest"])
        caller = await self._authenticator.authorize(request, repository, Action.DELETE)
        subject = f"{repository}@{digest}"
        deed = Deed("blobs.delete", caller.principal, caller.project, subject)
        async with audited(self._audit, deed):
            await self._blobs.delete(repository, digest)
        return Response(status_code=HTTPStatus.ACCEPTED)


def _range_asked_for(request: Request, etag: str) -> str | None:
    """The Range header, where it counts (RFC 9110, sections 13.1.5 and 14.2)."""
    if request.method != "GET" or request.headers.get("if-range", etag) != etag:
        return None
    return request.headers.get("range")


class _BlobResponse(Response):
    """Streams blocks as they are read, and stops reading when the client has gone.

    uvicorn (0.54) drops what is sent to a client that has gone without a word, so the
    disconnect is watched for.
    """

    def __init__(
        self, status: HTTPStatus, headers: Mapping[str, str], blocks: AsyncGenerator[bytes]
    ) -> None:
        self.status_code = status
        self.background = None
        self.init_headers(headers)
        self._blocks = blocks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        gone = asyncio.create_task(_until_gone(receive))
        try:
            # Closed here, so that a client that went away leaves no file open behind it.
            async with aclosing(self._blocks) as blocks:
                async for block in blocks:
                    if gone.done():
                        return
                    await send({"type": "http.response.body", "body": block, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            gone.cancel()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
