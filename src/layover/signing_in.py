"""Wires what signs users in: its stores and services, its pages, and its part of the API."""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from secrets import token_bytes

import httpx
from starlette.routing import BaseRoute, Route

from layover.adapters.oidc_provider import HttpProviderEndpoints
from layover.adapters.sql.database import Database
from layover.adapters.sql.identity import SqlIdentityStore
from layover.adapters.sql.logins import SqlLoginStore
from layover.adapters.sql.sign_in import SqlSignInStore
from layover.http.pages import Provider, page_routes
from layover.http.pages.provider import CALLBACK_PATH
from layover.http.pages.signing import KEY_BYTES
from layover.http.rpc import sign_in_apps
from layover.http.rpc.authentication import Authentication
from layover.identity.issuer_keys import IssuerKeys
from layover.identity.logins import LoginService
from layover.identity.oidc import IdTokens
from layover.identity.organizations import OrganizationService
from layover.identity.passwords import Passwords
from layover.identity.provider import ProviderSignIn
from layover.identity.sign_in import SignInService
from layover.settings import Settings


@dataclass(frozen=True, slots=True)
class SigningIn:
    """What a server has of it."""

    sign_in: SignInService
    logins: LoginService
    routes: list[BaseRoute]

    async def clean_up(self) -> None:
        """Forget what is over: a job for now and then."""
        await self.sign_in.forget_over_sessions()
        await self.logins.forget_over()


@contextlib.asynccontextmanager
async def signing_in(
    settings: Settings,
    database: Database,
    outbound: httpx.AsyncClient,
    issuer_keys: IssuerKeys,
    organizations: OrganizationService,
    authentication: Authentication,
    now: Callable[[], datetime],
) -> AsyncIterator[SigningIn]:
    """Sign-in as the settings say, as long as the server runs."""
    async with contextlib.AsyncExitStack() as stack:
        passwords = Passwords()
        stack.callback(passwords.close)
        sign_in = SignInService(SqlSignInStore(database), passwords, authentication.throttle, now)
        logins = LoginService(SqlLoginStore(database), authentication.throttle, now)
        key = await SqlIdentityStore(database).server_key("pages", token_bytes(KEY_BYTES))
        provider = _provider(settings, outbound, issuer_keys, now)
        routes: list[BaseRoute] = [
            *page_routes(
                *(sign_in, logins, organizations, provider, authentication.audit),
                key,
                settings.url,
                now,
            )
        ]
        for path, service in sign_in_apps(authentication, sign_in, logins, settings.url):
            routes.append(Route(f"{path}/{{method}}", service))
        yield SigningIn(sign_in, logins, routes)


def _provider(
    settings: Settings,
    client: httpx.AsyncClient,
    keys: IssuerKeys,
    now: Callable[[], datetime],
) -> Provider | None:
    """The OpenID Connect provider of the settings."""
    if not settings.oidc_issuer:
        return None
    endpoints = HttpProviderEndpoints(
        client, settings.oidc_issuer, settings.oidc_client_id, settings.oidc_client_secret
    )
    return Provider(
        settings.oidc_name,
        ProviderSignIn(
            settings.oidc_issuer,
            settings.oidc_client_id,
            endpoints,
            IdTokens(keys, now),
            f"{settings.url}{CALLBACK_PATH}",
        ),
    )
