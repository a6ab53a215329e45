"""What identity needs of a database. Every method is one transaction."""

from collections.abc import Callable, Collection, Mapping, Sequence
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
from layover.identity.sign_in_models import (
    LoginRequest,
    LoginState,
    Session,
    User,
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


class SignInStore(Protocol):
    """Users, and the browsers that they are signed in with."""

    async def find_user(self, user_id: str) -> User | None: ...

    async def find_user_by_name(self, name: str) -> User | None:
        """The local user of this name: none who signs in with a provider."""
        ...

    async def add_user(self, user: User, now: datetime) -> None:
        """Keep a new user. Raises UserNameTaken."""
        ...

    async def ensure_oidc_user(
        self, user: User, subject: str, names: Callable[[int], str], now: datetime
    ) -> tuple[User, bool]:
        """The user of this issuer and subject, made of `user` where there is none yet.

        It gets the first of `names(0)`, `names(1)`, ... that nobody has. Says whether it is new.
        """
        ...

    async def set_password(self, user_id: str, password_hash: str) -> None:
        """Replace the user's password; every browser that the user is signed in with is out."""
        ...

    async def renew_password_hash(self, user_id: str, old: str, new: str) -> None:
        """Store the same password otherwise, if it is still that one; nobody is signed out."""
        ...

    async def add_session(
        self, secret_hash: bytes, user: User, now: datetime, expires_at: datetime
    ) -> bool:
        """Sign a browser in, unless the user's password is another one by now: then False."""
        ...

    async def find_session(self, secret_hash: bytes, now: datetime) -> Session | None:
        """The session, None when unknown, ended or over at `now`."""
        ...

    async def delete_session(self, secret_hash: bytes) -> None: ...

    async def delete_over_sessions(self, now: datetime) -> int:
        """Forget those that are over; return how many."""
        ...


class LoginStore(Protocol):
    """Command lines that wait to be approved."""

    async def add(
        self, id_hash: bytes, request: LoginRequest, admit: Callable[[Sequence[str]], None]
    ) -> bool:
        """Let a command line wait; False when another one has its code.

        `admit` gets the addresses of those that wait already, and may raise. Those that were over
        when the request was made are forgotten.
        """
        ...

    async def find_pending(self, user_code: str, now: datetime) -> LoginRequest | None:
        """The login that waits under the code; none that is decided or over."""
        ...

    async def decide(self, user_code: str, user_id: str, now: datetime, *, approve: bool) -> bool:
        """Approve or deny it as this user; False when nothing waits under the code."""
        ...

    async def state(self, id_hash: bytes, now: datetime) -> tuple[LoginState, str | None] | None:
        """What became of it, and of an approved one the user's ID; None for none, or one over."""
        ...

    async def redeem(self, id_hash: bytes, token: NewToken, now: datetime) -> bool:
        """Turn an approved login into its user's token; False when somebody did already."""
        ...

    async def delete_over(self, now: datetime) -> int:
        """Forget those that are over; return how many."""
        ...
