"""/v2/_catalog: the repositories that a caller may see.

The distribution specification leaves it to Docker's, "Listing Repositories".
"""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from layover.http.oci.auth import Authenticator
from layover.http.oci.paths import next_page, page_limit
from layover.registry.manifests import ManifestService

_PATH = "/v2/_catalog"


class CatalogRoutes:
    """Lists the repositories of the caller's projects that show a manifest."""

    def __init__(self, authenticator: Authenticator, manifests: ManifestService) -> None:
        self._authenticator, self._manifests = authenticator, manifests

    def routes(self) -> list[Route]:
        return [Route(_PATH, self._catalog, methods=["GET"])]

    async def _catalog(self, request: Request) -> Response:
        projects, of_build = await self._authenticator.reads_catalog(request)
        limit = page_limit(request)
        page = await self._manifests.list_repositories(
            [project.id for project in projects],
            limit,
            request.query_params.get("last"),
            of_build,
        )
        names = [repository.value for repository in page.repositories]
        headers = {}
        if page.has_more and names:
            headers["Link"] = next_page(_PATH, {"n": str(limit), "last": names[-1]})
        return JSONResponse({"repositories": names}, headers=headers)
