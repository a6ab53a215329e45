"""Tokens over the API: who calls, which there are, and their end."""

from layover.client.api import CALL_TIMEOUT_MS, Client
from layover.rpc.layover.v1 import tokens_pb as pb


class TokensClient(Client):
    """A server's API, with the part that looks after tokens."""

    async def get_caller(self) -> pb.GetCallerResponse:
        """Who the token's holder is, and what it sees."""
        return await self._again(
            lambda: self._tokens.get_caller(
                pb.GetCallerRequest(), headers=self._headers, timeout_ms=CALL_TIMEOUT_MS
            )
        )

    async def list_tokens(
        self, *, organization_id: str = "", project_id: str = ""
    ) -> list[pb.Token]:
        """All of those of a project, or of an organization; without either, one's own.

        The newest first.
        """
        found: list[pb.Token] = []
        request = pb.ListTokensRequest(
            organization_id=organization_id, project_id=project_id, page_size=1000
        )
        while True:
            answer = await self._again(
                lambda: self._tokens.list_tokens(
                    request, headers=self._headers, timeout_ms=CALL_TIMEOUT_MS
                )
            )
            found.extend(answer.tokens)
            if not answer.next_page_token:
                return found
            request.page_token = answer.next_page_token

    async def revoke_token(self, token_id: str) -> int:
        """Revoke a token; return how many ended, with those that it made."""
        answer = await self._once(
            self._tokens.revoke_token(
                pb.RevokeTokenRequest(token_id=token_id),
                headers=self._headers,
                timeout_ms=CALL_TIMEOUT_MS,
            )
        )
        return answer.revoked_tokens
