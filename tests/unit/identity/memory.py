"""What trust rests on, in memory."""

from layover.identity.issuer_keys import IssuerUnavailable, VerificationKey, parse_keys
from layover.identity.trust import TrustPolicy
from tests.oidc_provider.keys import Keys


class MemoryTrustStore:
    """The TrustStore in memory; its projects are never deleted."""

    def __init__(self) -> None:
        self._policies: dict[str, TrustPolicy] = {}

    async def add_trust_policy(self, policy: TrustPolicy, limit: int) -> bool:
        if len(await self.list_trust_policies(policy.project_id)) >= limit:
            return False
        self._policies[policy.id] = policy
        return True

    async def list_trust_policies(self, project_id: str) -> list[TrustPolicy]:
        found = [each for each in self._policies.values() if each.project_id == project_id]
        return sorted(found, key=lambda policy: (policy.name, policy.id))

    async def trusts_issuer(self, issuer: str) -> bool:
        return bool(await self.find_trust_policies(issuer))

    async def find_trust_policies(self, issuer: str) -> list[TrustPolicy]:
        return [each for each in self._policies.values() if each.rule.issuer == issuer]

    async def delete_trust_policy(self, project_id: str, policy_id: str) -> bool:
        policy = self._policies.get(policy_id)
        if policy is None or policy.project_id != project_id:
            return False
        del self._policies[policy_id]
        return True


class MemoryIssuerKeys:
    """IssuerKeys of issuers that are there at once; `asked` says which were."""

    def __init__(self) -> None:
        self.issuers: dict[str, Keys] = {}
        self.asked: list[str] = []

    def add(self, issuer: str) -> Keys:
        """An issuer with keys of its own."""
        return self.issuers.setdefault(issuer, Keys())

    async def keys(self, issuer: str, key_id: str | None = None) -> tuple[VerificationKey, ...]:
        self.asked.append(issuer)
        if issuer not in self.issuers:
            raise IssuerUnavailable(issuer, "there is no such host")
        return parse_keys(self.issuers[issuer].published())
