"""The pages for browsers: server-rendered, without a script.

Whatever another part of the server says of a session is asked of identity; a page knows forms,
cookies and HTML.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from starlette.routing import Route

from layover.audit.log import AuditLog
from layover.http.pages.device import DeviceRoutes
from layover.http.pages.frontend import Frontend
from layover.http.pages.home import HomeRoutes
from layover.http.pages.join import Invitations, JoinRoutes
from layover.http.pages.provider import ProviderRoutes
from layover.http.pages.rendering import asset_routes
from layover.http.pages.signin import SignInRoutes
from layover.http.pages.signing import Signer
from layover.identity.logins import LoginService
from layover.identity.provider import ProviderSignIn
from layover.identity.sign_in import SignInService


@dataclass(frozen=True, slots=True)
class Provider:
    """The OpenID Connect provider, and what its button calls it."""

    name: str
    sign_in: ProviderSignIn


def page_routes(
    sign_in: SignInService,
    logins: LoginService,
    invitations: Invitations,
    provider: Provider | None,
    audit: AuditLog,
    key: bytes,
    url: str,
    now: Callable[[], datetime],
) -> list[Route]:
    """Every page; `key` is shared by all replicas, `url` is how browsers reach this server."""
    frontend = Frontend(sign_in, Signer(key, now), audit, url)
    routes = [
        *HomeRoutes(frontend, url).routes(),
        *SignInRoutes(frontend, sign_in, provider.name if provider else None).routes(),
        *DeviceRoutes(frontend, logins).routes(),
        *JoinRoutes(frontend, sign_in, invitations).routes(),
        *asset_routes(),
    ]
    if provider is not None:
        routes += ProviderRoutes(frontend, sign_in, provider.sign_in, url).routes()
    return routes
