"""The Connect services (connectrpc), each an ASGI application under its own path."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from connectrpc.interceptor import Interceptor
from connectrpc.server import ConnectASGIApplication

from layover.audit.listing import AuditListing
from layover.builds.connections import ConnectionService
from layover.builds.life import BuildService
from layover.builds.listing import ListingService
from layover.builds.pulls import PullService
from layover.builds.reports import ReportService
from layover.http.rpc.audit_service import AuditRpc
from layover.http.rpc.auditing import Auditing
from layover.http.rpc.authentication import Authentication
from layover.http.rpc.build_service import BuildRpc
from layover.http.rpc.builds_service import BuildsRpc
from layover.http.rpc.errors import ErrorTranslation
from layover.http.rpc.login_service import LoginRpc
from layover.http.rpc.organizations_service import DepotOrganizationsRpc, OrganizationsRpc
from layover.http.rpc.projects_service import OwnProjectsRpc, ProjectsRpc
from layover.http.rpc.protocol import CODECS, ConnectOnly
from layover.http.rpc.push_service import PushRpc
from layover.http.rpc.pushes_service import MAX_PUSH_MESSAGE_BYTES, PushesRpc
from layover.http.rpc.tokens_service import TokensRpc
from layover.http.rpc.trust_service import TrustRpc
from layover.http.rpc.users_service import UsersRpc
from layover.identity.logins import LoginService
from layover.identity.organizations import OrganizationService
from layover.identity.projects import ProjectService
from layover.identity.sign_in import SignInService
from layover.identity.tokens import TokenService
from layover.identity.trust_service import TrustService
from layover.promotion.driven import DrivenPushService
from layover.promotion.service import PushService
from layover.retention.receipts import ReceiptService
from layover.rpc.depot.cli.v1.build_connect import BuildServiceASGIApplication
from layover.rpc.depot.cli.v1.push_connect import PushServiceASGIApplication
from layover.rpc.depot.cli.v1beta1.login_connect import LoginServiceASGIApplication
from layover.rpc.depot.cli.v1beta1.projects_connect import ProjectsServiceASGIApplication
from layover.rpc.depot.core.v1.organization_connect import OrganizationServiceASGIApplication
from layover.rpc.layover.v1.audit_connect import AuditServiceASGIApplication
from layover.rpc.layover.v1.builds_connect import BuildsServiceASGIApplication
from layover.rpc.layover.v1.organizations_connect import OrganizationsServiceASGIApplication
from layover.rpc.layover.v1.projects_connect import (
    ProjectsServiceASGIApplication as OwnProjectsServiceASGIApplication,
)
from layover.rpc.layover.v1.pushes_connect import PushesServiceASGIApplication
from layover.rpc.layover.v1.tokens_connect import TokensServiceASGIApplication
from layover.rpc.layover.v1.trust_connect import TrustServiceASGIApplication
from layover.rpc.layover.v1.users_connect import UsersServiceASGIApplication

# A report holds a few Dockerfiles of 1 MiB or some seconds of a log.
MAX_MESSAGE_BYTES = 8 * 1024 * 1024

# An ID, a password, how something ended.
MAX_SMALL_MESSAGE_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Management:
    """The services that look after organizations, projects and tokens."""

    organizations: OrganizationService
    projects: ProjectService
    tokens: TokenService


def connect_apps(
    authentication: Authentication,
    trust: TrustService,
    management: Management,
    builds: BuildService,
    reports: ReportService,
    listing: ListingService,
    pulls: PullService,
    connections: ConnectionService,
    receipts: ReceiptService,
    audit_listing: AuditListing,
    now: Callable[[], datetime],
) -> list[tuple[str, ConnectOnly]]:
    """The services as (path, ASGI application); each handles all below `path + "/"`.

    An application reads the whole path of a request: route to it without taking the path off,
    or mount it with the ASGI `root_path` set.
    """
    interceptors = _interceptors(authentication)
    identity = authentication.identity
    build_rpc = BuildRpc(builds, reports, listing, pulls, connections, now)
    builds_rpc = BuildsRpc(builds, reports, listing, receipts, pulls.address)
    services: list[ConnectASGIApplication[Any]] = [
        BuildServiceASGIApplication(
            build_rpc,
            interceptors=interceptors,
            read_max_bytes=MAX_MESSAGE_BYTES,
            codecs=CODECS,
        ),
        ProjectsServiceASGIApplication(
            ProjectsRpc(identity, builds),
            interceptors=interceptors,
            read_max_bytes=MAX_MESSAGE_BYTES,
            codecs=CODECS,
        ),
        OwnProjectsServiceASGIApplication(
            OwnProjectsRpc(identity, management.projects, builds, listing),
            interceptors=interceptors,
            read_max_bytes=MAX_MESSAGE_BYTES,
            codecs=CODECS,
        ),
        OrganizationServiceASGIApplication(
            DepotOrganizationsRpc(management.organizations),
            interceptors=interceptors,
            read_max_bytes=MAX_MESSAGE_BYTES,
            codecs=CODECS,
        ),
        OrganizationsServiceASGIApplication(
            OrganizationsRpc(management.organizations, pulls.address),
            interceptors=interceptors,
            read_max_bytes=MAX_MESSAGE_BYTES,
            codecs=CODECS,
        ),
        TokensServiceASGIApplication(
            TokensRpc(management.tokens, identity, builds, pulls),
            interceptors=interceptors,
            read_max_bytes=MAX_MESSAGE_BYTES,
            codecs=CODECS,
        ),
        BuildsServiceASGIApplication(
            builds_rpc,
            interceptors=interceptors,
            read_max_bytes=MAX_MESSAGE_BYTES,
            codecs=CODECS,
        ),
        TrustServiceASGIApplication(
            TrustRpc(trust, builds),
            interceptors=interceptors,
            read_max_bytes=MAX_MESSAGE_BYTES,
            codecs=CODECS,
        ),
        AuditServiceASGIApplication(
            AuditRpc(audit_listing),
            interceptors=interceptors,
            read_max_bytes=MAX_MESSAGE_BYTES,
            codecs=CODECS,
        ),
    ]
    return [(service.path, ConnectOnly(service)) for service in services]


def push_apps(
    authentication: Authentication, pushes: PushService, driven: DrivenPushService
) -> list[tuple[str, ConnectOnly]]:
    """The services that push to other registries, as `connect_apps`."""
    interceptors = _interceptors(authentication)
    services: list[ConnectASGIApplication[Any]] = [
        PushesServiceASGIApplication(
            PushesRpc(pushes),
            interceptors=interceptors,
            read_max_bytes=MAX_PUSH_MESSAGE_BYTES,
            codecs=CODECS,
        ),
        PushServiceASGIApplication(
            PushRpc(driven),
            interceptors=interceptors,
            read_max_bytes=MAX_SMALL_MESSAGE_BYTES,
            codecs=CODECS,
        ),
    ]
    return [(service.path, ConnectOnly(service)) for service in services]


def sign_in_apps(
    authentication: Authentication, sign_in: SignInService, logins: LoginService, url: str
) -> list[tuple[str, ConnectOnly]]:
    """The services that users sign in by, as `connect_apps`; `url` is how browsers come here."""
    services: list[ConnectASGIApplication[Any]] = [
        # Whoever logs in has no token yet.
        LoginServiceASGIApplication(
            LoginRpc(logins, authentication.identity, authentication.audit, url),
            interceptors=(ErrorTranslation(),),
            read_max_bytes=MAX_SMALL_MESSAGE_BYTES,
            codecs=CODECS,
        ),
        UsersServiceASGIApplication(
            UsersRpc(sign_in, url),
            interceptors=_interceptors(authentication),
            read_max_bytes=MAX_SMALL_MESSAGE_BYTES,
            codecs=CODECS,
        ),
    ]
    return [(service.path, ConnectOnly(service)) for service in services]


def _interceptors(authentication: Authentication) -> Iterable[Interceptor]:
    """What every call of somebody known passes through."""
    # Authentication first: the library runs a leading interceptor of its kind before it reads
    # the request's message.
    return (
        authentication,
        ErrorTranslation(),
        # Behind it, where errors are still what services raise.
        Auditing(authentication.audit),
    )
