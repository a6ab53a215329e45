"""What identity needs of a database. Every method is one transaction."""

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Protocol

from layover.identity.models import (
    FirstTenant,
    NewToken,
    Principal,
    Project,
    ProjectPolicy,
    Role,
    TokenKind,
)
from layover.identity.trust import TrustPolicy


class IdentityStore(Protocol):
    """Who calls, and the projects that there are: what every request asks."""

    async def find_principal(self, secret_hash: bytes, now: datetime) -> Principal | None:
        """The caller behind a token's hash, None when unknown, revoked or expired at `now`.

        A user's roles are those of this moment.
        """
        ...

    async def find_principal_by_id(self, token_id: str, now: datetime) -> Principal | None:
        """The caller behind a token's ID, as `find_principal`."""
        ...

    async def find_ended_build(self, secret_hash: bytes, now: datetime) -> Principal | None:
        """The build behind a token that was revoked, as a build's is when the build ends."""
        ...

    async def add_token(
        self, token: NewToken, check_role: Callable[[Role | None], None] | None = None
    ) -> None:
        """Keep a token, unless what it would rest on has ended.

        Where a user made it for an organization, `check_role` gets the role that the user has
        there now, and raises where that is not enough. One that another token made ends with that
        one, but for a build's, which ends with it only when it is revoked. Raises Unauthenticated
        when that token is over, or the trust policy that it is by is gone; ProjectUnknown or
        OrganizationUnknown when what the token is for was deleted.
        """
        ...

    async def revoke_build_tokens(self, build_id: str, kind: TokenKind, now: datetime) -> None:
        """Revoke every token of `kind` that is bound to the build, and what those made."""
        ...

    async def mark_used(self, used: Mapping[str, datetime]) -> None:
        """Keep when each token, by its ID, was used last."""
        ...

    async def delete_over_tokens(self, expired_by: datetime, revoked_by: datetime) -> int:
        """Forget the tokens that expired or were revoked by then; return how many.

        One that made tokens of builds that run still stays as long as they do.
        """
        ...

    async def find_project(self, project_id: str) -> Project | None:
        """The project, None when it never was or was deleted."""
        ...

    async def list_projects(self, organization_ids: Collection[str]) -> list[Project]:
        """The organizations' projects, by name."""
        ...

    async def change_policy(
        self,
        project_id: str,
        change: Callable[[ProjectPolicy], ProjectPolicy],
        name: str | None = None,
    ) -> Project | None:
        """Replace the project's policy with what `change` makes of it, and its name with `name`
        where there is one; return the project.

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


class TrustStore(Protocol):
    """The trust policies of projects."""

    async def add_trust_policy(self, policy: TrustPolicy, limit: int) -> bool:
        """Keep a policy; False, and nothing, where the project has `limit` of them already."""
        ...

    async def list_trust_policies(self, project_id: str) -> list[TrustPolicy]:
        """The project's policies, by name."""
        ...

    async def trusts_issuer(self, issuer: str) -> bool:
        """Whether `find_trust_policies` would find any; costs little, however many there are."""
        ...

    async def find_trust_policies(self, issuer: str) -> list[TrustPolicy]:
        """Every policy that names exactly this issuer, of projects that are not deleted."""
        ...

    async def delete_trust_policy(self, project_id: str, policy_id: str) -> bool:
        """Forget a policy and the tokens that were traded for by it; False if there is none."""
        ...
