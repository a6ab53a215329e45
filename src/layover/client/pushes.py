"""Pushes to other registries over the API."""

from collections.abc import Mapping, Sequence
from functools import partial

from pyqwest import Client as HTTPClient

from layover.client.address import Server
from layover.client.api import CALL_TIMEOUT_MS, Client
from layover.client.errors import ClientError
from layover.rpc.layover.v1 import pushes_pb as pb
from layover.rpc.layover.v1.pushes_connect import PushesServiceClient


def has_ended(push: pb.Push) -> bool:
    """Whether the push is done, failed or canceled, and stays so."""
    return push.status in (pb.PushStatus.DONE, pb.PushStatus.FAILED, pb.PushStatus.CANCELED)


class PushesClient(Client):
    """A server's API, with the part that pushes saved builds to other registries."""

    def __init__(self, server: Server, *, env: Mapping[str, str] | None = None) -> None:
        super().__init__(server, env=env)
        self._pushes = PushesServiceClient(server.url, http_client=HTTPClient(self._transport))

    async def create_push(self, request: pb.CreatePushRequest) -> pb.Push:
        """Queue a push. Tried once: a second try could queue a second one."""
        answer = await self._once(
            self._pushes.create_push(request, headers=self._headers, timeout_ms=CALL_TIMEOUT_MS)
        )
        return _push(answer.push)

    async def get_push(self, push_id: str) -> pb.Push:
        """A push as it stands, its transfers included."""
        request = pb.GetPushRequest(push_id=push_id)
        answer = await self._again(
            lambda: self._pushes.get_push(
                request, headers=self._headers, timeout_ms=CALL_TIMEOUT_MS
            )
        )
        return _push(answer.push)

    async def list_pushes(self, project_id: str, limit: int) -> list[pb.Push]:
        """A project's newest pushes, newest first, `limit` at most, without transfers."""
        found: list[pb.Push] = []
        page_token = ""
        while len(found) < limit:
            request = pb.ListPushesRequest(
                project_id=project_id,
                page_size=min(limit - len(found), 1000),
                page_token=page_token,
            )
            answer = await self._again(
                partial(
                    self._pushes.list_pushes,
                    request,
                    headers=self._headers,
                    timeout_ms=CALL_TIMEOUT_MS,
                )
            )
            found.extend(answer.pushes)
            page_token = answer.next_page_token
            if not page_token:
                break
        return found[:limit]

    async def cancel_push(self, push_id: str) -> pb.Push:
        """Ask a push to stop; return it as it stands. Of one that has ended nothing changes."""
        request = pb.CancelPushRequest(push_id=push_id)
        answer = await self._again(
            lambda: self._pushes.cancel_push(
                request, headers=self._headers, timeout_ms=CALL_TIMEOUT_MS
            )
        )
        return _push(answer.push)

    async def authorize_push(
        self, push_id: str, authorizations: Sequence[pb.PlaceAuthorization]
    ) -> None:
        """Give a push what to show its registries from now on. Repeating it is harmless.

        Raises RequestRefused for one that has ended.
        """
        request = pb.AuthorizePushRequest(push_id=push_id, authorizations=list(authorizations))
        await self._again(
            lambda: self._pushes.authorize_push(
                request, headers=self._headers, timeout_ms=CALL_TIMEOUT_MS
            )
        )


def _push(push: pb.Push | None) -> pb.Push:
    if push is None:
        raise ClientError("the server answered without the push")
    return push
