"""Trust policies: which jobs and workloads elsewhere may act in a project, without a secret.

A policy names an issuer of ID tokens, the audience that a token has to be for, and what its claims
have to say. Where many strangers get tokens from one issuer (GitHub's, GitLab's, Buildkite's) the
claims alone tell one from another: so each provider has claims that a policy has to ask for, and
has to ask for so that no stranger's token matches.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from layover.identity.claim_patterns import claim_matches
from layover.identity.models import Grant, ManagementError
from layover.identity.oidc import IdToken


class InvalidTrustPolicy(ManagementError):
    """A trust policy that would trust nobody, or more than was meant; the message says why."""


class TrustPolicyUnknown(ManagementError):
    """The project has no trust policy with this ID."""

    def __init__(self, policy_id: str) -> None:
        super().__init__(f"unknown trust policy {policy_id[:100]!r}")
        self.policy_id = policy_id


class Provider(StrEnum):
    """Whose tokens a policy is about, which decides what its conditions are."""

    GITHUB = "github"
    GITLAB = "gitlab"
    CIRCLECI = "circleci"
    BUILDKITE = "buildkite"
    KUBERNETES = "kubernetes"
    GENERIC = "generic"


@dataclass(frozen=True, slots=True)
class TrustRule:
    """Which tokens are trusted, and for what."""

    provider: Provider
    issuer: str
    audience: str
    """Whom a token has to be for; the provider's default when empty, see `audiences`."""
    claims: Mapping[str, str] = field(hash=False)
    """Patterns by claims' names, as claim_patterns reads them: a token has to match all."""
    grants: Grant

    def audiences(self, server_url: str) -> frozenset[str]:
        """Whom a token may be for: one of these, exactly.

        By default the server, at its public URL. CircleCI gives every job a token for its
        organization, whose ID ends the issuer; that one is taken too.
        """
        if self.audience:
            return frozenset({self.audience})
        if self.provider is Provider.CIRCLECI:
            return frozenset({server_url, self.issuer.rstrip("/").rpartition("/")[2]})
        return frozenset({server_url})

    def trusts(self, token: IdToken, server_url: str) -> bool:
        """Whether a token that was verified is one of those that are meant."""
        return (
            token.issuer == self.issuer
            and not token.audiences.isdisjoint(self.audiences(server_url))
            and all(
                claim_matches(token.claims, name, pattern) for name, pattern in self.claims.items()
            )
        )


@dataclass(frozen=True, slots=True)
class TrustPolicy:
    """A project's rule, and where it comes from."""

    id: str
    project_id: str
    name: str
    rule: TrustRule
    created_at: datetime
    created_by: str | None
    """The ID of the user who made it."""
    created_by_name: str = ""
