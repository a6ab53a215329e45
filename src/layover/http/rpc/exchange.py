"""The part of layover.v1.TokensService that trades ID tokens."""

from typing import Any

from connectrpc.request import RequestContext

from layover.builds.life import BuildService
from layover.http.rpc.authentication import caller
from layover.http.rpc.convert import to_timestamp
from layover.identity.access import Action
from layover.identity.service import IdentityService
from layover.rpc.layover.v1 import tokens_connect
from layover.rpc.layover.v1 import tokens_pb as pb


class ExchangeRpc(tokens_connect.TokensService):
    """Trades the ID token that a call came with for a short-lived token of a project."""

    def __init__(self, identity: IdentityService, builds: BuildService) -> None:
        self._identity, self._builds = identity, builds

    async def exchange_token(
        self, request: pb.ExchangeTokenRequest, ctx: RequestContext[Any, Any]
    ) -> pb.ExchangeTokenResponse:
        project = await self._builds.project(
            caller(), Action.SEE_PROJECT, request.project_id or None
        )
        traded = await self._identity.trade(caller(), project, pull_only=request.pull_only)
        return pb.ExchangeTokenResponse(
            token=traded.secret,
            expires_at=to_timestamp(traded.expires_at),
            project_id=project.id,
        )
