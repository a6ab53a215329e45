"""How errors are told over Connect: one code each, and "internal error" for what is a bug.

The codes are Connect's own ("Connect Protocol Reference", error codes).
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

import structlog
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from connectrpc.request import RequestContext

from layover.audit.models import InvalidAuditQuery
from layover.builds.errors import (
    BuildEnded,
    BuildersUnavailable,
    BuilderUnhealthy,
    BuildGone,
    BuildNotEnded,
    BuildNotSaved,
    BuildStillRunning,
    BuildUnknown,
    BuildUnsuccessful,
    CacheShared,
    EngineUnsupported,
    InvalidBuildRequest,
    InvalidPageToken,
    NoBuilderConfigured,
    ProjectNotGiven,
)
from layover.errors import LayoverError, StorageFull, StorageUnavailable
from layover.identity.issuer_keys import IssuerUnavailable
from layover.identity.management import (
    AlreadyMember,
    InvalidChange,
    InvalidLifetime,
    InvalidPlace,
    InvitationUnknown,
    LastOwner,
    MemberUnknown,
    OrganizationNotEmpty,
    OrganizationNotGiven,
    TokenUnknown,
    TooMany,
)
from layover.identity.models import (
    ActionDenied,
    OrganizationUnknown,
    ProjectUnknown,
    Unauthenticated,
)
from layover.identity.names import InvalidName
from layover.identity.retention import InvalidRetention
from layover.identity.sign_in_models import (
    InvalidPassword,
    InvalidUserName,
    LoginDenied,
    LoginUnknown,
    PasswordNotAllowed,
    ProviderRefused,
    SignInRefused,
    TooManyLogins,
    UserNameTaken,
)
from layover.identity.throttle import TooManyAttempts
from layover.identity.trust import InvalidTrustPolicy, TrustPolicyUnknown
from layover.oci.names import InvalidTag
from layover.oci.references import InvalidDestination
from layover.promotion.models import (
    InvalidPush,
    PushEnded,
    PushUnknown,
    RegistryForbidden,
    RegistryRefused,
    RegistryUnauthorized,
    RegistryUnavailable,
    SourceGone,
    TooManyBlobs,
    TooManyPushes,
)
from layover.redaction import redact
from layover.retention.models import BuildNotOver, ReceiptPending

Request = TypeVar("Request")
Response = TypeVar("Response")

CONNECT_CODES: Mapping[type[LayoverError], Code] = {
    ActionDenied: Code.PERMISSION_DENIED,
    AlreadyMember: Code.ALREADY_EXISTS,
    BuildEnded: Code.FAILED_PRECONDITION,
    BuildGone: Code.NOT_FOUND,
    BuildNotEnded: Code.FAILED_PRECONDITION,
    BuildNotOver: Code.FAILED_PRECONDITION,
    BuildNotSaved: Code.FAILED_PRECONDITION,
    BuildStillRunning: Code.FAILED_PRECONDITION,
    BuildUnknown: Code.NOT_FOUND,
    BuildUnsuccessful: Code.FAILED_PRECONDITION,
    BuilderUnhealthy: Code.UNAVAILABLE,
    BuildersUnavailable: Code.UNAVAILABLE,
    CacheShared: Code.UNIMPLEMENTED,
    EngineUnsupported: Code.UNIMPLEMENTED,
    InvalidAuditQuery: Code.INVALID_ARGUMENT,
    InvalidBuildRequest: Code.INVALID_ARGUMENT,
    InvalidChange: Code.INVALID_ARGUMENT,
    InvalidDestination: Code.INVALID_ARGUMENT,
    InvalidLifetime: Code.INVALID_ARGUMENT,
    InvalidName: Code.INVALID_ARGUMENT,
    InvalidPageToken: Code.INVALID_ARGUMENT,
    InvalidPlace: Code.INVALID_ARGUMENT,
    InvalidPush: Code.INVALID_ARGUMENT,
    InvalidRetention: Code.INVALID_ARGUMENT,
    InvalidTag: Code.INVALID_ARGUMENT,
    InvalidTrustPolicy: Code.INVALID_ARGUMENT,
    InvitationUnknown: Code.NOT_FOUND,
    IssuerUnavailable: Code.UNAVAILABLE,
    LastOwner: Code.FAILED_PRECONDITION,
    MemberUnknown: Code.NOT_FOUND,
    NoBuilderConfigured: Code.FAILED_PRECONDITION,
    OrganizationNotEmpty: Code.FAILED_PRECONDITION,
    OrganizationNotGiven: Code.INVALID_ARGUMENT,
    OrganizationUnknown: Code.NOT_FOUND,
    ProjectNotGiven: Code.INVALID_ARGUMENT,
    ProjectUnknown: Code.NOT_FOUND,
    PushEnded: Code.FAILED_PRECONDITION,
    PushUnknown: Code.NOT_FOUND,
    ReceiptPending: Code.FAILED_PRECONDITION,
    RegistryForbidden: Code.FAILED_PRECONDITION,
    RegistryRefused: Code.FAILED_PRECONDITION,
    # Of another registry: the caller's own token is as good as before.
    RegistryUnauthorized: Code.FAILED_PRECONDITION,
    RegistryUnavailable: Code.UNAVAILABLE,
    SourceGone: Code.FAILED_PRECONDITION,
    StorageFull: Code.RESOURCE_EXHAUSTED,
    StorageUnavailable: Code.UNAVAILABLE,
    TokenUnknown: Code.NOT_FOUND,
    TooMany: Code.RESOURCE_EXHAUSTED,
    TooManyAttempts: Code.RESOURCE_EXHAUSTED,
    TooManyBlobs: Code.UNAVAILABLE,
    TooManyPushes: Code.RESOURCE_EXHAUSTED,
    TrustPolicyUnknown: Code.NOT_FOUND,
    InvalidPassword: Code.INVALID_ARGUMENT,
    InvalidUserName: Code.INVALID_ARGUMENT,
    LoginDenied: Code.PERMISSION_DENIED,
    LoginUnknown: Code.NOT_FOUND,
    PasswordNotAllowed: Code.FAILED_PRECONDITION,
    ProviderRefused: Code.PERMISSION_DENIED,
    SignInRefused: Code.UNAUTHENTICATED,
    TooManyLogins: Code.RESOURCE_EXHAUSTED,
    UserNameTaken: Code.ALREADY_EXISTS,
    Unauthenticated: Code.UNAUTHENTICATED,
}

_log = structlog.get_logger(__name__)


def to_connect_error(error: Exception, method: str) -> ConnectError:
    """What a client is told of `error`; whatever the table does not know is logged as a bug."""
    if isinstance(error, ConnectError):
        return error
    code = CONNECT_CODES.get(type(error)) if isinstance(error, LayoverError) else None
    if code is not None:
        return ConnectError(code, redact(str(error)))
    _log.error("rpc_failed", method=method, exc_info=error)
    return ConnectError(Code.INTERNAL, "internal error")


class ErrorTranslation:
    """The interceptor that turns what a service raises into Connect's errors."""

    async def intercept_unary(
        self,
        call_next: Callable[[Request, RequestContext[Any, Any]], Awaitable[Response]],
        request: Request,
        ctx: RequestContext[Any, Any],
    ) -> Response:
        try:
            return await call_next(request, ctx)
        except Exception as error:
            raise to_connect_error(error, ctx.method.name) from error

    async def intercept_client_stream(
        self,
        call_next: Callable[
            [AsyncIterator[Request], RequestContext[Any, Any]], Awaitable[Response]
        ],
        request: AsyncIterator[Request],
        ctx: RequestContext[Any, Any],
    ) -> Response:
        try:
            return await call_next(request, ctx)
        except Exception as error:
            raise to_connect_error(error, ctx.method.name) from error

    async def intercept_server_stream(
        self,
        call_next: Callable[[Request, RequestContext[Any, Any]], AsyncIterator[Response]],
        request: Request,
        ctx: RequestContext[Any, Any],
    ) -> AsyncIterator[Response]:
        try:
            async for response in call_next(request, ctx):
                yield response
        except Exception as error:
            raise to_connect_error(error, ctx.method.name) from error
