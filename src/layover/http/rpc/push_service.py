"""depot.cli.v1.PushService: what the public client says of a push that it drives by itself."""

from typing import Any, TypeAlias

from connectrpc.request import RequestContext

from layover.http.rpc.authentication import caller
from layover.promotion.driven import DrivenPushService
from layover.rpc.depot.cli.v1 import push_connect
from layover.rpc.depot.cli.v1 import push_pb as pb

Context: TypeAlias = RequestContext[Any, Any]


class PushRpc(push_connect.PushService):
    """Begins and ends such pushes."""

    def __init__(self, pushes: DrivenPushService) -> None:
        self._pushes = pushes

    async def start_push(self, request: pb.StartPushRequest, ctx: Context) -> pb.StartPushResponse:
        push_id = await self._pushes.start(caller(), request.build_id, request.tag)
        return pb.StartPushResponse(push_id=push_id)

    async def finish_push(
        self, request: pb.FinishPushRequest, ctx: Context
    ) -> pb.FinishPushResponse:
        error = request.error if request.has_field("error") else None
        await self._pushes.finish(caller(), request.push_id, request.build_id, error)
        return pb.FinishPushResponse()
