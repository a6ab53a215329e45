"""Who calls: the bearer token of every RPC, read in this one place and before the body."""

from contextvars import ContextVar, Token
from typing import Any

from connectrpc.request import RequestContext

from layover.audit.log import AuditLog
from layover.http.origin import origin
from layover.http.rpc.errors import to_connect_error
from layover.identity.ids import TOKEN_PREFIX
from layover.identity.models import Principal, Unauthenticated
from layover.identity.oidc import looks_like_id_token
from layover.identity.service import IdentityService
from layover.identity.throttle import LoginThrottle, TooManyAttempts
from layover.identity.trust_service import TrustService

# Each request runs in a task, and so in a context, of its own.
_caller: ContextVar[Principal | None] = ContextVar("rpc_caller", default=None)

# Names the one organization that a caller of several means.
ORGANIZATION_HEADER = "x-depot-org"

# Methods that a token which is no longer valid may call; they see no caller then.
_OPEN_TO_DEAD_TOKENS = frozenset({"ReportBuildHealth"})

# What a build's client may say again after the server ended the build, and the token with it, by
# what it said the first time: the answer may have been lost.
_OPEN_TO_ENDED_BUILDS = frozenset({"FinishBuild"})


class Authentication:
    """The interceptor that refuses a call without a valid token before reading its message.

    A build's token dies with its build, but the client that still holds it has to be told to
    stop, and ReportBuildHealth is where clients listen. So that method, and no other, lets
    pass what looks like a token of ours, and answers "stop" to every one that is not valid:
    the answer says nothing about which builds or tokens there are. Nor is it a failed login,
    which a client that only asks as it was told to would be slowed down for.
    """

    def __init__(
        self,
        identity: IdentityService,
        throttle: LoginThrottle,
        trust: TrustService,
        audit: AuditLog,
    ) -> None:
        self.identity, self.throttle = identity, throttle
        self._trust, self.audit = trust, audit

    async def on_start(self, ctx: RequestContext[Any, Any]) -> Token[Principal | None]:
        secret = _bearer(ctx.request_headers.get("authorization", ""))
        principal: Principal | None = None
        try:
            principal = await self._authenticate(secret, ctx.method.name)
            if organization_id := ctx.request_headers.get(ORGANIZATION_HEADER, ""):
                principal = await self.identity.narrowed(principal, organization_id)
        except Unauthenticated as error:
            if ctx.method.name not in _OPEN_TO_DEAD_TOKENS or not secret.startswith(TOKEN_PREFIX):
                try:
                    await self._refuse(secret)
                except TooManyAttempts as slowed:
                    ctx.response_headers["retry-after"] = str(slowed.retry_after_seconds)
                    raise to_connect_error(slowed, ctx.method.name) from None
                raise to_connect_error(error, ctx.method.name) from None
        except Exception as error:
            raise to_connect_error(error, ctx.method.name) from error
        return _caller.set(principal)

    async def holder(self, authorization: str) -> Principal:
        """Who calls with this `Authorization` header, outside of the RPCs.

        Raises Unauthenticated once the refusal may be told, TooManyAttempts.
        """
        secret = _bearer(authorization)
        try:
            return await self._authenticate(secret)
        except Unauthenticated:
            await self._refuse(secret)
            raise

    async def _refuse(self, secret: str) -> None:
        """Return when the refusal of a token that is not valid may be told. Raises
        TooManyAttempts."""
        if secret:
            await self.audit.login_refused("login.token", origin(), token=secret)
        await self.throttle.failed(origin().address, secret)

    async def _authenticate(self, secret: str, method: str = "") -> Principal:
        if looks_like_id_token(secret):
            return await self._trust.authenticate(secret)
        try:
            return await self.identity.authenticate(secret)
        except Unauthenticated:
            if method not in _OPEN_TO_ENDED_BUILDS:
                raise
            return await self.identity.authenticate_ended(secret)

    async def on_end(
        self,
        token: Token[Principal | None],
        ctx: RequestContext[Any, Any],
        error: Exception | None,
        /,
    ) -> None:
        _caller.set(None)


def caller() -> Principal:
    """The caller of this RPC. Raises Unauthenticated when its token is no longer valid."""
    principal = _caller.get()
    if principal is None:
        raise Unauthenticated
    return principal


def _bearer(header: str) -> str:
    scheme, _, secret = header.partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""
