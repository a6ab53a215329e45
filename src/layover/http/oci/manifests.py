"""/v2/NAME/manifests/REFERENCE, /v2/NAME/tags/list and /v2/NAME/referrers/DIGEST
(distribution-spec v1.1.1, "Pulling manifests", "Pushing Manifests", "Content Discovery")."""

from contextlib import AbstractAsyncContextManager
from email.utils import format_datetime
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from layover.audit.log import AuditLog
from layover.http.auditing import Deed, audited
from layover.http.oci.auth import Authenticator, Authorized
from layover.http.oci.errors import TooManyTags
from layover.http.oci.paths import bounded_body, next_page, page_limit, repository_of
from layover.http.oci.ranges import matches
from layover.identity.access import Action, may_write_tag, saved_by
from layover.identity.models import ActionDenied
from layover.oci.digest import Digest
from layover.oci.manifests import OCI_INDEX
from layover.oci.names import Reference, RepositoryName, Tag, parse_reference
from layover.registry.manifests import MAX_MANIFEST_BYTES, Audience, ManifestService
from layover.registry.models import ManifestTooLarge, Referrer

# How many tags a manifest can be pushed with by `?tag=` (distribution-spec's next version, "Pushing
# Manifests", which wants ten at the least).
MAX_TAGS = 100


class ManifestRoutes:
    """Manifests, and what is listed of them."""

    def __init__(
        self, authenticator: Authenticator, manifests: ManifestService, audit: AuditLog
    ) -> None:
        self._authenticator, self._manifests, self._audit = authenticator, manifests, audit

    def routes(self) -> list[Route]:
        return [
            Route(
                "/v2/{name:path}/manifests/{reference}",
                self._manifest,
                methods=["GET", "HEAD", "PUT", "DELETE"],
            ),
            Route("/v2/{name:path}/tags/list", self._tags, methods=["GET"]),
            Route("/v2/{name:path}/referrers/{digest}", self._referrers, methods=["GET"]),
        ]

    async def _manifest(self, request: Request) -> Response:
        match request.method:
            case "PUT":
                return await self._put(request)
            case "DELETE":
                return await self._delete(request)
            case _:
                return await self._get(request)

    async def _get(self, request: Request) -> Response:
        repository = repository_of(request)
        reference = parse_reference(request.path_params["reference"])
        reader = await self._authenticator.reader(request, repository)
        own = saved_by(reader.principal, repository)
        stored = await self._manifests.find(
            repository, reference, reader.audience, own, reader.of_build
        )
        if reader.project.policy.extends_on_pull and request.method == "GET":
            await self._manifests.extend_pulled(repository, stored.digest, reader.of_build)
            # Asked again: it is gone later now.
            stored = await self._manifests.find(
                repository, reference, Audience.READER, own, reader.of_build
            )
        etag = f'"{stored.digest}"'
        headers = {
            "Docker-Content-Digest": str(stored.digest),
            "ETag": etag,
            "Content-Type": stored.media_type,
        }
        if stored.expires_at is not None:
            # RFC 8594: when it is gone, to the second.
            headers["Sunset"] = format_datetime(stored.expires_at, usegmt=True)
        if matches(request.headers.get("if-none-match"), etag):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        # Starlette leaves the body out of a HEAD's answer and keeps its length.
        return Response(stored.body, headers=headers)

    async def _put(self, request: Request) -> Response:
        repository = repository_of(request)
        reference = parse_reference(request.path_params["reference"])
        pusher = await self._authenticator.authorize(request, repository, Action.PUSH)
        async with self._audited("manifests.push", pusher, repository, reference) as deed:
            return await self._put_authorized(request, repository, reference, deed)

    async def _put_authorized(
        self, request: Request, repository: RepositoryName, reference: Reference, deed: Deed
    ) -> Response:
        principal = deed.by
        tags = [Tag.parse(text) for text in dict.fromkeys(request.query_params.getlist("tag"))]
        if len(tags) > MAX_TAGS:
            raise TooManyTags(MAX_TAGS)
        for tag in [reference, *tags] if isinstance(reference, Tag) else tags:
            if not may_write_tag(principal, repository, tag):
                raise ActionDenied(f"write tag {tag}: a build's token writes its own tags alone")
        body = await bounded_body(request, MAX_MANIFEST_BYTES, ManifestTooLarge(MAX_MANIFEST_BYTES))
        stored, subject = await self._manifests.put(
            repository,
            reference,
            body,
            request.headers.get("content-type"),
            saved_by(principal, repository),
            tags,
        )
        deed.details["digest"] = str(stored.digest)
        deed.details["tags"] = ", ".join(tag.value for tag in tags)
        headers = {
            "Location": f"/v2/{repository}/manifests/{stored.digest}",
            "Docker-Content-Digest": str(stored.digest),
        }
        if subject is not None:
            headers["OCI-Subject"] = str(subject)
        if tags:
            headers["OCI-Tag"] = ", ".join(tag.value for tag in tags)
        return Response(status_code=HTTPStatus.CREATED, headers=headers)

    async def _delete(self, request: Request) -> Response:
        repository = repository_of(request)
        reference = parse_reference(request.path_params["reference"])
        deleter = await self._authenticator.authorize(request, repository, Action.DELETE)
        action = "tags.delete" if isinstance(reference, Tag) else "manifests.delete"
        async with self._audited(action, deleter, repository, reference):
            await self._manifests.delete(repository, reference)
        return Response(status_code=HTTPStatus.ACCEPTED)

    def _audited(
        self, action: str, caller: Authorized, repository: RepositoryName, reference: Reference
    ) -> AbstractAsyncContextManager[Deed]:
        separator = ":" if isinstance(reference, Tag) else "@"
        subject = f"{repository}{separator}{reference}"
        return audited(self._audit, Deed(action, caller.principal, caller.project, subject))

    async def _tags(self, request: Request) -> Response:
        repository = repository_of(request)
        reader = await self._authenticator.reader(request, repository)
        limit = page_limit(request)
        page = await self._manifests.list_tags(
            repository, limit, request.query_params.get("last"), reader.of_build
        )
        headers = {}
        if page.has_more and page.tags:
            query = {"n": str(limit), "last": page.tags[-1].value}
            headers["Link"] = next_page(f"/v2/{repository}/tags/list", query)
        names = [tag.value for tag in page.tags]
        return JSONResponse({"name": repository.value, "tags": names}, headers=headers)

    async def _referrers(self, request: Request) -> Response:
        repository = repository_of(request)
        subject = Digest.parse(request.path_params["digest"])
        reader = await self._authenticator.reader(request, repository)
        artifact_type = request.query_params.get("artifactType")
        last = request.query_params.get("last")
        page = await self._manifests.list_referrers(
            repository,
            subject,
            artifact_type,
            Digest.parse(last) if last is not None else None,
            reader.of_build,
        )
        index = {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [_descriptor(referrer) for referrer in page.referrers],
        }
        headers = {}
        query = {}
        if artifact_type is not None:
            headers["OCI-Filters-Applied"] = "artifactType"
            query["artifactType"] = artifact_type
        if page.has_more:
            query["last"] = str(page.referrers[-1].descriptor.digest)
            headers["Link"] = next_page(f"/v2/{repository}/referrers/{subject}", query)
        return JSONResponse(index, headers=headers, media_type=OCI_INDEX)


def _descriptor(referrer: Referrer) -> dict[str, object]:
    found = referrer.descriptor
    described: dict[str, object] = {
        "mediaType": found.media_type,
        "digest": str(found.digest),
        "size": found.size_bytes,
    }
    if referrer.artifact_type:
        described["artifactType"] = referrer.artifact_type
    if found.annotations:
        described["annotations"] = dict(found.annotations)
    return described
