"""layover.v1.TokensService: who calls, and the tokens that it looks after."""

from typing import Any, TypeAlias

from connectrpc.request import RequestContext

from layover.builds.life import BuildService
from layover.builds.pulls import PullService
from layover.http.rpc.authentication import caller
from layover.http.rpc.convert import to_timestamp
from layover.http.rpc.identity_messages import (
    id_token_message,
    organization_message,
    to_lifetime,
    token_message,
)
from layover.identity.access import Action
from layover.identity.management import InvalidChange
from layover.identity.paging import encode_place
from layover.identity.service import IdentityService
from layover.identity.tokens import CreatedToken, TokenService
from layover.rpc.layover.v1 import tokens_connect
from layover.rpc.layover.v1 import tokens_pb as pb

Context: TypeAlias = RequestContext[Any, Any]

# What a request for a token of each kind may name.
_NAMED = {
    pb.TokenKind.USER: frozenset[str](),
    pb.TokenKind.ORGANIZATION: frozenset({"organization_id"}),
    pb.TokenKind.PROJECT: frozenset({"project_id"}),
    pb.TokenKind.PULL: frozenset({"project_id", "build_id"}),
}


class TokensRpc(tokens_connect.TokensService):
    """Parses each request, calls the services, shapes the response."""

    def __init__(
        self,
        tokens: TokenService,
        identity: IdentityService,
        builds: BuildService,
        pulls: PullService,
    ) -> None:
        self._tokens = tokens
        self._identity, self._builds, self._pulls = identity, builds, pulls

    async def get_caller(self, request: pb.GetCallerRequest, ctx: Context) -> pb.GetCallerResponse:
        principal = caller()
        token, organizations = await self._tokens.caller(principal)
        is_user = principal.user_id is not None
        return pb.GetCallerResponse(
            token=id_token_message(principal) if token is None else token_message(token),
            user_id=principal.user_id or "",
            user_name=principal.name if is_user else "",
            is_admin=principal.is_admin,
            organizations=[organization_message(each, principal) for each in organizations],
        )

    async def create_token(
        self, request: pb.CreateTokenRequest, ctx: Context
    ) -> pb.CreateTokenResponse:
        _check_named(request)
        created = await self._create(request)
        return pb.CreateTokenResponse(token=token_message(created.token), secret=created.secret)

    async def _create(self, request: pb.CreateTokenRequest) -> CreatedToken:
        lifetime = to_lifetime(request.lifetime)
        description = request.description
        match request.kind:
            case pb.TokenKind.USER:
                return await self._tokens.create_user_token(caller(), description, lifetime)
            case pb.TokenKind.ORGANIZATION:
                return await self._tokens.create_organization_token(
                    caller(), request.organization_id, description, lifetime
                )
            case pb.TokenKind.PROJECT:
                project = await self._builds.project(
                    caller(), Action.MANAGE_TOKENS, request.project_id
                )
                return await self._tokens.create_project_token(
                    caller(), project, description, lifetime
                )
            case _:
                project, until = await self._pulls.pullable(
                    caller(), request.project_id, request.build_id
                )
                return await self._tokens.create_pull_token(
                    caller(), project, request.build_id or None, until, description, lifetime
                )

    async def list_tokens(
        self, request: pb.ListTokensRequest, ctx: Context
    ) -> pb.ListTokensResponse:
        page = await self._tokens.list_tokens(
            caller(),
            request.organization_id,
            request.project_id,
            request.page_size,
            request.page_token,
        )
        return pb.ListTokensResponse(
            tokens=[token_message(token) for token in page.tokens],
            next_page_token="" if page.next_place is None else encode_place(page.next_place),
        )

    async def revoke_token(
        self, request: pb.RevokeTokenRequest, ctx: Context
    ) -> pb.RevokeTokenResponse:
        return pb.RevokeTokenResponse(
            revoked_tokens=await self._tokens.revoke(caller(), request.token_id)
        )

    async def exchange_token(
        self, request: pb.ExchangeTokenRequest, ctx: Context
    ) -> pb.ExchangeTokenResponse:
        # The call's bearer token is the ID token itself.
        project = await self._builds.project(
            caller(), Action.SEE_PROJECT, request.project_id or None
        )
        traded = await self._identity.trade(caller(), project, pull_only=request.pull_only)
        return pb.ExchangeTokenResponse(
            token=traded.secret,
            expires_at=to_timestamp(traded.expires_at),
            project_id=project.id,
        )


def _check_named(request: pb.CreateTokenRequest) -> None:
    """Raise InvalidChange for a kind that nobody makes, and for what does not go with it.

    A token that opened something else than its maker had in mind would be a surprise.
    """
    allowed = _NAMED.get(request.kind)
    if allowed is None:
        raise InvalidChange("a token is made of the kind user, organization, project or pull")
    for name in ("organization_id", "project_id", "build_id"):
        if getattr(request, name) and name not in allowed:
            kind = request.kind.name.lower()
            raise InvalidChange(f"{name} does not go with a token of the kind {kind}")
