"""layover.v1.UsersService: what users change of themselves."""

from typing import Any, TypeAlias

from connectrpc.request import RequestContext

from layover.http.rpc.authentication import caller
from layover.identity.sign_in import SignInService
from layover.rpc.layover.v1 import users_connect
from layover.rpc.layover.v1 import users_pb as pb

Context: TypeAlias = RequestContext[Any, Any]


class UsersRpc(users_connect.UsersService):
    """Each for itself."""

    def __init__(self, sign_in: SignInService, url: str) -> None:
        """`url` is how browsers reach this server."""
        self._sign_in, self._url = sign_in, url

    async def set_password(
        self, request: pb.SetPasswordRequest, ctx: Context
    ) -> pb.SetPasswordResponse:
        user = await self._sign_in.set_password(caller(), request.password)
        return pb.SetPasswordResponse(user_name=user.name, sign_in_url=f"{self._url}/signin")
