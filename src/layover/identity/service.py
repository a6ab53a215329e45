"""Tokens and projects: who calls, and what that caller may touch."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from layover.identity.access import Action, check, role_check, sees
from layover.identity.ids import new_id, new_secret, secret_hash
from layover.identity.models import (
    ActionDenied,
    FirstTenant,
    Grant,
    NewToken,
    Organization,
    OrganizationUnknown,
    Principal,
    Project,
    ProjectPolicy,
    ProjectUnknown,
    TokenKind,
    TradedToken,
    Unauthenticated,
)
from layover.identity.names import checked_name
from layover.identity.ports import IdentityStore
from layover.identity.retention import check_policy

PULL_TOKEN_LIFETIME = timedelta(hours=1)

# A build cannot outlive its token; a client that vanished ends it long before.
BUILD_TOKEN_LIFETIME = timedelta(days=1)

# What a CI job or a pod traded its ID token for. One that takes longer trades again.
TRADED_LIFETIME = timedelta(hours=1)

# How long a revoked token can be told from one that never was, for whoever may know.
_REVOKED_KEPT = timedelta(days=1)


class IdentityService:
    """Authenticates callers, decides what they may do, and issues tokens."""

    def __init__(self, store: IdentityStore, now: Callable[[], datetime]) -> None:
        self._store = store
        self._now = now
        # When each token was used last, as far as the store has not been told.
        self._used: dict[str, datetime] = {}

    async def authenticate(self, secret: str) -> Principal:
        """Raise Unauthenticated unless `secret` is a valid token's."""
        return self._known(await self._store.find_principal(secret_hash(secret), self._now()))

    async def authenticate_ended(self, secret: str) -> Principal:
        """The build whose token this was until the build ended.

        For its client, which may not have heard that the server knows. Raises Unauthenticated.
        """
        principal = await self._store.find_ended_build(secret_hash(secret), self._now())
        if principal is None:
            raise Unauthenticated
        return principal

    async def principal_of(self, token_id: str) -> Principal:
        """The caller behind a registry token; raises Unauthenticated once its token is gone."""
        return self._known(await self._store.find_principal_by_id(token_id, self._now()))

    def _known(self, principal: Principal | None) -> Principal:
        if principal is None:
            raise Unauthenticated
        self._used[principal.token_id] = self._now()
        return principal

    async def authorize(self, principal: Principal, action: Action, project_id: str) -> Project:
        """The project, if the caller may do `action` in it.

        Raises ProjectUnknown, alike for a project that does not exist and one that the caller
        may not see; ActionDenied when it may see the project but not do this.
        """
        project = await self._store.find_project(project_id)
        if project is None:
            raise ProjectUnknown(project_id)
        check(principal, action, project)
        return project

    async def list_projects(self, principal: Principal) -> list[Project]:
        """The projects that the caller may see, by name."""
        match principal.kind:
            case TokenKind.USER:
                projects = await self._store.list_projects(principal.roles)
            case TokenKind.ORGANIZATION if principal.organization_id is not None:
                projects = await self._store.list_projects([principal.organization_id])
            case TokenKind.CI:
                projects = await self._find_projects(principal.grants)
            case _:
                projects = await self._find_projects([principal.project_id or ""])
        return [project for project in projects if sees(principal, project)]

    async def _find_projects(self, project_ids: Iterable[str]) -> list[Project]:
        found = [await self._store.find_project(project_id) for project_id in project_ids]
        return sorted(
            (project for project in found if project is not None),
            key=lambda project: (project.name, project.id),
        )

    async def change_policy(
        self,
        principal: Principal,
        project_id: str,
        change: Callable[[ProjectPolicy], ProjectPolicy],
        name: str | None = None,
    ) -> Project:
        """Replace the project's policy with what `change` makes of it; return the project.

        It holds for what is saved or pushed from now on: what is there keeps its time, also
        where that is beyond a new maximum. With a `name` the project is called that from now on.
        Raises ProjectUnknown, ActionDenied, InvalidRetention, InvalidName.
        """
        await self.authorize(principal, Action.UPDATE_PROJECT, project_id)
        if name is not None:
            name = checked_name(name, "a project's name")

        def checked(policy: ProjectPolicy) -> ProjectPolicy:
            policy = change(policy)
            check_policy(policy)
            return policy

        project = await self._store.change_policy(project_id, checked, name)
        if project is None:
            raise ProjectUnknown(project_id)
        return project

    async def narrowed(self, principal: Principal, organization_id: str) -> Principal:
        """The caller as far as that one organization goes.

        Raises OrganizationUnknown, alike for one that does not exist and for another one.
        """
        match principal.kind:
            case TokenKind.USER:
                role = principal.roles.get(organization_id)
                narrow = {organization_id: role} if role is not None else {}
                is_known, principal = role is not None, replace(principal, roles=narrow)
            case TokenKind.CI:
                projects = await self._find_projects(principal.grants)
                grants = {
                    project.id: principal.grants[project.id]
                    for project in projects
                    if project.organization_id == organization_id
                }
                is_known, principal = bool(grants), replace(principal, grants=grants)
            case _:
                is_known = principal.organization_id == organization_id
        if not is_known:
            raise OrganizationUnknown(organization_id)
        return principal

    async def create_build_token(
        self, creator: Principal, project: Project, build_id: str, tags: frozenset[str]
    ) -> str:
        """A token that drives one build and writes `tags`, each as NAME:TAG.

        It ends, and with it the build, when what its creator may do there ends.
        """
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
            creator,
            Action.CREATE_BUILD,
            project,
        )

    async def end_build_token(self, build_id: str) -> None:
        """The build ended: its token is worth nothing from now on."""
        await self._store.revoke_build_tokens(build_id, TokenKind.BUILD, self._now())

    async def end_pull_tokens(self, build_id: str) -> None:
        """The build is gone: what was to pull it is worth nothing from now on."""
        await self._store.revoke_build_tokens(build_id, TokenKind.PULL, self._now())

    async def create_pull_token(
        self,
        creator: Principal,
        project: Project,
        build_id: str | None = None,
        lifetime: timedelta = PULL_TOKEN_LIFETIME,
        until: datetime | None = None,
    ) -> str:
        """A token that pulls from the project and does nothing else, at most until `until`.

        What no user made ends with the token that made it.
        """
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
            creator,
            Action.CREATE_PULL_TOKEN,
            project,
        )

    async def trade(self, caller: Principal, project: Project, *, pull_only: bool) -> TradedToken:
        """A short-lived token of the project for the ID token that `caller` came with.

        It ends with the policy that trusts the ID token. Raises ActionDenied for another caller.
        """
        grant = caller.grants.get(project.id)
        if caller.kind is not TokenKind.CI or grant is None:
            raise ActionDenied("be traded: it is no ID token of a CI job or a pod")
        kind = TokenKind.PULL if pull_only or grant is Grant.PULL else TokenKind.PROJECT
        secret = await self._create_token(
            Principal(
                token_id=new_id(),
                kind=kind,
                organization_id=project.organization_id,
                project_id=project.id,
            ),
            caller.name,
            TRADED_LIFETIME,
            caller,
            Action.CREATE_PULL_TOKEN,
            project,
        )
        return TradedToken(secret, self._now() + TRADED_LIFETIME)

    async def issue(
        self,
        made: Principal,
        description: str,
        lifetime: timedelta | None,
        creator: Principal,
        action: Action,
        where: Project | Organization | None,
    ) -> tuple[str, str]:
        """Make a token bound as `made` is, which `creator` may as it may do `action`, there.

        Returns its ID and its secret. For whoever has authorized that; in the transaction it is
        asked again. Raises what `authorize` raises, Unauthenticated when the creator's own token
        ended meanwhile.
        """
        made = replace(made, token_id=new_id())
        secret = await self._create_token(made, description, lifetime, creator, action, where)
        return made.token_id, secret

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
        admin = Principal(token_id=new_id(), kind=TokenKind.USER, user_id=new_id())
        tenant = FirstTenant(
            organization_id=new_id(),
            project_id=new_id(),
            project_name="default",
            organization_name="default",
            user_name="admin",
            admin=admin,
            created_at=self._now(),
        )
        secret = new_secret()
        keep(secret)
        if not await self._store.create_first_tenant(tenant, secret_hash(secret)):
            discard()
            return None
        return tenant

    async def forget_expired_tokens(self) -> int:
        """Delete what is over; return how many. Such tokens are refused without it too."""
        now = self._now()
        return await self._store.delete_over_tokens(now, now - _REVOKED_KEPT)

    async def keep_used(self) -> None:
        """Tell the store when tokens were used: a job for now and then, and for the end."""
        used, self._used = self._used, {}
        if used:
            await self._store.mark_used(used)

    async def _create_token(
        self,
        principal: Principal,
        description: str,
        lifetime: timedelta | None,
        creator: Principal,
        action: Action,
        where: Project | Organization | None,
    ) -> str:
        secret = new_secret()
        now = self._now()
        is_foreign = creator.kind is TokenKind.CI
        if is_foreign and principal.kind is not TokenKind.BUILD:
            # No token made it, to end with: it lives no longer than what an ID token is traded for.
            lifetime = TRADED_LIFETIME if lifetime is None else min(lifetime, TRADED_LIFETIME)
        made_by_token = creator.user_id is None and not is_foreign
        await self._store.add_token(
            NewToken(
                principal,
                secret_hash(secret),
                description,
                created_at=now,
                expires_at=None if lifetime is None else now + lifetime,
                created_by=creator.user_id,
                parent_id=creator.token_id if made_by_token else None,
                trust_policy_id=(
                    creator.policies[principal.project_id or ""] if is_foreign else None
                ),
            ),
            role_check(creator, action, where),
        )
        return secret
