"""Projects that come and go."""

from collections.abc import Callable
from datetime import datetime, timedelta

from layover.identity.access import Action
from layover.identity.ids import new_id
from layover.identity.management import TooMany
from layover.identity.management_ports import ProjectStore
from layover.identity.models import Principal, Project, ProjectPolicy, ProjectUnknown
from layover.identity.names import checked_name
from layover.identity.organizations import OrganizationService
from layover.identity.retention import check_policy
from layover.identity.service import IdentityService

# An organization's owner has to find one in a list, and a stolen token is not to fill a database.
MAX_PROJECTS = 10_000

# Builds, pushes and uploads that one transaction lets go of.
_BATCH = 500

# As many are let go of while whoever deletes a project waits; the rest by the job.
_BATCHES_AT_ONCE = 10

# A request that was authorized before its project was deleted has ended by then.
_LONGEST_REQUEST = timedelta(days=1)


class ProjectService:
    """Creates and deletes projects for those who may."""

    def __init__(
        self,
        store: ProjectStore,
        identity: IdentityService,
        organizations: OrganizationService,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._identity = identity
        self._organizations = organizations
        self._now = now
        # Deleted projects to which nothing can be added any more.
        self._cleared: set[str] = set()

    async def create(
        self,
        principal: Principal,
        organization_id: str | None,
        name: str,
        policy: ProjectPolicy,
    ) -> Project:
        """Make a project in an organization, the caller's only one without an ID.

        Raises OrganizationNotGiven, OrganizationUnknown, ActionDenied, InvalidName,
        InvalidRetention, TooMany.
        """
        organization = await self._organizations.find(
            principal, Action.CREATE_PROJECT, organization_id
        )
        check_policy(policy)
        project = Project(
            id=new_id(),
            name=checked_name(name, "a project's name"),
            organization_id=organization.id,
            organization_name=organization.name,
            created_at=self._now(),
            policy=policy,
        )
        if await self._store.count_projects(organization.id) >= MAX_PROJECTS:
            raise TooMany("projects in this organization", MAX_PROJECTS, "delete one first")
        await self._store.add_project(project)
        return project

    async def delete(self, principal: Principal, project_id: str) -> None:
        """Let the project be gone at once for everybody, with all that is in it.

        The collector frees its bytes next. Raises ProjectUnknown, ActionDenied.
        """
        project = await self._identity.authorize(principal, Action.DELETE_PROJECT, project_id)
        if not await self._store.delete_project(project.id, self._now()):
            raise ProjectUnknown(project_id)
        for _ in range(_BATCHES_AT_ONCE):
            if not await self._clear_some(project.id):
                break

    async def clear_deleted(self) -> None:
        """Let what is in deleted projects be over: a job for now and then.

        A server may have died while it did that, and a request that was authorized before its
        project was deleted may add something still. Nobody sees either.
        """
        for project_id, deleted_at in await self._store.deleted_projects():
            if project_id not in self._cleared:
                now = self._now()
                while await self._clear_some(project_id):
                    pass
                if now - deleted_at > _LONGEST_REQUEST:
                    self._cleared.add(project_id)

    async def _clear_some(self, project_id: str) -> int:
        return await self._store.clear_project(project_id, self._now(), _BATCH)
