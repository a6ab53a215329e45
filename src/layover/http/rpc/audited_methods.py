"""What the audit log is told of each RPC: every method of every service has a row here."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto


class Told(Enum):
    """Of which calls of a method the audit log is told."""

    CHANGES = auto()
    """Of all."""
    DENIALS = auto()
    """It only reads, or is what a build's client says every few seconds: of those alone that
    the caller may not make."""
    BY_ITSELF = auto()
    """The method tells itself: who calls shows only while it is at work."""


@dataclass(frozen=True, slots=True)
class Method:
    """What an event of the method says.

    Fields are looked for in the response and then in the request; `token.id` is the field `id` of
    the field `token`.
    """

    action: str
    told: Told = Told.DENIALS
    subject: tuple[str, ...] = ()
    """What it was done to: the first of these that is there."""
    project: str = ""
    """Of the response: the project that it was done in, where the request leaves that open."""
    organization: str = ""
    details: tuple[str, ...] = ()
    """Of the request; no secrets."""
    results: tuple[str, ...] = ()
    """Of the response, named by the last of their names; no secrets."""


def _change(
    action: str,
    *subject: str,
    project: str = "",
    organization: str = "",
    details: tuple[str, ...] = (),
    results: tuple[str, ...] = (),
) -> Method:
    return Method(action, Told.CHANGES, subject, project, organization, details, results)


_BUILD = "depot.cli.v1.BuildService"
_DEPOT_PUSH = "depot.cli.v1.PushService"
_LOGIN = "depot.cli.v1beta1.LoginService"
_DEPOT_ORGANIZATIONS = "depot.core.v1.OrganizationService"
_DEPOT_PROJECTS = "depot.cli.v1beta1.ProjectsService"
_AUDIT = "layover.v1.AuditService"
_BUILDS = "layover.v1.BuildsService"
_ORGANIZATIONS = "layover.v1.OrganizationsService"
_PROJECTS = "layover.v1.ProjectsService"
_PUSHES = "layover.v1.PushesService"
_TOKENS = "layover.v1.TokensService"
_TRUST = "layover.v1.TrustService"
_USERS = "layover.v1.UsersService"

_OF_PUSH = ("push.build_id", "push.destinations")
_POLICY = ("name", "retention", "max_retention", "extends_on_pull")

METHODS: Mapping[str, Method] = {
    f"{_BUILD}/CreateBuild": _change("builds.create", "build_id", project="project_id"),
    f"{_BUILD}/GetBuild": Method("builds.get", subject=("build_id",)),
    f"{_BUILD}/FinishBuild": _change("builds.finish", "build_id", details=("result",)),
    f"{_BUILD}/GetBuildKitConnection": Method("builds.connect", subject=("build_id",)),
    f"{_BUILD}/ReportBuildHealth": Method("builds.report", subject=("build_id",)),
    f"{_BUILD}/ReportTimings": Method("builds.report", subject=("build_id",)),
    f"{_BUILD}/ReportStatus": Method("builds.report", subject=("build_id",)),
    f"{_BUILD}/ReportStatusStream": Method("builds.report"),
    f"{_BUILD}/ReportBuildContext": Method("builds.report", subject=("build_id",)),
    f"{_BUILD}/ListBuilds": Method("builds.list", subject=("project_id",)),
    # Both make a pull token.
    f"{_BUILD}/GetPullInfo": _change("tokens.create_pull", "build_id"),
    f"{_BUILD}/GetPullToken": _change("tokens.create_pull", "build_id", "project_id"),
    # Nobody is known to call; what comes of it is told by FinishLogin.
    f"{_LOGIN}/StartLogin": Method("login.device", Told.BY_ITSELF),
    f"{_LOGIN}/FinishLogin": Method("login.device", Told.BY_ITSELF),
    # Its client pushes by itself, and says only when it begins and how it ended.
    f"{_DEPOT_PUSH}/StartPush": _change("pushes.start", "build_id", details=("tag",)),
    f"{_DEPOT_PUSH}/FinishPush": _change("pushes.finish", "build_id", details=("error",)),
    f"{_DEPOT_PROJECTS}/ListProjects": Method("projects.list"),
    f"{_DEPOT_PROJECTS}/ResetProjectCache": _change("builders.reset_cache", "project_id"),
    f"{_DEPOT_ORGANIZATIONS}/ListOrganizations": Method("organizations.list"),
    f"{_AUDIT}/ListAuditEvents": Method("audit.list", subject=("project_id", "organization_id")),
    f"{_BUILDS}/ListBuilds": Method("builds.list", subject=("project_id",)),
    f"{_BUILDS}/GetBuild": Method("builds.get", subject=("build_id",)),
    f"{_BUILDS}/GetBuildLog": Method("builds.get_log", subject=("build_id",)),
    f"{_BUILDS}/KeepBuild": _change("builds.keep", "build_id", details=("retention",)),
    f"{_BUILDS}/DeleteBuild": _change("builds.delete", "build_id"),
    f"{_BUILDS}/GetReceipt": Method("builds.get_receipt", subject=("build_id",)),
    f"{_BUILDS}/GetReceiptKey": Method("builds.get_receipt_key"),
    f"{_ORGANIZATIONS}/ListOrganizations": Method("organizations.list"),
    f"{_ORGANIZATIONS}/CreateOrganization": _change(
        "organizations.create", "organization.id", organization="organization.id", details=("name",)
    ),
    f"{_ORGANIZATIONS}/UpdateOrganization": _change(
        "organizations.update", "organization_id", details=("name",)
    ),
    f"{_ORGANIZATIONS}/DeleteOrganization": _change("organizations.delete", "organization_id"),
    f"{_ORGANIZATIONS}/ListMembers": Method("members.list", subject=("organization_id",)),
    f"{_ORGANIZATIONS}/InviteMember": _change(
        "invitations.create", "invitation.id", details=("role", "note", "lifetime")
    ),
    f"{_ORGANIZATIONS}/ListInvitations": Method("invitations.list", subject=("organization_id",)),
    f"{_ORGANIZATIONS}/DeleteInvitation": _change("invitations.delete", "invitation_id"),
    f"{_ORGANIZATIONS}/UpdateMember": _change("members.update", "user_id", details=("role",)),
    f"{_ORGANIZATIONS}/RemoveMember": _change("members.remove", "user_id"),
    f"{_PROJECTS}/ListProjects": Method("projects.list"),
    f"{_PROJECTS}/GetProject": Method("projects.get", subject=("project_id",)),
    f"{_PROJECTS}/CreateProject": _change(
        "projects.create", "project.id", project="project.id", details=(*_POLICY, "quota_bytes")
    ),
    f"{_PROJECTS}/UpdateProject": _change(
        "projects.update",
        "project.id",
        "project_id",
        project="project.id",
        details=(*_POLICY, "quota"),
    ),
    f"{_PROJECTS}/DeleteProject": _change("projects.delete", "project_id"),
    f"{_PUSHES}/CreatePush": _change(
        "pushes.create",
        "push.id",
        "build_id",
        project="push.project_id",
        details=("target", "destinations", "platforms", "with_referrers"),
        results=_OF_PUSH,
    ),
    f"{_PUSHES}/GetPush": Method("pushes.get", subject=("push_id",)),
    f"{_PUSHES}/ListPushes": Method("pushes.list", subject=("project_id",)),
    f"{_PUSHES}/CancelPush": _change(
        "pushes.cancel", "push_id", project="push.project_id", results=_OF_PUSH
    ),
    f"{_PUSHES}/AuthorizePush": _change(
        "pushes.authorize", "push_id", project="push.project_id", results=_OF_PUSH
    ),
    f"{_TOKENS}/GetCaller": Method("tokens.get_caller"),
    f"{_TOKENS}/CreateToken": _change(
        "tokens.create",
        "token.id",
        project="token.project_id",
        organization="token.organization_id",
        details=("kind", "description", "build_id", "lifetime"),
    ),
    f"{_TOKENS}/ListTokens": Method("tokens.list", subject=("project_id", "organization_id")),
    f"{_TOKENS}/RevokeToken": _change("tokens.revoke", "token_id"),
    f"{_TOKENS}/ExchangeToken": _change(
        "tokens.exchange", "project_id", project="project_id", details=("pull_only",)
    ),
    f"{_TRUST}/CreateTrustPolicy": _change(
        "trust.create",
        "policy.id",
        project="policy.project_id",
        details=("name", "provider", "issuer", "audience", "conditions", "claims", "grants"),
    ),
    f"{_TRUST}/ListTrustPolicies": Method("trust.list", subject=("project_id",)),
    f"{_TRUST}/DeleteTrustPolicy": _change("trust.delete", "policy_id"),
    f"{_USERS}/SetPassword": _change("users.set_password", "user_name"),
}


def method_of(service: str, name: str) -> Method:
    """What is told of a method; of one that nobody wrote down, all."""
    return METHODS.get(f"{service}/{name}") or Method(f"rpc.{name}", Told.CHANGES)
