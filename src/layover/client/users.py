"""Users over the API: their logins, and their own password."""

import platform
from collections.abc import Mapping
from importlib.metadata import version

from connectrpc.code import Code
from connectrpc.errors import ConnectError
from pyqwest import Client as HTTPClient

from layover.client.address import Server
from layover.client.api import CALL_TIMEOUT_MS, Client
from layover.rpc.depot.cli.v1beta1 import login_pb
from layover.rpc.depot.cli.v1beta1.login_connect import LoginServiceClient
from layover.rpc.layover.v1 import users_pb
from layover.rpc.layover.v1.users_connect import UsersServiceClient


class UsersClient(Client):
    """A server's API, with the part by which users get tokens."""

    def __init__(self, server: Server, *, env: Mapping[str, str] | None = None) -> None:
        super().__init__(server, env=env)
        http = HTTPClient(self._transport)
        self._logins = LoginServiceClient(server.url, http_client=http)
        self._users = UsersServiceClient(server.url, http_client=http)

    async def start_login(self) -> login_pb.StartLoginResponse:
        """Let a user be asked to log this client in. Tried once: it takes one of few places."""
        return await self._once(
            self._logins.start_login(
                login_pb.StartLoginRequest(),
                # What the user reads on the page, to know it again.
                headers={"user-agent": user_agent()},
                timeout_ms=CALL_TIMEOUT_MS,
            )
        )

    async def finish_login(self, login_id: str) -> str:
        """Wait for the token of a login that was started; repeat it when the server is away."""
        request = login_pb.FinishLoginRequest(id=login_id)

        async def first() -> str:
            async for answer in self._logins.finish_login(request):
                return answer.token
            raise ConnectError(Code.UNAVAILABLE, "the answer broke off")

        return await self._once(first())

    async def set_password(self, password: str) -> users_pb.SetPasswordResponse:
        """Replace the password of the token's user."""
        return await self._once(
            self._users.set_password(
                users_pb.SetPasswordRequest(password=password),
                headers=self._headers,
                timeout_ms=CALL_TIMEOUT_MS,
            )
        )


def user_agent() -> str:
    """What this client calls itself: its release, and the machine that it runs on."""
    return f"layover/{version('layover')} ({platform.node() or 'unknown'}; {platform.system()})"
