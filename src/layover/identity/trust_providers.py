"""What the conditions of each CI system mean, and which of them a policy needs.

A condition is what a person knows (`repository`, `branch`); it becomes a claim of that system's
tokens with a pattern. The claims are those that the systems document for their ID tokens.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from layover.identity.claim_patterns import (
    ANY,
    MAX_NAME_LENGTH,
    MAX_PATTERN_LENGTH,
    is_anything,
)
from layover.identity.models import Grant
from layover.identity.trust import InvalidTrustPolicy, Provider, TrustRule

GITHUB_ISSUER = "https://token.actions.githubusercontent.com"
GITLAB_ISSUER = "https://gitlab.com"
CIRCLECI_ISSUER = "https://oidc.circleci.com/org/"
BUILDKITE_ISSUER = "https://agent.buildkite.com"

# Anybody gets tokens from these: only with the claims of that system do they tell who has one.
_SHARED_ISSUERS = {
    GITHUB_ISSUER: Provider.GITHUB,
    GITLAB_ISSUER: Provider.GITLAB,
    CIRCLECI_ISSUER: Provider.CIRCLECI,
    BUILDKITE_ISSUER: Provider.BUILDKITE,
}

MAX_CLAIMS = 20
MAX_ISSUER_LENGTH = 512
MAX_AUDIENCE_LENGTH = 512

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
# RFC 1123, as Kubernetes has it for the names of namespaces and service accounts.
_KUBERNETES_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII)


def _anything(value: str) -> str | None:
    return None


def _something(value: str) -> str | None:
    return "matches everything: name what it has to be" if is_anything(value) else None


def _exact(value: str) -> str | None:
    return "has to be named whole, without *" if ANY in value else None


def _owned_path(value: str) -> str | None:
    owner, separator, rest = value.partition("/")
    if not separator or not owner or not rest or rest.endswith("/"):
        return "has to be OWNER/NAME"
    if ANY in owner:
        return "has to name its owner whole: anybody can have a name that * stands for"
    return None


def _repository(value: str) -> str | None:
    if value.count("/") > 1:
        return "has to be OWNER/NAME"
    return _owned_path(value)


def _workflow_file(value: str) -> str | None:
    return "has to be a file's name, such as build.yml" if "/" in value else None


def _workflow_reference(value: str) -> str | None:
    if "/.github/workflows/" not in value or "@" not in value:
        return "has to be OWNER/REPOSITORY/.github/workflows/FILE@REF"
    return _owned_path(value)


@dataclass(frozen=True, slots=True)
class Condition:
    """What a person may say of a job, and the claim that it is."""

    claim: str
    form: str = "{value}"
    """The claim's pattern; `{value}` is what was said."""
    problem: Callable[[str], str | None] = _anything
    """What is wrong with what was said, None if nothing is."""
    is_required: bool = False


CONDITIONS: Mapping[Provider, Mapping[str, Condition]] = {
    Provider.GITHUB: {
        "repository": Condition("repository", problem=_repository, is_required=True),
        "branch": Condition("ref", "refs/heads/{value}"),
        "tag": Condition("ref", "refs/tags/{value}"),
        "ref": Condition("ref"),
        "environment": Condition("environment"),
        # Of the repository itself; that of another one, which a job calls, has the next.
        "workflow": Condition(
            "workflow_ref", "{repository}/.github/workflows/{value}@*", problem=_workflow_file
        ),
        "reusable-workflow": Condition("job_workflow_ref", problem=_workflow_reference),
        "event": Condition("event_name"),
        # Names can be given up and taken by another; these numbers stay.
        "repository-id": Condition("repository_id", problem=_exact),
        "owner-id": Condition("repository_owner_id", problem=_exact),
    },
    Provider.GITLAB: {
        "project": Condition("project_path", problem=_owned_path, is_required=True),
        "ref": Condition("ref"),
        "ref-type": Condition("ref_type", problem=_exact),
        "ref-protected": Condition("ref_protected", problem=_exact),
        "environment": Condition("environment"),
        "project-id": Condition("project_id", problem=_exact),
    },
    Provider.CIRCLECI: {
        "project": Condition("oidc.circleci.com/project-id", problem=_something, is_required=True),
        "branch": Condition("oidc.circleci.com/vcs-ref", "refs/heads/{value}"),
        "tag": Condition("oidc.circleci.com/vcs-ref", "refs/tags/{value}"),
        "origin": Condition("oidc.circleci.com/vcs-origin"),
        "context": Condition("oidc.circleci.com/context-ids"),
    },
    Provider.BUILDKITE: {
        "organization": Condition("organization_slug", problem=_exact, is_required=True),
        "pipeline": Condition("pipeline_slug", is_required=True),
        "branch": Condition("build_branch"),
        "tag": Condition("build_tag"),
        "step": Condition("step_key"),
        "source": Condition("build_source"),
    },
    # Of a service account's token both stand in `sub`.
    Provider.KUBERNETES: {
        "namespace": Condition("sub"),
        "service-account": Condition("sub"),
    },
    Provider.GENERIC: {},
}

# What says which issuer is meant, and is no claim.
CIRCLECI_ORGANIZATION = "organization"


def trust_rule(
    provider: str,
    conditions: Mapping[str, str],
    *,
    claims: Mapping[str, str] | None = None,
    issuer: str = "",
    audience: str = "",
    grants: str = Grant.PROJECT,
) -> TrustRule:
    """The rule that somebody asks for.

    `conditions` are the provider's own, by CONDITIONS; `claims` are patterns by claims' names, and
    go beside them. An empty issuer is the provider's own. Raises InvalidTrustPolicy.
    """
    known = _provider(provider)
    said = {name: value.strip() for name, value in conditions.items()}
    issuer = _issuer(known, issuer.strip(), said)
    patterns = _claims_of(known, said)
    for name, pattern in (claims or {}).items():
        _add(patterns, name.strip(), pattern, f"claim {name!r}")
    _check_claims(known, patterns)
    if len(audience) > MAX_AUDIENCE_LENGTH:
        raise InvalidTrustPolicy(f"an audience has {MAX_AUDIENCE_LENGTH} characters at most")
    return TrustRule(known, issuer, audience.strip(), patterns, _grants(grants))


def _provider(text: str) -> Provider:
    try:
        return Provider(text)
    except ValueError:
        raise InvalidTrustPolicy(
            f"unknown provider {text[:100]!r}: there are {', '.join(Provider)}"
        ) from None


def _grants(text: str) -> Grant:
    try:
        return Grant(text)
    except ValueError:
        raise InvalidTrustPolicy(
            f"a policy grants {' or '.join(Grant)}, not {text[:100]!r}"
        ) from None


def _issuer(provider: Provider, issuer: str, said: dict[str, str]) -> str:
    organization = said.pop(CIRCLECI_ORGANIZATION, "") if provider is Provider.CIRCLECI else ""
    if not issuer:
        match provider:
            case Provider.GITHUB:
                issuer = GITHUB_ISSUER
            case Provider.GITLAB:
                issuer = GITLAB_ISSUER
            case Provider.BUILDKITE:
                issuer = BUILDKITE_ISSUER
            case Provider.CIRCLECI:
                if _UUID.fullmatch(organization) is None:
                    raise InvalidTrustPolicy(
                        "circleci needs organization=ID, the organization's ID (a UUID, under"
                        " Organization Settings)"
                    )
                issuer = f"{CIRCLECI_ISSUER}{organization}"
            case _:
                raise InvalidTrustPolicy(f"{provider} needs the issuer of its tokens")
    elif organization and issuer.rpartition("/")[2] != organization:
        raise InvalidTrustPolicy("the issuer is another organization's than the one that is named")
    parse_issuer(issuer)
    for shared, owner in _SHARED_ISSUERS.items():
        if f"{issuer}/".startswith(f"{shared.rstrip('/')}/") and provider is not owner:
            raise InvalidTrustPolicy(
                f"everybody gets tokens from {issuer}: use the provider {owner}, which asks for"
                " what tells them apart"
            )
    return issuer


def parse_issuer(text: str) -> str:
    """The issuer, if it is a URL as issuers have (OpenID Connect Core 1.0, section 2).

    It is compared with what tokens say as it is, so nothing of it is changed. Raises
    InvalidTrustPolicy.
    """
    try:
        parts = urlsplit(text)
        has_port = parts.port is None or parts.port > 0
    except ValueError:
        raise InvalidTrustPolicy("the issuer is no URL") from None
    if (
        parts.scheme not in ("https", "http")
        or not parts.hostname
        or not has_port
        or "@" in parts.netloc
        or "?" in text
        or "#" in text
        or not text.isascii()
        or not text.isprintable()
        or " " in text
        or len(text) > MAX_ISSUER_LENGTH
    ):
        raise InvalidTrustPolicy(
            "an issuer is a URL such as https://gitlab.example.com, without user, query and"
            f" fragment, of {MAX_ISSUER_LENGTH} characters at most"
        )
    return text


def _claims_of(provider: Provider, said: Mapping[str, str]) -> dict[str, str]:
    known = CONDITIONS[provider]
    for name in said:
        if name not in known:
            there_are = ", ".join(known) or "none: use claims"
            raise InvalidTrustPolicy(
                f"unknown condition {name[:100]!r} of {provider}: there are {there_are}"
            )
    if provider is Provider.KUBERNETES:
        return {"sub": _service_account(said)}
    patterns: dict[str, str] = {}
    for name, condition in known.items():
        value = said.get(name, "")
        if not value:
            if condition.is_required or name in said:
                raise InvalidTrustPolicy(f"{provider} needs {name}=...")
            continue
        problem = condition.problem(value)
        if problem is not None:
            raise InvalidTrustPolicy(f"{name} {problem}")
        pattern = condition.form.format(value=value, repository=said.get("repository", ""))
        _add(patterns, condition.claim, pattern, name)
    return patterns


def _service_account(said: Mapping[str, str]) -> str:
    names = []
    for name in ("namespace", "service-account"):
        value = said.get(name, "")
        # Any account of a namespace may be meant; a namespace is somebody's.
        if value == ANY and name == "service-account":
            names.append(value)
        elif _KUBERNETES_NAME.fullmatch(value) is None:
            raise InvalidTrustPolicy(f"kubernetes needs {name}=NAME, as the cluster names it")
        else:
            names.append(value)
    return f"system:serviceaccount:{names[0]}:{names[1]}"


def _add(patterns: dict[str, str], claim: str, pattern: str, what: str) -> None:
    if claim in patterns:
        raise InvalidTrustPolicy(f"{what} is about the claim {claim}, which is given already")
    if not 0 < len(claim) <= MAX_NAME_LENGTH or not claim.isprintable():
        raise InvalidTrustPolicy(f"a claim's name has 1 to {MAX_NAME_LENGTH} characters")
    if not 0 < len(pattern) <= MAX_PATTERN_LENGTH or not pattern.isprintable():
        raise InvalidTrustPolicy(f"{what} has to have 1 to {MAX_PATTERN_LENGTH} characters")
    patterns[claim] = pattern


def _check_claims(provider: Provider, patterns: Mapping[str, str]) -> None:
    if len(patterns) > MAX_CLAIMS:
        raise InvalidTrustPolicy(f"a policy asks for {MAX_CLAIMS} claims at most")
    if all(is_anything(pattern) for pattern in patterns.values()):
        raise InvalidTrustPolicy(
            f"{provider} needs a claim that says who is meant: without one everybody with a token"
            " of this issuer would be trusted"
        )
