"""Tokens and projects: who calls, and what that caller may touch."""

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta

from layover.identity.access import Action, may, sees
from layover.identity.ids import new_id, new_secret
from layover.identity.models import (
    ActionDenied,
    FirstTenant,
    Principal,
    Project,
    ProjectPolicy,
    ProjectUnknown,
    TokenKind,
    Unauthenticated,
)
from layover.identity.ports import IdentityStore
from layover.identity.retention import check_policy

PULL_TOKEN_LIFETIME = timedelta(hours=1)

# A build cannot outlive its token; a client that vanished ends it long before.
BUILD_TOKEN_LIFETIME = timedelta(days=1)


class IdentityService:
    """Authenticates callers, decides what they may do, and issues tokens."""

    def __init__(self, store: IdentityStore, now: Callable[[], datetime]) -> None:
        self._store = store
        self._now = now

    async def authenticate(self, secret: str) -> Principal:
        """Raise Unauthenticated unless `secret` is a valid token's."""
        principal = await self._store.find_principal(_hash(secret), self._now())
        if principal is None:
            raise Unauthenticated
        return principal

    async def principal_of(self, token_id: str) -> Principal:
        """The caller behind a registry token; raises Unauthenticated once its token is gone."""
        principal = await self._store.find_principal_by_id(token_id, self._now())
        if principal is None:
            raise Unauthenticated
        return principal

    async def authorize(self, principal: Principal, action: Action, project_id: str) -> Project:
        """The project, if the caller may do `action` in it.

        Raises ProjectUnknown, alike for a project that does not exist and one that the caller
        may not see; ActionDenied when it may see the project but not do this.
        """
        project = await self._store.find_project(project_id)
        if project is None or not sees(principal, project):
            raise ProjectUnknown(project_id)
        if not may(principal, action, project):
            raise ActionDenied(action)
        return project

    async def list_projects(self, principal: Principal) -> list[Project]:
        """The projects that the caller may see, by name."""
        projects = await self._store.list_projects(principal.organization_id)
        return [project for project in projects if sees(principal, project)]

    async def change_policy(
        self,
        principal: Principal,
        project_id: str,
        change: Callable[[ProjectPolicy], ProjectPolicy],
    ) -> Project:
        """Replace the project's policy with what `change` makes of it; return the project.

        It holds for what is saved or pushed from now on: what is there keeps its time, also
        where that is beyond a new maximum. Raises ProjectUnknown, ActionDenied, InvalidRetention.
        """
        await self.authorize(principal, Action.UPDATE_PROJECT, project_id)

        def checked(policy: ProjectPolicy) -> ProjectPolicy:
            policy = change(policy)
            check_policy(policy)
            return policy

        project = await self._store.change_policy(project_id, checked)
        if project is None:
            raise ProjectUnknown(project_id)
        return project

    async def create_build_token(
        self, project: Project, build_id: str, tags: frozenset[str]
    ) -> str:
        """A token that drives one build and writes `tags`, each as NAME:TAG."""
        return await self._create_token(
            Principal(
                token_id=new_id(),
                kind=TokenKind.BUILD,
                organization_id=project.organization_id,
                project_id=project.id,
                build_id=build_id,
                tags=tags,
            ),
            f"build {build_id}",
            BUILD_TOKEN_LIFETIME,
        )

    async def end_build_token(self, build_id: str) -> None:
        """The build ended: its token is worth nothing from now on."""
        await self._store.revoke_build_tokens(build_id, TokenKind.BUILD)

    async def end_pull_tokens(self, build_id: str) -> None:
        """The build is gone: what was to pull it is worth nothing from now on."""
        await self._store.revoke_build_tokens(build_id, TokenKind.PULL)

    async def create_pull_token(
        self,
        project: Project,
        build_id: str | None = None,
        lifetime: timedelta = PULL_TOKEN_LIFETIME,
        until: datetime | None = None,
    ) -> str:
        """A token that pulls from the project and does nothing else, at most until `until`."""
        return await self._create_token(
            Principal(
                token_id=new_id(),
                kind=TokenKind.PULL,
                organization_id=project.organization_id,
                project_id=project.id,
                build_id=build_id,
            ),
            f"pull build {build_id}" if build_id else f"pull from project {project.id}",
            lifetime if until is None else min(lifetime, until - self._now()),
        )

    async def bootstrap(
        self, keep: Callable[[str], None], discard: Callable[[], None]
    ) -> FirstTenant | None:
        """On an empty database create an organization, an admin user, a project and a token.

        `keep` gets the token's secret before anything is committed: a crash in between leaves a
        secret without a token, never a server that nobody can enter. Returns None, and calls
        nobody, when the database has an organization already; None after `discard` when another
        replica was quicker.
        """
        if await self._store.has_organization():
            return None
        admin = Principal(
            token_id=new_id(), kind=TokenKind.USER, organization_id=new_id(), user_id=new_id()
        )
        tenant = FirstTenant(
            project_id=new_id(),
            project_name="default",
            organization_name="default",
            user_name="admin",
            admin=admin,
            created_at=self._now(),
        )
        secret = new_secret()
        keep(secret)
        if not await self._store.create_first_tenant(tenant, _hash(secret)):
            discard()
            return None
        return tenant

    async def forget_expired_tokens(self) -> int:
        """Delete what expired; return how many. Expired tokens are refused without it too."""
        return await self._store.delete_expired_tokens(self._now())

    async def _create_token(
        self, principal: Principal, description: str, lifetime: timedelta | None
    ) -> str:
        secret = new_secret()
        now = self._now()
        await self._store.add_token(
            principal,
            _hash(secret),
            description,
            created_at=now,
            expires_at=None if lifetime is None else now + lifetime,
        )
        return secret


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
