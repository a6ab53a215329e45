"""Who calls the registry, and whether it may.

Two forms are taken: Basic with the user name `x-token` and a token as password, and Bearer with
a registry token from /token or with a token itself (distribution's "Token Authentication
Specification").
"""

import base64
from dataclasses import dataclass

from starlette.requests import Request

from layover.audit.log import AuditLog
from layover.audit.ports import Named
from layover.errors import LayoverError
from layover.http.auditing import Deed, record
from layover.http.oci.errors import InvalidRequest, ScopeInsufficient, UserNameRefused
from layover.http.origin import origin
from layover.identity.access import Action, may, only_build
from layover.identity.models import IdentityError, Principal, Project, Unauthenticated
from layover.identity.registry_tokens import CATALOG, RegistryTokens, Scope
from layover.identity.service import IdentityService
from layover.identity.throttle import LoginThrottle
from layover.oci.names import RepositoryName
from layover.registry.manifests import Audience

USER_NAME = "x-token"

# How a client asks for a registry token that reads the catalog.
CATALOG_SCOPE = "registry:catalog:*"

# The action that a scope names for what we call an action.
_SCOPE_ACTIONS = {Action.PULL: "pull", Action.PUSH: "push", Action.DELETE: "delete"}

# What the audit log calls what was not allowed.
_DENIED = {
    Action.PULL: "repositories.pull",
    Action.PUSH: "repositories.push",
    Action.DELETE: "repositories.delete",
}

# What a client is told to ask for: a push looks for what is there before it sends.
_CHALLENGES = {Action.PULL: "pull", Action.PUSH: "pull,push", Action.DELETE: "delete"}


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller and, with a registry token, the scopes it is narrowed to."""

    principal: Principal
    scopes: tuple[Scope, ...] | None

    def covers(self, repository: RepositoryName, action: Action) -> bool:
        """Whether the caller's registry token, if that is what it has, was got for this."""
        if self.scopes is None:
            return True
        return any(
            scope.kind == "repository"
            and scope.name == repository.value
            and _SCOPE_ACTIONS[action] in scope.actions
            for scope in self.scopes
        )


@dataclass(frozen=True, slots=True)
class Authorized:
    """An authorized caller, and the project that it acts in."""

    principal: Principal
    project: Project


@dataclass(frozen=True, slots=True)
class Reader:
    """An authorized reader: who it is, what it asks for, and the project that it reads from."""

    principal: Principal
    audience: Audience
    project: Project

    @property
    def of_build(self) -> str | None:
        """The build that it sees alone, if it does."""
        return only_build(self.principal)


class Authenticator:
    """Reads `Authorization` headers and asks identity what their callers may do."""

    def __init__(
        self,
        identity: IdentityService,
        tokens: RegistryTokens,
        throttle: LoginThrottle,
        audit: AuditLog,
        url: str,
    ) -> None:
        """`url` is how clients reach this server."""
        self._identity, self._tokens = identity, tokens
        self._throttle, self._audit = throttle, audit
        self._realm, self._service = f"{url}/token", url.partition("://")[2]

    async def caller(self, request: Request) -> Caller:
        """Raise Unauthenticated unless the request carries a valid token, TooManyAttempts when
        too many that it could have guessed were not."""
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        match scheme.lower():
            case "basic":
                return Caller(await self.holder(basic_secret(value)), None)
            case "bearer" if value.count(".") == 2:
                return await self._holder_of_registry_token(value.strip())
            case "bearer":
                return Caller(await self.holder(value.strip()), None)
            case _:
                raise Unauthenticated

    async def holder(self, secret: str) -> Principal:
        """Whose token it is. Raises as `caller` does."""
        try:
            return await self._identity.authenticate(secret)
        except Unauthenticated:
            await self._refuse(secret)
            raise

    async def _holder_of_registry_token(self, token: str) -> Caller:
        try:
            token_id, scopes = self._tokens.read(token)
        except Unauthenticated:
            # Clients learn from a refusal that theirs has expired, every five minutes of a push:
            # whoever has one that we signed does not guess.
            if not self._tokens.issued(token):
                await self._refuse(token)
            raise
        return Caller(await self._identity.principal_of(token_id), scopes)

    async def _refuse(self, secret: str) -> None:
        """Return when the refusal of a token that is not valid may be told."""
        if secret:
            await self._audit.login_refused("login.registry", origin(), token=secret)
        await self._throttle.failed(origin().address, secret)

    async def authorize(
        self,
        request: Request,
        repository: RepositoryName,
        action: Action,
        source: RepositoryName | None = None,
    ) -> Authorized:
        """The caller and the project, if it may do `action` in the repository.

        With the `source` of a mount, its registry token has to cover pulling from there as
        well; whether it may, `may_pull` tells.

        Raises Unauthenticated, ScopeInsufficient, ProjectUnknown, ActionDenied.
        """
        caller, project = await self._authorized(request, repository, action, source)
        return Authorized(caller.principal, project)

    async def reader(self, request: Request, repository: RepositoryName) -> Reader:
        """Who reads from the repository, if it may; raises as `authorize` does."""
        caller, project = await self._authorized(request, repository, Action.PULL)
        is_look = request.method == "HEAD"
        if caller.scopes is not None and caller.covers(repository, Action.PUSH):
            # A registry token is got for what its client is about to do.
            audience = Audience.PUSHER if is_look else Audience.WRITER
        elif caller.scopes is None and is_look:
            audience = Audience.WRITER
        else:
            audience = Audience.READER
        if not may(caller.principal, Action.PUSH, project):
            audience = Audience.READER
        return Reader(caller.principal, audience, project)

    async def reads_catalog(self, request: Request) -> tuple[list[Project], str | None]:
        """The projects whose repositories the caller may list, and the build that it sees alone.

        Raises Unauthenticated, ScopeInsufficient.
        """
        request.state.scope = CATALOG_SCOPE
        caller = await self.caller(request)
        if caller.scopes is not None and CATALOG not in caller.scopes:
            raise ScopeInsufficient("the catalog", "*")
        projects = await self._identity.list_projects(caller.principal)
        pulled = [project for project in projects if may(caller.principal, Action.PULL, project)]
        return pulled, only_build(caller.principal)

    async def _authorized(
        self,
        request: Request,
        repository: RepositoryName,
        action: Action,
        source: RepositoryName | None = None,
    ) -> tuple[Caller, Project]:
        # What a refused client is told to get a registry token for.
        request.state.scope = f"repository:{repository}:{_CHALLENGES[action]}"
        if source is not None:
            request.state.scope += f" repository:{source}:{_CHALLENGES[Action.PULL]}"
        caller = await self.caller(request)
        if not caller.covers(repository, action):
            raise ScopeInsufficient(repository.value, _SCOPE_ACTIONS[action])
        if source is not None and not caller.covers(source, Action.PULL):
            raise ScopeInsufficient(source.value, _SCOPE_ACTIONS[Action.PULL])
        return caller, await self._permitted(caller.principal, action, repository)

    async def may_pull(self, principal: Principal, repository: RepositoryName) -> bool:
        """Whether an authorized caller may also pull from `repository`, as a mount's source."""
        try:
            await self._permitted(principal, Action.PULL, repository)
        except IdentityError:
            return False
        return True

    async def _permitted(
        self, principal: Principal, action: Action, repository: RepositoryName
    ) -> Project:
        """The project. What identity denies is in the audit log when it raises that."""
        try:
            return await self._identity.authorize(principal, action, repository.project_id)
        except IdentityError as error:
            where = await self._audit.place_of(principal, Named.PROJECT, repository.project_id)
            deed = Deed(_DENIED[action], principal, where, str(repository))
            await record(self._audit, deed, error)
            raise

    def challenge(self, request: Request, error: LayoverError) -> dict[str, str]:
        """The WWW-Authenticate header that tells a client where to get a registry token.

        Empty when `error` is none that another token helps against.
        """
        if not isinstance(error, Unauthenticated | ScopeInsufficient | UserNameRefused):
            return {}
        parts = [f'Bearer realm="{self._realm}"', f'service="{self._service}"']
        if hasattr(request.state, "scope"):
            parts.append(f'scope="{request.state.scope}"')
        if isinstance(error, ScopeInsufficient):
            parts.append('error="insufficient_scope"')
        return {"WWW-Authenticate": ",".join(parts)}


def basic_secret(value: str) -> str:
    """The token in a Basic header's value.

    Raises Unauthenticated, UserNameRefused, InvalidRequest.
    """
    try:
        user, separator, secret = (
            base64.b64decode(value.strip(), validate=True).decode().partition(":")
        )
    except ValueError as error:
        raise InvalidRequest("malformed Basic credentials") from error
    check_user_name(user)
    if not separator or not secret:
        raise Unauthenticated
    return secret


def check_user_name(user: str) -> None:
    """Raise UserNameRefused unless it is the one user name that tokens go with."""
    if user != USER_NAME:
        raise UserNameRefused(USER_NAME)
