"""What identity needs of a database. Every method is one transaction."""

from datetime import datetime
from typing import Protocol

from layover.identity.models import Principal, Project, TokenKind


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

    async def create_first_tenant(
        self,
        organization_id: str,
        user_id: str,
        project_id: str,
        names: tuple[str, str, str],
        now: datetime,
    ) -> bool:
        """Create an organization, a user and a project with these `names`, in that order.

        Returns False, and creates nothing, when there is an organization already.
        """
        ...

    async def server_key(self, name: str, candidate: bytes) -> bytes:
        """The key that all replicas share under `name`; `candidate` becomes it when there is none."""
        ...
