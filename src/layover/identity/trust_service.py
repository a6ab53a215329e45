"""Whose ID tokens are callers here, and who says so."""

from collections.abc import Callable, Mapping
from datetime import datetime

from layover.identity.access import Action
from layover.identity.ids import new_id
from layover.identity.issuer_keys import IssuerKeys, IssuerUnavailable
from layover.identity.models import Grant, Principal, TokenKind, Unauthenticated
from layover.identity.oidc import IdToken, IdTokens, unverified_issuer
from layover.identity.ports import TrustStore
from layover.identity.service import IdentityService
from layover.identity.trust import InvalidTrustPolicy, TrustPolicy, TrustPolicyUnknown
from layover.identity.trust_providers import trust_rule

# Each token of a shared issuer is compared with all that name it.
MAX_POLICIES = 100

_LONGEST_NAME = 100
_LONGEST_SUBJECT = 200


class TrustService:
    """Keeps trust policies, and authenticates the ID tokens that they trust."""

    def __init__(
        self,
        store: TrustStore,
        identity: IdentityService,
        keys: IssuerKeys,
        now: Callable[[], datetime],
        server_url: str,
    ) -> None:
        """`server_url` is whom tokens are for, unless a policy says otherwise."""
        self._store, self._identity, self._keys = store, identity, keys
        self._tokens = IdTokens(keys, now)
        self._now, self._server_url = now, server_url

    async def authenticate(self, token: str) -> Principal:
        """The caller behind an ID token, with what each project's policies grant it.

        Raises Unauthenticated, alike whether nobody trusts the issuer, the token is not valid, or
        no policy means it.
        """
        # Only an issuer that somebody trusts is asked for its keys, and only what it signed is
        # compared with policies, of which a shared issuer may have many.
        issuer = unverified_issuer(token)
        if not await self._store.trusts_issuer(issuer):
            raise Unauthenticated
        verified = await self._tokens.verify(token, issuer, None)
        trusted = [
            policy
            for policy in await self._store.find_trust_policies(issuer)
            # Compares the audience, too: each policy has its own.
            if policy.rule.trusts(verified, self._server_url)
        ]
        if not trusted:
            raise Unauthenticated
        return _principal(verified, trusted)

    async def create_policy(
        self,
        principal: Principal,
        project_id: str,
        name: str,
        provider: str,
        conditions: Mapping[str, str],
        *,
        claims: Mapping[str, str],
        issuer: str,
        audience: str,
        grants: Grant,
    ) -> TrustPolicy:
        """Trust from now on the tokens that `trust_rule` describes, in the project.

        Raises ProjectUnknown, ActionDenied, InvalidTrustPolicy.
        """
        project = await self._identity.authorize(principal, Action.MANAGE_TRUST, project_id)
        name = name.strip()
        if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
            raise InvalidTrustPolicy(f"a policy's name has 1 to {_LONGEST_NAME} characters")
        policy = TrustPolicy(
            id=new_id(),
            project_id=project.id,
            name=name,
            rule=trust_rule(
                provider,
                conditions,
                claims=claims,
                issuer=issuer,
                audience=audience,
                grants=grants,
            ),
            created_at=self._now(),
            created_by=principal.user_id,
            created_by_name=principal.name,
        )
        if not await self._store.add_trust_policy(policy, MAX_POLICIES):
            raise InvalidTrustPolicy(
                f"a project has {MAX_POLICIES} trust policies at most: delete one first"
            )
        return policy

    async def problem(self, policy: TrustPolicy) -> str:
        """What keeps the policy from trusting anybody at this moment; nothing if all is well."""
        try:
            await self._keys.keys(policy.rule.issuer)
        except IssuerUnavailable as error:
            return str(error)
        return ""

    async def list_policies(self, principal: Principal, project_id: str) -> list[TrustPolicy]:
        """The project's policies, by name. Raises ProjectUnknown, ActionDenied."""
        project = await self._identity.authorize(principal, Action.MANAGE_TRUST, project_id)
        return await self._store.list_trust_policies(project.id)

    async def delete_policy(self, principal: Principal, project_id: str, policy_id: str) -> None:
        """Trust those tokens no more; what they were traded for ends at once.

        Raises ProjectUnknown, ActionDenied, TrustPolicyUnknown.
        """
        project = await self._identity.authorize(principal, Action.MANAGE_TRUST, project_id)
        if not await self._store.delete_trust_policy(project.id, policy_id):
            raise TrustPolicyUnknown(policy_id)


def _principal(token: IdToken, trusted: list[TrustPolicy]) -> Principal:
    grants: dict[str, Grant] = {}
    policies: dict[str, str] = {}
    for policy in trusted:
        # Of several policies of a project the one that gives more.
        if grants.get(policy.project_id) is not Grant.PROJECT:
            grants[policy.project_id] = policy.rule.grants
            policies[policy.project_id] = policy.id
    subject = "".join(character if character.isprintable() else "?" for character in token.subject)
    return Principal(
        # It has none of ours; what it was trusted by is what a log can look up.
        token_id=trusted[0].id,
        kind=TokenKind.CI,
        name=f"{trusted[0].rule.provider} {subject[:_LONGEST_SUBJECT]}",
        grants=grants,
        policies=policies,
    )
