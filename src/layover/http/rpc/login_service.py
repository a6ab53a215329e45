"""depot.cli.v1beta1.LoginService: how a command line gets its user's token."""

from collections.abc import AsyncIterator
from typing import Any, TypeAlias

from connectrpc.request import RequestContext

from layover.audit.log import AuditLog
from layover.http.origin import origin
from layover.identity.logins import LoginService
from layover.identity.service import IdentityService
from layover.rpc.depot.cli.v1beta1 import login_connect
from layover.rpc.depot.cli.v1beta1 import login_pb as pb

Context: TypeAlias = RequestContext[Any, Any]


class LoginRpc(login_connect.LoginService):
    """Called without a token: of the services the only one."""

    def __init__(
        self, logins: LoginService, identity: IdentityService, audit: AuditLog, url: str
    ) -> None:
        """`url` is how browsers reach this server."""
        self._logins, self._identity, self._audit, self._url = logins, identity, audit, url

    async def start_login(
        self, request: pb.StartLoginRequest, ctx: Context
    ) -> pb.StartLoginResponse:
        started = await self._logins.start(origin())
        return pb.StartLoginResponse(
            id=started.id,
            approve_url=f"{self._url}/device?code={started.user_code}",
            user_code=started.user_code,
        )

    async def finish_login(
        self, request: pb.FinishLoginRequest, ctx: Context
    ) -> AsyncIterator[pb.FinishLoginResponse]:
        token = await self._logins.finish(request.id, origin())
        by = await self._identity.authenticate(token)
        await self._audit.record("login.device", by, origin(), subject=by.token_id)
        yield pb.FinishLoginResponse(token=token)
