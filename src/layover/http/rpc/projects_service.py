"""depot.cli.v1beta1.ProjectsService: which projects there are."""

from typing import Any

from connectrpc.request import RequestContext

from layover.http.rpc.authentication import caller
from layover.identity.service import IdentityService
from layover.rpc.depot.cli.v1beta1 import projects_connect
from layover.rpc.depot.cli.v1beta1 import projects_pb as pb


class ProjectsRpc(projects_connect.ProjectsService):
    """Lists what the caller may see."""

    def __init__(self, identity: IdentityService) -> None:
        self._identity = identity

    async def list_projects(
        self, request: pb.ListProjectsRequest, ctx: RequestContext[Any, Any]
    ) -> pb.ListProjectsResponse:
        return pb.ListProjectsResponse(
            projects=[
                pb.ListProjectsResponse.Project(
                    id=project.id,
                    name=project.name,
                    org_id=project.organization_id,
                    org_name=project.organization_name,
                )
                for project in await self._identity.list_projects(caller())
            ]
        )
