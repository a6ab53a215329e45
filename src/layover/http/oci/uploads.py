"""/v2/NAME/blobs/uploads/ (distribution-spec v1.1.1, "Pushing blobs")."""

import re
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from layover.audit.log import AuditLog
from layover.http.auditing import Deed, record
from layover.http.oci.auth import Authenticator
from layover.http.oci.errors import InvalidRequest
from layover.http.oci.paths import content, repository_of
from layover.identity.access import Action
from layover.oci.digest import Digest
from layover.oci.names import RepositoryName
from layover.registry.blobs import BlobService
from layover.registry.models import BlobUnknown, Upload, UploadUnknown
from layover.registry.uploads import UploadService

_CONTENT_RANGE = re.compile(r"(?:bytes[ =])?(\d{1,18})-(\d{1,18})(?:/(?:\d+|\*))?", re.ASCII)


class UploadRoutes:
    """Starts, continues, finishes and cancels upload sessions; mounts blobs."""

    def __init__(
        self,
        authenticator: Authenticator,
        uploads: UploadService,
        blobs: BlobService,
        audit: AuditLog,
    ) -> None:
        self._authenticator, self._uploads = authenticator, uploads
        self._blobs, self._audit = blobs, audit

    def routes(self) -> list[Route]:
        return [
            Route("/v2/{name:path}/blobs/uploads/", self._start, methods=["POST"]),
            Route(
                "/v2/{name:path}/blobs/uploads/{upload_id}",
                self._session,
                methods=["GET", "PATCH", "PUT", "DELETE"],
            ),
        ]

    async def _start(self, request: Request) -> Response:
        repository, query = repository_of(request), request.query_params
        is_mount = "mount" in query and "from" in query
        source = RepositoryName.parse(query["from"]) if is_mount else None
        pusher = await self._authenticator.authorize(request, repository, Action.PUSH, source)
        if "mount" in query:
            digest = Digest.parse(query["mount"])
            # Without pull on the source its blobs do not exist for this client: it uploads. When
            # it names no source, its project's repositories are looked in and no others
            # (distribution-spec v1.1.1, "Mounting a blob from another repository").
            may_pull = source is None or await self._authenticator.may_pull(
                pusher.principal, source
            )
            if may_pull and await self._blobs.mount(source, repository, digest):
                if source is not None and source != repository:
                    subject, details = f"{repository}@{digest}", {"from": str(source)}
                    deed = Deed("blobs.mount", pusher.principal, pusher.project, subject, details)
                    await record(self._audit, deed)
                return _created(repository, digest)
        elif "digest" in query:
            digest = Digest.parse(query["digest"])
            await self._uploads.push(repository, digest, content(request), _length(request))
            return _created(repository, digest)
        upload = await self._uploads.start(repository)
        return _session(HTTPStatus.ACCEPTED, upload)

    async def _session(self, request: Request) -> Response:
        repository, upload_id = repository_of(request), request.path_params["upload_id"]
        await self._authenticator.authorize(request, repository, Action.PUSH)
        match request.method:
            case "PATCH":
                upload = await self._uploads.append(
                    repository, upload_id, content(request), _first_byte(request), _length(request)
                )
                return _session(HTTPStatus.ACCEPTED, upload)
            case "PUT":
                if "digest" not in request.query_params:
                    raise InvalidRequest("the digest parameter is missing")
                digest = Digest.parse(request.query_params["digest"])
                try:
                    await self._uploads.finish(
                        *(repository, upload_id, digest, content(request)),
                        start=_first_byte(request),
                        length=_length(request),
                    )
                except UploadUnknown as unknown:
                    await self._finished_before(repository, digest, unknown)
                return _created(repository, digest)
            case "DELETE":
                await self._uploads.cancel(repository, upload_id)
                return Response(status_code=HTTPStatus.NO_CONTENT)
            case _:
                upload = await self._uploads.find(repository, upload_id)
                return _session(HTTPStatus.NO_CONTENT, upload)

    async def _finished_before(
        self, repository: RepositoryName, digest: Digest, unknown: UploadUnknown
    ) -> None:
        """Let a client that lost the answer to its last request make that request again.

        Its session is gone, then, and the blob is there. Raises `unknown` when it is not.
        """
        try:
            await self._blobs.find(repository, digest, may_push=True)
        except BlobUnknown:
            raise unknown from None


def _length(request: Request) -> int | None:
    """How many bytes the request brings, None where it does not say."""
    length = request.headers.get("content-length")
    return None if length is None else int(length)


def _first_byte(request: Request) -> int | None:
    """Where the chunk starts, None without a Content-Range. Raises InvalidRequest."""
    header = request.headers.get("content-range")
    if header is None:
        return None
    match = _CONTENT_RANGE.fullmatch(header.strip())
    first, last = (int(match[1]), int(match[2])) if match else (0, -1)
    if last < first:
        raise InvalidRequest(f"Content-Range has to be <first>-<last>, not {header[:100]!r}")
    length = request.headers.get("content-length")
    if length is not None and int(length) != last - first + 1:
        raise InvalidRequest(f"Content-Range {header} does not fit Content-Length {length}")
    return first


def _created(repository: RepositoryName, digest: Digest) -> Response:
    return Response(
        status_code=HTTPStatus.CREATED,
        headers={
            "Location": f"/v2/{repository}/blobs/{digest}",
            "Docker-Content-Digest": str(digest),
        },
    )


def _session(status: HTTPStatus, upload: Upload) -> Response:
    # distribution answers 0-0 for an empty session, and clients rely on it.
    last = max(0, upload.size_bytes - 1)
    return Response(
        status_code=status,
        headers={
            "Location": f"/v2/{upload.repository}/blobs/uploads/{upload.id}",
            "Range": f"0-{last}",
            "Docker-Upload-UUID": upload.id,
        },
    )
