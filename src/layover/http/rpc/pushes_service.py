"""layover.v1.PushesService: pushes from the server to other registries.

A request's message holds secrets: nothing of it is logged, and no error quotes one.
"""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from connectrpc.request import RequestContext
from protobuf import Oneof

from layover.http.rpc.authentication import caller
from layover.http.rpc.convert import to_datetime, to_timestamp
from layover.promotion.authorizing import basic, bearer
from layover.promotion.models import (
    Authorization,
    InvalidPush,
    Push,
    PushStatus,
    Transfer,
    TransferState,
)
from layover.promotion.service import MAX_DESTINATIONS, PushService
from layover.rpc.layover.v1 import pushes_connect
from layover.rpc.layover.v1 import pushes_pb as pb

Context: TypeAlias = RequestContext[Any, Any]

# As many secrets as a push has destinations, and what is around them.
MAX_PUSH_MESSAGE_BYTES = 2 * 1024 * 1024

_STATUSES: Mapping[PushStatus, pb.PushStatus] = {
    PushStatus.QUEUED: pb.PushStatus.QUEUED,
    PushStatus.RUNNING: pb.PushStatus.RUNNING,
    PushStatus.DONE: pb.PushStatus.DONE,
    PushStatus.FAILED: pb.PushStatus.FAILED,
    PushStatus.CANCELED: pb.PushStatus.CANCELED,
}
_STATES: Mapping[TransferState, pb.TransferState] = {
    TransferState.WAITING: pb.TransferState.WAITING,
    TransferState.SENDING: pb.TransferState.SENDING,
    TransferState.EXISTS: pb.TransferState.EXISTS,
    TransferState.MOUNTED: pb.TransferState.MOUNTED,
    TransferState.SENT: pb.TransferState.SENT,
}


class PushesRpc(pushes_connect.PushesService):
    """Parses each request, calls the service, shapes the response."""

    def __init__(self, pushes: PushService) -> None:
        self._pushes = pushes

    async def create_push(
        self, request: pb.CreatePushRequest, ctx: Context
    ) -> pb.CreatePushResponse:
        push = await self._pushes.create(
            caller(),
            request.build_id,
            request.target,
            request.destinations,
            request.platforms,
            with_referrers=request.with_referrers,
            authorizations=_given(request.authorizations),
        )
        return pb.CreatePushResponse(push=_push(push))

    async def get_push(self, request: pb.GetPushRequest, ctx: Context) -> pb.GetPushResponse:
        push = await self._pushes.find(caller(), request.push_id)
        return pb.GetPushResponse(push=_push(push))

    async def list_pushes(
        self, request: pb.ListPushesRequest, ctx: Context
    ) -> pb.ListPushesResponse:
        pushes, next_token = await self._pushes.list_page(
            caller(), request.project_id or None, request.page_size, request.page_token
        )
        return pb.ListPushesResponse(
            pushes=[_push(push, with_transfers=False) for push in pushes],
            next_page_token=next_token,
        )

    async def cancel_push(
        self, request: pb.CancelPushRequest, ctx: Context
    ) -> pb.CancelPushResponse:
        push = await self._pushes.cancel(caller(), request.push_id)
        return pb.CancelPushResponse(push=_push(push))

    async def authorize_push(
        self, request: pb.AuthorizePushRequest, ctx: Context
    ) -> pb.AuthorizePushResponse:
        push = await self._pushes.authorize(
            caller(), request.push_id, _given(request.authorizations)
        )
        return pb.AuthorizePushResponse(push=_push(push))


def _given(messages: Iterable[pb.PlaceAuthorization]) -> list[tuple[str, Authorization]]:
    """Raises InvalidPush."""
    found: list[tuple[str, Authorization]] = []
    for message in messages:
        if len(found) == MAX_DESTINATIONS:
            raise InvalidPush(f"authorizations for more than {MAX_DESTINATIONS} repositories")
        found.append((message.place, _authorization(message)))
    return found


def _authorization(message: pb.PlaceAuthorization) -> Authorization:
    match message.authorization:
        case Oneof(value=pb.BearerToken() as token):
            return bearer(token.token, to_datetime(token.expires_at))
        case Oneof(value=pb.BasicCredentials() as credentials):
            return basic(credentials.username, credentials.password)
        case _:
            raise InvalidPush(
                f"the authorization for {message.place[:300]!r} has neither a token nor credentials"
            )


def _push(push: Push, *, with_transfers: bool = True) -> pb.Push:
    return pb.Push(
        id=push.id,
        status=_STATUSES[push.status],
        project_id=push.project_id,
        build_id=push.build_id,
        target=push.target,
        destinations=[str(destination) for destination in push.destinations],
        platforms=list(push.platforms),
        with_referrers=push.with_referrers,
        created_at=to_timestamp(push.created_at),
        started_at=to_timestamp(push.started_at),
        finished_at=to_timestamp(push.finished_at),
        created_by=push.created_by,
        error=push.error or "",
        digest=str(push.digest or ""),
        transfers=[_transfer(each) for each in push.transfers] if with_transfers else [],
        waits_for=[str(place) for place in push.waits_for],
        size_bytes=sum(each.size_bytes for each in push.transfers),
        sent_bytes=sum(each.sent_bytes for each in push.transfers),
    )


def _transfer(transfer: Transfer) -> pb.Transfer:
    return pb.Transfer(
        place=str(transfer.place),
        digest=str(transfer.digest),
        size_bytes=transfer.size_bytes,
        sent_bytes=transfer.sent_bytes,
        state=_STATES[transfer.state],
    )
