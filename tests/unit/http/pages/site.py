"""The pages over a real database, and browsers that look at them without a network."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from argon2 import PasswordHasher
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Route

from layover.adapters.sql.audit import SqlAuditStore
from layover.adapters.sql.audit_places import SqlAuditPlaces
from layover.adapters.sql.logins import SqlLoginStore
from layover.adapters.sql.organizations import SqlOrganizationStore
from layover.adapters.sql.sign_in import SqlSignInStore
from layover.adapters.sql.trust import SqlTrustStore
from layover.audit.log import AuditLog
from layover.http.middleware import surrounded
from layover.http.origin import TrustedProxies
from layover.http.pages import Provider, page_routes
from layover.http.rpc import sign_in_apps
from layover.http.rpc.authentication import Authentication
from layover.identity.issuer_keys import IssuerUnavailable, VerificationKey
from layover.identity.logins import LoginService
from layover.identity.organizations import OrganizationService
from layover.identity.origin import Origin
from layover.identity.passwords import Passwords
from layover.identity.service import IdentityService
from layover.identity.sign_in import SignInService
from layover.identity.sign_in_models import LoginLimits
from layover.identity.throttle import Limits, LoginThrottle
from layover.identity.trust_service import TrustService
from tests.stores import Stores, opened
from tests.unit.identity.clock import Clock

URL = "https://layover.example.com"
PASSWORD = "correct horse battery"
ADDRESS = "203.0.113.9"
KEY = b"k" * 32

# As cheap as argon2 gets.
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


class NoKeys:
    """The keys of no issuer."""

    async def keys(self, issuer: str, key_id: str | None = None) -> tuple[VerificationKey, ...]:
        raise IssuerUnavailable(issuer, "a test has none")


async def at_once(_seconds: float) -> None:
    """Nobody waits in a test for longer than others take for their turn."""
    await asyncio.sleep(0)


@dataclass
class Site:
    """A server's pages, its services, and its clock."""

    stores: Stores
    clock: Clock
    sign_in: SignInService
    logins: LoginService
    organizations: OrganizationService
    audit: AuditLog
    app: Callable[..., object]
    url: str

    def browser(self, *, url: str = "", address: str = ADDRESS, **headers: str) -> "Browser":
        """A browser of its own, with no cookie yet."""
        transport = httpx.ASGITransport(self.app, client=(address, 1))  # type: ignore[arg-type]  # an ASGI application
        client = httpx.AsyncClient(
            transport=transport,
            base_url=url or self.url,
            headers={"accept": "text/html", **headers},
        )
        return Browser(client, url or self.url)

    async def signed_in(self, name: str = "ann") -> "Browser":
        """The browser of a user who was made for it."""
        await self.sign_in.create_local_user(name, PASSWORD)
        browser = self.browser()
        answer = await browser.sign_in(name)
        assert answer.status_code == 303, answer.text
        return browser

    async def waiting(self, user_agent: str = "layover/1 (laptop; Linux)") -> tuple[str, str]:
        """The ID and the code of a command line that waits."""
        started = await self.logins.start(Origin("198.51.100.4", user_agent))
        return started.id, started.user_code


@dataclass
class Browser:
    """As much of a browser as the pages can tell."""

    client: httpx.AsyncClient
    origin: str

    async def get(self, path: str, **headers: str) -> httpx.Response:
        return await self.client.get(path, headers={"sec-fetch-site": "same-origin", **headers})

    async def submit(
        self, path: str, fields: dict[str, str], headers: dict[str, str] | None = None
    ) -> httpx.Response:
        """Send a form exactly so, from a page of the server unless `headers` say otherwise."""
        told = {"origin": self.origin, "sec-fetch-site": "same-origin", **(headers or {})}
        return await self.client.post(
            path, data=fields, headers={name: value for name, value in told.items() if value}
        )

    async def fill(self, page: str, action: str, **fields: str) -> httpx.Response:
        """Look at a page and send its form to `action` with these fields filled in."""
        hidden = hidden_fields((await self.get(page)).text)
        return await self.submit(action, {**hidden, **fields})

    async def sign_in(self, name: str, password: str = PASSWORD) -> httpx.Response:
        return await self.fill("/signin", "/signin", name=name, password=password)

    def cookie(self, name: str = "__Host-layover") -> str | None:
        return self.client.cookies.get(name, domain=urlsplit(self.origin).hostname)


def hidden_fields(page: str) -> dict[str, str]:
    """What a page's forms hold beside what users fill in; all have the same token."""
    return dict(re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', page))


@contextlib.asynccontextmanager
async def site(
    folder: Path,
    url: str = URL,
    *,
    limits: Limits | None = None,
    login_limits: LoginLimits | None = None,
    provider: Callable[[Clock], Provider] | None = None,
) -> AsyncIterator[Site]:
    """The pages as app.py wires them."""
    clock = Clock()
    throttle = LoginThrottle(limits or Limits(), sleep=at_once)
    async with contextlib.AsyncExitStack() as stack:
        stores = stack.enter_context(opened(folder))
        passwords = stack.enter_context(contextlib.closing(Passwords(CHEAP)))
        sign_in = SignInService(SqlSignInStore(stores.database), passwords, throttle, clock)
        logins = LoginService(
            SqlLoginStore(stores.database),
            throttle,
            clock,
            login_limits or LoginLimits(),
            at_once,
        )
        identity = IdentityService(stores.identity, clock)
        audit = AuditLog(
            SqlAuditStore(stores.database), SqlAuditPlaces(stores.database), identity, clock
        )
        stack.push_async_callback(audit.close)
        organizations = OrganizationService(SqlOrganizationStore(stores.database), clock)
        trust = TrustService(SqlTrustStore(stores.database), identity, NoKeys(), clock, url)
        authentication = Authentication(identity, throttle, trust, audit)
        routes: list[BaseRoute] = [
            *page_routes(
                *(sign_in, logins, organizations, provider(clock) if provider else None, audit),
                KEY,
                url,
                clock,
            )
        ]
        for path, service in sign_in_apps(authentication, sign_in, logins, url):
            routes.append(Route(f"{path}/{{method}}", service))
        app = Starlette(routes=routes)
        app.router.redirect_slashes = False
        yield Site(
            stores,
            clock,
            sign_in,
            logins,
            organizations,
            audit,
            surrounded(app, TrustedProxies(), https=url.startswith("https://")),
            url,
        )
