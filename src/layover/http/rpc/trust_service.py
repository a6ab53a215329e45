"""layover.v1.TrustService: whose ID tokens open a project."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from connectrpc.request import RequestContext

from layover.builds.life import BuildService
from layover.http.rpc.authentication import caller
from layover.http.rpc.convert import to_timestamp
from layover.identity.access import Action
from layover.identity.models import Grant
from layover.identity.trust import TrustPolicy
from layover.identity.trust_service import TrustService
from layover.rpc.layover.v1 import trust_connect
from layover.rpc.layover.v1 import trust_pb as pb

Context: TypeAlias = RequestContext[Any, Any]

_GRANTS: Mapping[pb.Grant, Grant] = {
    pb.Grant.UNSPECIFIED: Grant.PROJECT,
    pb.Grant.PROJECT: Grant.PROJECT,
    pb.Grant.PULL: Grant.PULL,
}
_TOLD_GRANTS: Mapping[Grant, pb.Grant] = {
    Grant.PROJECT: pb.Grant.PROJECT,
    Grant.PULL: pb.Grant.PULL,
}


class TrustRpc(trust_connect.TrustService):
    """Makes, lists and deletes trust policies."""

    def __init__(self, trust: TrustService, builds: BuildService) -> None:
        self._trust, self._builds = trust, builds

    async def create_trust_policy(
        self, request: pb.CreateTrustPolicyRequest, ctx: Context
    ) -> pb.CreateTrustPolicyResponse:
        policy = await self._trust.create_policy(
            caller(),
            await self._project_id(request.project_id),
            request.name,
            request.provider,
            dict(request.conditions),
            claims=dict(request.claims),
            issuer=request.issuer,
            audience=request.audience,
            # What a newer client may ask for gives the least.
            grants=_GRANTS.get(request.grants, Grant.PULL),
        )
        return pb.CreateTrustPolicyResponse(
            policy=_policy(policy), warning=await self._trust.problem(policy)
        )

    async def list_trust_policies(
        self, request: pb.ListTrustPoliciesRequest, ctx: Context
    ) -> pb.ListTrustPoliciesResponse:
        policies = await self._trust.list_policies(
            caller(), await self._project_id(request.project_id)
        )
        return pb.ListTrustPoliciesResponse(policies=[_policy(policy) for policy in policies])

    async def delete_trust_policy(
        self, request: pb.DeleteTrustPolicyRequest, ctx: Context
    ) -> pb.DeleteTrustPolicyResponse:
        await self._trust.delete_policy(
            caller(), await self._project_id(request.project_id), request.policy_id
        )
        return pb.DeleteTrustPolicyResponse()

    async def _project_id(self, project_id: str) -> str:
        project = await self._builds.project(caller(), Action.MANAGE_TRUST, project_id or None)
        return project.id


def _policy(policy: TrustPolicy) -> pb.TrustPolicy:
    rule = policy.rule
    return pb.TrustPolicy(
        id=policy.id,
        project_id=policy.project_id,
        name=policy.name,
        provider=rule.provider,
        issuer=rule.issuer,
        audience=rule.audience,
        claims=dict(rule.claims),
        grants=_TOLD_GRANTS[rule.grants],
        created_by=policy.created_by_name,
        created_at=to_timestamp(policy.created_at),
    )
