"""The request of each row: `$names` stand for things of the project that are there."""

import json
from typing import Any

from layover.oci.digest import Digest
from layover.oci.manifests import OCI_MANIFEST
from tests.access.wire import Call, rpc
from tests.access.world import NOWHERE, filled
from tests.stores import image

_BUILDS, _OWN_BUILDS = "depot.cli.v1.BuildService", "layover.v1.BuildsService"
_PROJECTS, _OWN_PROJECTS = "depot.cli.v1beta1.ProjectsService", "layover.v1.ProjectsService"
_ORGANIZATIONS, _OWN_ORGANIZATIONS = (
    "depot.core.v1.OrganizationService",
    "layover.v1.OrganizationsService",
)
_AUDIT = "layover.v1.AuditService"
_LOGINS, _USERS = "depot.cli.v1beta1.LoginService", "layover.v1.UsersService"
_PUSHES, _DRIVEN_PUSHES = "layover.v1.PushesService", "depot.cli.v1.PushService"
_TOKENS, _TRUST = "layover.v1.TokensService", "layover.v1.TrustService"

_NEW = image(annotations={"pushed": "by the caller"}).decode()
_CONTENT = "what is pushed"

# Method, path, body; by the row's name.
HTTP: dict[str, tuple[str, str, str]] = {
    "GET /healthz": ("GET", "/healthz", ""),
    "GET /readyz": ("GET", "/readyz", ""),
    # The pages know browsers by their sessions, and tokens not at all.
    "GET /": ("GET", "/", ""),
    "GET /signin": ("GET", "/signin", ""),
    "POST /signin": ("POST", "/signin", "name=admin&password=guessed"),
    "POST /signout": ("POST", "/signout", ""),
    "GET /device": ("GET", "/device", ""),
    "POST /device": ("POST", "/device", "code=BCDF-GHJK&decision=approve"),
    "GET /join/{secret}": ("GET", "/join/unknown", ""),
    "POST /join/{secret}": ("POST", "/join/unknown", "name=eve&password=long+enough+one"),
    "GET /assets/{name}": ("GET", "/assets/layover.css", ""),
    "GET /v2": ("GET", "/v2", ""),
    "GET /v2/": ("GET", "/v2/", ""),
    "GET /v2/_catalog": ("GET", "/v2/_catalog", ""),
    "GET /token": ("GET", "/token?scope=repository:mine:pull", ""),
    "POST /token": (
        "POST",
        "/token",
        "grant_type=refresh_token&refresh_token=layover_unknown",
    ),
    "GET /v2/{name:path}/tags/list": ("GET", "/v2/$project/tags/list", ""),
    "GET /v2/{name:path}/referrers/{digest}": ("GET", "/v2/$project/referrers/$manifest", ""),
    "GET /v2/{name:path}/manifests/{reference} ~tag of the build": (
        "GET",
        "/v2/$project/manifests/$build",
        "",
    ),
    "GET /v2/{name:path}/manifests/{reference} ~tag of an ended build": (
        "GET",
        "/v2/$project/manifests/$ended",
        "",
    ),
    "GET /v2/{name:path}/manifests/{reference} ~digest of the build": (
        "GET",
        "/v2/$project/manifests/$manifest",
        "",
    ),
    "GET /v2/{name:path}/manifests/{reference} ~pushed tag": (
        "GET",
        "/v2/$project/manifests/$tag",
        "",
    ),
    "GET /v2/{name:path}/manifests/{reference} ~pushed digest": (
        "GET",
        "/v2/$project/manifests/$unnamed",
        "",
    ),
    "PUT /v2/{name:path}/manifests/{reference} ~tag": (
        "PUT",
        "/v2/$project/manifests/$tag",
        _NEW,
    ),
    "PUT /v2/{name:path}/manifests/{reference} ~tag of the build": (
        "PUT",
        "/v2/$project/manifests/$build",
        image(b"bcdefghijk").decode(),
    ),
    "PUT /v2/{name:path}/manifests/{reference} ~digest": (
        "PUT",
        f"/v2/$project/manifests/{Digest.of(_NEW.encode())}",
        _NEW,
    ),
    "DELETE /v2/{name:path}/manifests/{reference} ~tag": (
        "DELETE",
        "/v2/$project/manifests/$tag",
        "",
    ),
    "DELETE /v2/{name:path}/manifests/{reference} ~digest": (
        "DELETE",
        "/v2/$project/manifests/$unnamed",
        "",
    ),
    "DELETE /v2/{name:path}/manifests/{reference} ~tag of the build": (
        "DELETE",
        "/v2/$project/manifests/$build",
        "",
    ),
    "DELETE /v2/{name:path}/manifests/{reference} ~digest of the build": (
        "DELETE",
        "/v2/$project/manifests/$manifest",
        "",
    ),
    "GET /v2/{name:path}/blobs/{digest} ~of the build": ("GET", "/v2/$project/blobs/$layer", ""),
    "GET /v2/{name:path}/blobs/{digest} ~alone": ("GET", "/v2/$project/blobs/$blob", ""),
    "DELETE /v2/{name:path}/blobs/{digest}": ("DELETE", "/v2/$project/blobs/$blob", ""),
    "POST /v2/{name:path}/blobs/uploads/": ("POST", "/v2/$project/blobs/uploads/", ""),
    "POST /v2/{name:path}/blobs/uploads/ ~whole": (
        "POST",
        f"/v2/$project/blobs/uploads/?digest={Digest.of(_CONTENT.encode())}",
        _CONTENT,
    ),
    "POST /v2/{name:path}/blobs/uploads/ ~mount": (
        "POST",
        "/v2/$project/app/blobs/uploads/?mount=$layer&from=$project",
        "",
    ),
    "GET /v2/{name:path}/blobs/uploads/{upload_id}": (
        "GET",
        "/v2/$project/blobs/uploads/$upload",
        "",
    ),
    "PATCH /v2/{name:path}/blobs/uploads/{upload_id}": (
        "PATCH",
        "/v2/$project/blobs/uploads/$upload",
        _CONTENT,
    ),
    "PUT /v2/{name:path}/blobs/uploads/{upload_id}": (
        "PUT",
        f"/v2/$project/blobs/uploads/$upload?digest={Digest.of(_CONTENT.encode())}",
        _CONTENT,
    ),
    "DELETE /v2/{name:path}/blobs/uploads/{upload_id}": (
        "DELETE",
        "/v2/$project/blobs/uploads/$upload",
        "",
    ),
    "POST /blobs/{build_id}/{digest}": (
        "POST",
        f"/blobs/$ended/{Digest.of(b'{}')}",
        json.dumps(
            {
                "registryHost": NOWHERE,
                "repositoryNamespace": "app",
                "registryToken": "a-token",
                "tokenScheme": "Bearer",
            }
        ),
    ),
    "* /v2": ("POST", "/v2", ""),
    "* /v2/{rest:rest}": ("GET", "/v2/$project/nothing", ""),
    "* /token": ("PUT", "/token", ""),
}

# The message; by the method's name.
RPC: dict[str, dict[str, Any]] = {
    f"{_BUILDS}/CreateBuild": {"projectId": "$project", "options": [{"save": True}]},
    f"{_BUILDS}/GetBuild ~its own": {"buildId": "$build"},
    f"{_BUILDS}/GetBuild ~another": {"buildId": "$other"},
    f"{_BUILDS}/FinishBuild": {"buildId": "$fresh", "success": {}},
    f"{_BUILDS}/GetBuildKitConnection ~its own": {
        "buildId": "$build",
        "platform": "BUILDER_PLATFORM_AMD64",
    },
    f"{_BUILDS}/GetBuildKitConnection ~another": {
        "buildId": "$other",
        "platform": "BUILDER_PLATFORM_AMD64",
    },
    f"{_BUILDS}/ReportBuildHealth ~its own": {"buildId": "$build"},
    f"{_BUILDS}/ReportBuildHealth ~another": {"buildId": "$other"},
    f"{_BUILDS}/ReportTimings ~its own": {"buildId": "$build"},
    f"{_BUILDS}/ReportTimings ~another": {"buildId": "$other"},
    f"{_BUILDS}/ReportStatus ~its own": {"buildId": "$build"},
    f"{_BUILDS}/ReportStatus ~another": {"buildId": "$other"},
    f"{_BUILDS}/ReportStatusStream ~its own": {"buildId": "$build"},
    f"{_BUILDS}/ReportStatusStream ~another": {"buildId": "$other"},
    f"{_BUILDS}/ReportBuildContext ~its own": {"buildId": "$build"},
    f"{_BUILDS}/ReportBuildContext ~another": {"buildId": "$other"},
    f"{_BUILDS}/ListBuilds": {"projectId": "$project"},
    f"{_BUILDS}/GetPullInfo": {"buildId": "$ended"},
    f"{_BUILDS}/GetPullToken ~project": {"projectId": "$project"},
    f"{_BUILDS}/GetPullToken ~build": {"buildId": "$ended"},
    f"{_PROJECTS}/ListProjects": {},
    f"{_OWN_PROJECTS}/ListProjects": {},
    f"{_OWN_PROJECTS}/GetProject": {"projectId": "$project"},
    f"{_OWN_PROJECTS}/UpdateProject": {"projectId": "$project", "extendsOnPull": False},
    f"{_OWN_BUILDS}/ListBuilds": {"projectId": "$project"},
    f"{_OWN_BUILDS}/GetBuild ~its own": {"buildId": "$build"},
    f"{_OWN_BUILDS}/GetBuild ~another": {"buildId": "$other"},
    f"{_OWN_BUILDS}/GetBuildLog ~its own": {"buildId": "$build"},
    f"{_OWN_BUILDS}/GetBuildLog ~another": {"buildId": "$other"},
    f"{_OWN_BUILDS}/KeepBuild": {"buildId": "$ended", "retention": "3600s"},
    f"{_OWN_BUILDS}/DeleteBuild": {"buildId": "$ended"},
    f"{_OWN_BUILDS}/GetReceipt": {"buildId": "$ended"},
    f"{_OWN_BUILDS}/GetReceiptKey": {},
    f"{_PROJECTS}/ResetProjectCache": {"projectId": "$project"},
    f"{_OWN_PROJECTS}/CreateProject": {"organizationId": "$organization", "name": "new"},
    f"{_OWN_PROJECTS}/DeleteProject": {"projectId": "$doomed"},
    f"{_ORGANIZATIONS}/ListOrganizations": {},
    f"{_OWN_ORGANIZATIONS}/ListOrganizations": {},
    f"{_OWN_ORGANIZATIONS}/CreateOrganization": {"name": "new"},
    f"{_OWN_ORGANIZATIONS}/UpdateOrganization": {"organizationId": "$organization", "name": "new"},
    f"{_OWN_ORGANIZATIONS}/DeleteOrganization": {"organizationId": "$organization"},
    f"{_OWN_ORGANIZATIONS}/ListMembers": {"organizationId": "$organization"},
    f"{_OWN_ORGANIZATIONS}/InviteMember": {
        "organizationId": "$organization",
        "role": "ROLE_VIEWER",
    },
    f"{_OWN_ORGANIZATIONS}/ListInvitations": {"organizationId": "$organization"},
    f"{_OWN_ORGANIZATIONS}/DeleteInvitation": {
        "organizationId": "$organization",
        "invitationId": "$invitation",
    },
    f"{_OWN_ORGANIZATIONS}/UpdateMember": {
        "organizationId": "$organization",
        "userId": "$user",
        "role": "ROLE_OWNER",
    },
    f"{_OWN_ORGANIZATIONS}/RemoveMember": {"organizationId": "$organization", "userId": "$user"},
    f"{_TOKENS}/GetCaller": {},
    f"{_TOKENS}/CreateToken ~user's": {"kind": "TOKEN_KIND_USER"},
    f"{_TOKENS}/CreateToken ~organization's": {
        "kind": "TOKEN_KIND_ORGANIZATION",
        "organizationId": "$organization",
    },
    f"{_TOKENS}/CreateToken ~project's": {"kind": "TOKEN_KIND_PROJECT", "projectId": "$project"},
    f"{_TOKENS}/CreateToken ~pulls the project": {
        "kind": "TOKEN_KIND_PULL",
        "projectId": "$project",
    },
    f"{_TOKENS}/CreateToken ~pulls a build": {"kind": "TOKEN_KIND_PULL", "buildId": "$ended"},
    f"{_TOKENS}/ListTokens ~organization's": {"organizationId": "$organization"},
    f"{_TOKENS}/ListTokens ~project's": {"projectId": "$project"},
    f"{_TOKENS}/ListTokens ~own": {},
    f"{_TOKENS}/RevokeToken": {"tokenId": "$token"},
    f"{_AUDIT}/ListAuditEvents ~organization's": {"organizationId": "$organization"},
    f"{_AUDIT}/ListAuditEvents ~project's": {"projectId": "$project"},
    f"{_TOKENS}/ExchangeToken": {"projectId": "$project"},
    f"{_TRUST}/CreateTrustPolicy": {
        "projectId": "$project",
        "name": "new",
        "provider": "generic",
        "issuer": "https://ci.example",
        "claims": {"role": "work"},
        "grants": "GRANT_PULL",
    },
    f"{_TRUST}/ListTrustPolicies": {"projectId": "$project"},
    f"{_TRUST}/DeleteTrustPolicy": {"projectId": "$project", "policyId": "$policy"},
    f"{_PUSHES}/CreatePush": {"buildId": "$ended", "destinations": [f"{NOWHERE}/app:v1"]},
    f"{_PUSHES}/GetPush": {"pushId": "$push"},
    f"{_PUSHES}/ListPushes": {"projectId": "$project"},
    f"{_PUSHES}/CancelPush": {"pushId": "$push"},
    f"{_PUSHES}/AuthorizePush": {
        "pushId": "$push",
        "authorizations": [{"place": f"{NOWHERE}/app", "bearer": {"token": "a-token"}}],
    },
    f"{_DRIVEN_PUSHES}/StartPush": {"buildId": "$ended", "tag": f"{NOWHERE}/app:v1"},
    # Whatever its ID is, nobody is told more of it than its build lets them know.
    f"{_DRIVEN_PUSHES}/FinishPush": {"buildId": "$ended", "pushId": "$driven"},
    f"{_LOGINS}/StartLogin": {},
    f"{_LOGINS}/FinishLogin": {"id": "unknown"},
    f"{_USERS}/SetPassword": {"password": "correct horse battery"},
}

# Rows whose request says for which organization a caller of several calls.
NARROWED = {f"{_TOKENS}/CreateToken ~user's"}

STREAMS = {"ReportStatusStream", "GetBuildLog", "FinishLogin"}


def template(name: str) -> str:
    """All that a row's request says."""
    if name in HTTP:
        return " ".join(HTTP[name])
    return json.dumps(RPC[name]) + (" $organization" if name in NARROWED else "")


def call(name: str, names: dict[str, str]) -> Call:
    """A row's request, about these things."""
    if name in RPC:
        method = name.partition(" ~")[0]
        message = filled(json.dumps(RPC[name]), names)
        called = rpc(f"/{method}", message, stream=method.rpartition("/")[2] in STREAMS)
        return (
            called.with_header("x-depot-org", names["organization"]) if name in NARROWED else called
        )
    verb, path, body = HTTP[name]
    headers = (("content-type", OCI_MANIFEST),) if "/manifests/" in path else ()
    return Call(verb, filled(path, names), filled(body, names).encode(), headers)
