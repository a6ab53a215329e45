"""/signin and /signout: a name and a password, or the provider of the settings."""

from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from layover.http.origin import origin
from layover.http.pages.cookies import Cookie
from layover.http.pages.errors import PAGE_STATUSES, text_of
from layover.http.pages.frontend import Frontend, Visitor, see_other
from layover.http.pages.return_to import own_path
from layover.identity.sign_in import SignInService
from layover.identity.sign_in_models import SignInRefused
from layover.identity.throttle import TooManyAttempts

# As the audit log has it.
_ACTION = "login.password"


class SignInRoutes:
    """Signs a browser in and out."""

    def __init__(
        self, frontend: Frontend, sign_in: SignInService, provider_name: str | None
    ) -> None:
        """`provider_name` is what the button calls the provider; None where there is none."""
        self._frontend, self._sign_in, self._provider_name = frontend, sign_in, provider_name

    def routes(self) -> list[Route]:
        return [
            self._frontend.route("/signin", self._get, "GET"),
            self._frontend.route("/signin", self._post, "POST"),
            self._frontend.route("/signout", self._out, "POST"),
        ]

    async def _get(self, request: Request) -> Response:
        return_to = own_path(request.query_params.get("return_to", ""))
        if (await self._frontend.visitor(request)).session:
            return see_other(return_to)
        return self._page(request, return_to)

    async def _post(self, request: Request) -> Response:
        visitor = await self._frontend.visitor(request)
        if visitor.session:
            # Signed in in another tab meanwhile, which this form cannot know.
            return see_other("/")
        form = await self._frontend.form(request, visitor)
        return_to, name = own_path(form.get("return_to", "")), form.get("name", "")
        try:
            secret = await self._sign_in.sign_in(name, form.get("password", ""), origin().address)
        except SignInRefused as error:
            details = {"user": error.user_name}
            await self._frontend.audit.login_refused(_ACTION, origin(), details=details)
            status = PAGE_STATUSES[SignInRefused]
            return self._page(request, return_to, status, name=name, problem=text_of(error))
        except TooManyAttempts:
            # Who guesses on is to be seen, too.
            details = {"reason": "too many attempts"}
            await self._frontend.audit.login_refused(_ACTION, origin(), details=details)
            raise
        return await self._frontend.signed_in(see_other(return_to), secret, _ACTION)

    async def _out(self, request: Request) -> Response:
        visitor = await self._frontend.visitor(request)
        response = see_other("/signin")
        if visitor.session:
            await self._frontend.form(request, visitor)
            await self._sign_in.end_session(visitor.secret)
            await self._frontend.audit.record("logout", visitor.session.principal, origin())
        self._frontend.cookies.clear(response, Cookie.SESSION)
        return response

    def _page(
        self,
        request: Request,
        return_to: str,
        status: int = HTTPStatus.OK,
        *,
        name: str = "",
        problem: str = "",
    ) -> Response:
        return self._frontend.show(
            request,
            Visitor(),
            "signin.html",
            status,
            return_to=return_to,
            provider=self._provider_name,
            name=name[:100],
            problem=problem,
        )
