"""depot.cli.v1beta1.ProjectsService and layover.v1.ProjectsService: projects and their policies."""

from dataclasses import replace
from typing import Any, TypeAlias

from connectrpc.request import RequestContext
from protobuf import Oneof

from layover.builds.errors import CacheShared
from layover.builds.life import BuildService
from layover.builds.listing import ListingService
from layover.http.rpc.authentication import caller
from layover.http.rpc.convert import to_duration, to_length, to_timestamp
from layover.identity.access import Action
from layover.identity.management import InvalidChange
from layover.identity.models import Project, ProjectPolicy
from layover.identity.projects import ProjectService
from layover.identity.service import IdentityService
from layover.rpc.depot.cli.v1beta1 import projects_connect
from layover.rpc.depot.cli.v1beta1 import projects_pb as pb
from layover.rpc.layover.v1 import projects_connect as own_connect
from layover.rpc.layover.v1 import projects_pb as own

Context: TypeAlias = RequestContext[Any, Any]


class ProjectsRpc(projects_connect.ProjectsService):
    """Lists what the caller may see."""

    def __init__(self, identity: IdentityService, builds: BuildService) -> None:
        self._identity = identity
        self._builds = builds

    async def list_projects(
        self, request: pb.ListProjectsRequest, ctx: Context
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

    async def reset_project_cache(
        self, request: pb.ResetProjectCacheRequest, ctx: Context
    ) -> pb.ResetProjectCacheResponse:
        await self._builds.project(caller(), Action.CREATE_BUILD, request.project_id or None)
        raise CacheShared


class OwnProjectsRpc(own_connect.ProjectsService):
    """Creates, shows, changes and deletes projects."""

    def __init__(
        self,
        identity: IdentityService,
        projects: ProjectService,
        builds: BuildService,
        listing: ListingService,
    ) -> None:
        self._identity = identity
        self._projects = projects
        self._builds = builds
        self._listing = listing

    async def list_projects(
        self, request: own.ListProjectsRequest, ctx: Context
    ) -> own.ListProjectsResponse:
        projects = await self._identity.list_projects(caller())
        return own.ListProjectsResponse(projects=[_project(project) for project in projects])

    async def get_project(
        self, request: own.GetProjectRequest, ctx: Context
    ) -> own.GetProjectResponse:
        project = await self._builds.project(
            caller(), Action.SEE_PROJECT, request.project_id or None
        )
        return own.GetProjectResponse(project=await self._with_use(project))

    async def create_project(
        self, request: own.CreateProjectRequest, ctx: Context
    ) -> own.CreateProjectResponse:
        project = await self._projects.create(
            caller(), request.organization_id, request.name, _new_policy(request)
        )
        return own.CreateProjectResponse(project=await self._with_use(project))

    async def delete_project(
        self, request: own.DeleteProjectRequest, ctx: Context
    ) -> own.DeleteProjectResponse:
        if not request.project_id:
            # Nobody deletes what they did not name.
            raise InvalidChange("project_id is missing: which project to delete")
        await self._projects.delete(caller(), request.project_id)
        return own.DeleteProjectResponse()

    async def update_project(
        self, request: own.UpdateProjectRequest, ctx: Context
    ) -> own.UpdateProjectResponse:
        found = await self._builds.project(
            caller(), Action.UPDATE_PROJECT, request.project_id or None
        )
        changes = _changes(request)
        project = await self._identity.change_policy(
            caller(),
            found.id,
            lambda policy: replace(policy, **changes),
            request.name if request.has_field("name") else None,
        )
        return own.UpdateProjectResponse(project=await self._with_use(project))

    async def _with_use(self, project: Project) -> own.Project:
        message = _project(project)
        message.used_bytes = await self._listing.used_bytes(project)
        return message


def _changes(request: own.UpdateProjectRequest) -> dict[str, Any]:
    """The fields of a policy that the request names."""
    changes: dict[str, Any] = {}
    if request.retention is not None:
        changes["retention"] = to_length(request.retention)
    if request.max_retention is not None:
        changes["max_retention"] = to_length(request.max_retention)
    if request.has_field("extends_on_pull"):
        changes["extends_on_pull"] = request.extends_on_pull
    match request.quota:
        case Oneof(field="quota_bytes", value=int() as quota_bytes):
            changes["quota_bytes"] = quota_bytes
        case Oneof(field="no_quota"):
            changes["quota_bytes"] = None
    return changes


def _new_policy(request: own.CreateProjectRequest) -> ProjectPolicy:
    """The policy that a new project is to have; a maximum that is not named fits the retention."""
    policy = ProjectPolicy(
        extends_on_pull=request.extends_on_pull,
        quota_bytes=request.quota_bytes if request.has_field("quota_bytes") else None,
    )
    if request.max_retention is not None:
        policy = replace(policy, max_retention=to_length(request.max_retention))
        policy = replace(policy, retention=min(policy.retention, policy.max_retention))
    if request.retention is not None:
        retention = to_length(request.retention)
        policy = replace(policy, retention=retention)
        if request.max_retention is None:
            policy = replace(policy, max_retention=max(policy.max_retention, retention))
    return policy


def _project(project: Project) -> own.Project:
    policy = project.policy
    return own.Project(
        id=project.id,
        name=project.name,
        organization_id=project.organization_id,
        organization_name=project.organization_name,
        created_at=to_timestamp(project.created_at),
        retention=to_duration(policy.retention),
        max_retention=to_duration(policy.max_retention),
        extends_on_pull=policy.extends_on_pull,
        quota_bytes=policy.quota_bytes,
    )
