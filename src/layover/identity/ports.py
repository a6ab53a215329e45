"""What identity needs of a database. Every method is one transaction."""

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from layover.identity.models import FirstTenant, Principal, Project, ProjectPolicy, TokenKind


class IdentityStore(Protocol):
    """Organizations, users, projects and tokens."""

    async def find_principal(self, secret_hash: bytes, now: datetime) -> Principal | None:
        """The caller behind a token's hash, None when unknown or expired at `now`."""
        ...

    async def find_principal_by_id(self, token_id: str, now: datetime) -> Principal | None:
        """The caller behind a token's ID, None when unknown or expired at `now`."""
        ...

    async def add_token(
        self,
        principal: Principal,
        secret_hash: bytes,
        description: str,
        created_at: datetime,
        expires_at: datetime | None,
    ) -> None:
        """Keep a new token; `principal` carries its ID, kind and bindings."""
        ...

    async def revoke_build_tokens(self, build_id: str, kind: TokenKind) -> None:
        """Forget every token of `kind` that is bound to the build."""
        ...

    async def delete_expired_tokens(self, now: datetime) -> int:
        """Forget the tokens that expired before `now`; return how many."""
        ...

    async def find_project(self, project_id: str) -> Project | None: ...

    async def list_projects(self, organization_id: str) -> list[Project]:
        """The organization's projects, by name."""
        ...

    async def change_policy(
        self, project_id: str, change: Callable[[ProjectPolicy], ProjectPolicy]
    ) -> Project | None:
        """Replace the project's policy with what `change` makes of it; return the project.

        None when there is no such project. `change` may be called again, and may raise.
        """
        ...

    async def has_organization(self) -> bool:
        """Whether there is any organization yet."""
        ...

    async def create_first_tenant(self, tenant: FirstTenant, secret_hash: bytes) -> bool:
        """Create an organization, its admin, a project and the admin's token, all or nothing.

        False, and nothing, when there is an organization already.
        """
        ...

    async def server_key(self, name: str, candidate: bytes) -> bytes:
        """The key that all replicas share under `name`; `candidate` where there was none."""
        ...
