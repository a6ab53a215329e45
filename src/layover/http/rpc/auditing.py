"""The interceptor that tells the audit log of RPCs, by the table of audited_methods."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from enum import Enum
from typing import Any, TypeVar

from connectrpc.code import Code
from connectrpc.request import RequestContext
from protobuf import Message, Oneof
from protobuf.wkt import Duration

from layover.audit.log import AuditLog
from layover.audit.models import Result
from layover.audit.ports import Named
from layover.builds.errors import BuildGone
from layover.errors import LayoverError
from layover.http.auditing import reason_of
from layover.http.origin import origin
from layover.http.rpc.audited_methods import Method, Told, method_of
from layover.http.rpc.authentication import caller
from layover.http.rpc.errors import CONNECT_CODES
from layover.identity.models import Organization, Principal, Project, Unauthenticated

Request = TypeVar("Request")
Response = TypeVar("Response")
Place = Project | Organization | None
Context = RequestContext[Any, Any]

# What a request can say where it acts by: the narrowest first.
_PLACES: Mapping[str, Named] = {
    "build_id": Named.BUILD,
    "push_id": Named.PUSH,
    "token_id": Named.TOKEN,
    "project_id": Named.PROJECT,
    "organization_id": Named.ORGANIZATION,
}

_DENIALS = frozenset({Code.PERMISSION_DENIED, Code.NOT_FOUND, Code.UNAUTHENTICATED})

_MAX_ENTRIES = 10


class Auditing:
    """Records each call when it has ended and before its answer is sent."""

    def __init__(self, log: AuditLog) -> None:
        self._log = log

    async def intercept_unary(
        self,
        call_next: Callable[[Request, Context], Awaitable[Response]],
        request: Request,
        ctx: Context,
    ) -> Response:
        method, by = _method(ctx), _caller()
        if by is None or method.told is Told.BY_ITSELF:
            return await call_next(request, ctx)
        is_change = method.told is Told.CHANGES
        # Before: afterwards what the request names may not be there.
        where = await self._place(by, request) if is_change else None
        try:
            response = await call_next(request, ctx)
        except BaseException as error:
            await self._failed(method, by, where, request, error)
            raise
        if is_change:
            where = where or await self._made_in(by, method, response)
            await self._log.record(
                method.action,
                by,
                origin(),
                where=where,
                subject=_subject(method, response, request),
                details={**_details(method, request), **_results(method, response)},
            )
        return response

    async def intercept_client_stream(
        self,
        call_next: Callable[[AsyncIterator[Request], Context], Awaitable[Response]],
        request: AsyncIterator[Request],
        ctx: Context,
    ) -> Response:
        method, by = _method(ctx), _caller()
        try:
            response = await call_next(request, ctx)
        except BaseException as error:
            await self._failed(method, by, None, None, error)
            raise
        if by is not None and method.told is Told.CHANGES:
            await self._log.record(method.action, by, origin())
        return response

    async def intercept_server_stream(
        self,
        call_next: Callable[[Request, Context], AsyncIterator[Response]],
        request: Request,
        ctx: Context,
    ) -> AsyncIterator[Response]:
        method, by = _method(ctx), _caller()
        if by is not None and method.told is Told.CHANGES:
            # Its answer begins before it ends.
            where = await self._place(by, request)
            await self._log.record(
                method.action,
                by,
                origin(),
                where=where,
                subject=_subject(method, request),
                details=_details(method, request),
            )
        try:
            async for response in call_next(request, ctx):
                yield response
        except Exception as error:
            await self._failed(method, by, None, request, error)
            raise

    async def _failed(
        self,
        method: Method,
        by: Principal | None,
        where: Place,
        request: object,
        error: BaseException,
    ) -> None:
        """Record a call that was refused, or went wrong."""
        if by is None or method.told is Told.BY_ITSELF:
            return
        is_denied = _is_denial(error)
        if method.told is Told.DENIALS:
            if not is_denied:
                return
            where = await self._place(by, request)
        await self._log.record(
            method.action,
            by,
            origin(),
            where=where,
            subject=_subject(method, request),
            result=Result.DENIED if is_denied else Result.FAILED,
            details={**_details(method, request), "reason": reason_of(error)},
        )

    async def _place(self, by: Principal, request: object) -> Place:
        """Where the request acts, as far as it says so and its caller sees that."""
        for name, named in _PLACES.items():
            key = _field(request, name)
            if isinstance(key, str) and key:
                return await self._log.place_of(by, named, key)
        return None

    async def _made_in(self, by: Principal, method: Method, response: object) -> Place:
        """Where the answer says that it happened."""
        for path, named in (
            (method.project, Named.PROJECT),
            (method.organization, Named.ORGANIZATION),
        ):
            key = _field(response, path) if path else None
            if isinstance(key, str) and key:
                return await self._log.place_of(by, named, key)
        return None


def _caller() -> Principal | None:
    try:
        return caller()
    except Unauthenticated:
        return None


def _method(ctx: Context) -> Method:
    return method_of(ctx.method.service_name, ctx.method.name)


def _is_denial(error: BaseException) -> bool:
    """Whether the caller may not, or what it names is not there for it.

    What a build was is told to who may know: that it is gone is no denial.
    """
    if not isinstance(error, LayoverError) or isinstance(error, BuildGone):
        return False
    return CONNECT_CODES.get(type(error)) in _DENIALS


def _subject(method: Method, *messages: object) -> str:
    for message in messages:
        for path in method.subject:
            if text := _text(_field(message, path)):
                return text
    return ""


def _details(method: Method, request: object) -> dict[str, str]:
    return {name: _detail(request, name) for name in method.details}


def _results(method: Method, response: object) -> dict[str, str]:
    return {path.rpartition(".")[2]: _text(_field(response, path)) for path in method.results}


def _detail(request: object, name: str) -> str:
    value = _field(request, name)
    if value is False and isinstance(request, Message) and request.has_field(name):
        # Said, and not only left out.
        return "false"
    return _text(value)


def _field(message: object, path: str) -> object:
    """The field that `path` leads to; None where there is none, or it is not set."""
    for name in path.split("."):
        if not isinstance(message, Message):
            return None
        message = getattr(message, name, None)
    return message


def _text(value: object) -> str:
    """A field's value as an event tells it; empty where it is not set."""
    match value:
        case None | "" | False:
            return ""
        case True:
            return "true"
        case Oneof():
            inner = value.value
            return _text(inner) if isinstance(inner, int) else str(value.field)
        case Enum():
            return value.name.lower() if value.value else ""
        case Duration():
            return f"{value.seconds}s"
        case Mapping():
            entries = list(value.items())[:_MAX_ENTRIES]
            return ", ".join(f"{key}={each}" for key, each in entries)
        case list():
            return ", ".join(map(_text, value[:_MAX_ENTRIES]))
        case str() | int():
            return str(value)
        case _:
            return ""
