"""Trust policies over the API."""

from collections.abc import Mapping

from pyqwest import Client as HTTPClient

from layover.client.address import Server
from layover.client.api import Client
from layover.client.errors import ClientError
from layover.rpc.layover.v1 import trust_pb
from layover.rpc.layover.v1.trust_connect import TrustServiceClient

# A server that is asked to trust an issuer asks that one for its keys.
_TIMEOUT_MS = 60_000


class TrustClient(Client):
    """A server's API, with the part that says whose ID tokens open a project."""

    def __init__(self, server: Server, *, env: Mapping[str, str] | None = None) -> None:
        super().__init__(server, env=env)
        self._trust = TrustServiceClient(server.url, http_client=HTTPClient(self._transport))

    async def create_trust_policy(
        self, request: trust_pb.CreateTrustPolicyRequest
    ) -> tuple[trust_pb.TrustPolicy, str]:
        """Make a policy; return it, and what keeps it from trusting anybody yet.

        Tried once: a second try could make a second one.
        """
        answer = await self._once(
            self._trust.create_trust_policy(request, headers=self._headers, timeout_ms=_TIMEOUT_MS)
        )
        if answer.policy is None:
            raise ClientError("the server answered without the policy")
        return answer.policy, answer.warning

    async def list_trust_policies(self, project_id: str) -> list[trust_pb.TrustPolicy]:
        """The project's policies, by name."""
        request = trust_pb.ListTrustPoliciesRequest(project_id=project_id)
        answer = await self._again(
            lambda: self._trust.list_trust_policies(
                request, headers=self._headers, timeout_ms=_TIMEOUT_MS
            )
        )
        return list(answer.policies)

    async def delete_trust_policy(self, project_id: str, policy_id: str) -> None:
        """Delete a policy; what was traded for by it ends at once."""
        request = trust_pb.DeleteTrustPolicyRequest(project_id=project_id, policy_id=policy_id)
        await self._once(
            self._trust.delete_trust_policy(request, headers=self._headers, timeout_ms=_TIMEOUT_MS)
        )
