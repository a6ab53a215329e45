"""/signin/provider and /signin/callback: to the OpenID Connect provider, and back."""

from datetime import timedelta

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from layover.http.origin import origin
from layover.http.pages.cookies import Cookie
from layover.http.pages.forms import check_source
from layover.http.pages.frontend import Frontend, see_other
from layover.http.pages.return_to import own_path
from layover.identity.provider import ProviderFlow, ProviderSignIn
from layover.identity.sign_in import SignInService
from layover.identity.sign_in_models import ProviderRefused

CALLBACK_PATH = "/signin/callback"

# As long as a user may take to sign in there.
_LIFETIME = timedelta(minutes=10)
# As the audit log has it.
_ACTION = "login.provider"
_PURPOSE = "sign-in at the provider"


class ProviderRoutes:
    """The way to the provider and back. What it needs on the way back is in a signed cookie, so
    that only the browser that went there comes back signed in."""

    def __init__(
        self, frontend: Frontend, sign_in: SignInService, provider: ProviderSignIn, url: str
    ) -> None:
        self._frontend, self._sign_in, self._provider = frontend, sign_in, provider
        self._url = url

    def routes(self) -> list[Route]:
        return [
            self._frontend.route("/signin/provider", self._begin, "GET"),
            self._frontend.route(CALLBACK_PATH, self._callback, "GET"),
        ]

    async def _begin(self, request: Request) -> Response:
        # A link from elsewhere must not start a sign-in that nobody asked for.
        check_source(request, self._url)
        target, flow = await self._provider.begin()
        signed = self._frontend.signer.sign(
            _PURPOSE,
            {
                "state": flow.state,
                "nonce": flow.nonce,
                "verifier": flow.verifier,
                "return_to": own_path(request.query_params.get("return_to", "")),
            },
            _LIFETIME,
        )
        response = RedirectResponse(target, 303)
        self._frontend.cookies.set(response, Cookie.FLOW, signed, _LIFETIME)
        return response

    async def _callback(self, request: Request) -> Response:
        signed = self._frontend.cookies.read(request, Cookie.FLOW)
        facts = self._frontend.signer.read(_PURPOSE, signed)
        if facts is None:
            raise ProviderRefused("no sign-in is under way in this browser")
        flow = ProviderFlow(facts["state"], facts["nonce"], facts["verifier"])
        try:
            vouched = await self._provider.finish(flow, dict(request.query_params))
        except ProviderRefused as error:
            details = {"reason": error.reason}
            await self._frontend.audit.login_refused(_ACTION, origin(), details=details)
            raise
        secret = await self._sign_in.sign_in_by_provider(
            vouched.issuer, vouched.subject, vouched.names
        )
        before = await self._frontend.visitor(request)
        if before.session:
            await self._sign_in.end_session(before.secret)
        response = await self._frontend.signed_in(
            see_other(own_path(facts["return_to"])), secret, _ACTION
        )
        self._frontend.cookies.clear(response, Cookie.FLOW)
        return response
