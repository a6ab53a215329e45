"""What every page shares: who looks at it, its forms' tokens, and how its errors are told."""

import functools
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

import structlog
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from layover.audit.log import AuditLog
from layover.errors import LayoverError
from layover.http.origin import origin
from layover.http.pages.cookies import Cookie, Cookies
from layover.http.pages.errors import PAGE_STATUSES, text_of
from layover.http.pages.forms import CSRF_FIELD, FormRefused, read_form
from layover.http.pages.rendering import render
from layover.http.pages.signing import Signer
from layover.identity.sign_in import SESSION_LIFETIME, SignInService
from layover.identity.sign_in_models import ProviderRefused, Session
from layover.identity.throttle import TooManyAttempts

Endpoint = Callable[[Request], Awaitable[Response]]

_OF_SESSION = "form of a session"
_OF_BROWSER = "form of a browser"
_BROWSER = "browser"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Visitor:
    """Whoever looks at a page."""

    session: Session | None = None
    secret: str = field(default="", repr=False)
    """The session's."""


class Frontend:
    """Shows pages and takes their forms."""

    def __init__(self, sign_in: SignInService, signer: Signer, audit: AuditLog, url: str) -> None:
        """`url` is how browsers reach this server."""
        self.audit = audit
        self.cookies = Cookies(https=url.startswith("https://"))
        self.signer = signer
        self._sign_in, self._url = sign_in, url

    def route(self, path: str, endpoint: Endpoint, *methods: str) -> Route:
        """A page, whose errors are pages too."""
        return Route(path, self._answering(endpoint), methods=list(methods))

    async def visitor(self, request: Request) -> Visitor:
        """Who is signed in in this browser."""
        secret = self.cookies.read(request, Cookie.SESSION)
        session = await self._sign_in.session(secret)
        return Visitor(session, secret) if session else Visitor()

    def show(
        self,
        request: Request,
        visitor: Visitor,
        template: str,
        status: int = HTTPStatus.OK,
        **facts: object,
    ) -> Response:
        """A page for this visitor, with the token for its forms."""
        # What a browser has is kept, so that forms in several of its tabs go together.
        nonce = self._browser(request) or secrets.token_urlsafe(16)
        token = (
            self.signer.derive(_OF_SESSION, visitor.secret)
            if visitor.session
            else self.signer.derive(_OF_BROWSER, nonce)
        )
        user = visitor.session.user if visitor.session else None
        response = render(template, status, csrf_field=CSRF_FIELD, csrf=token, user=user, **facts)
        if not visitor.session and not self._browser(request):
            signed = f"{nonce}.{self.signer.derive(_BROWSER, nonce)}"
            self.cookies.set(response, Cookie.FORM, signed)
        return response

    async def form(self, request: Request, visitor: Visitor) -> Mapping[str, str]:
        """The fields of a form of this visitor's. Raises FormRefused, FormTooLarge."""
        form = await read_form(request, self._url)
        token = form.get(CSRF_FIELD, "")
        if visitor.session:
            is_ours = self.signer.is_derived(_OF_SESSION, visitor.secret, token)
        else:
            nonce = self._browser(request)
            is_ours = bool(nonce) and self.signer.is_derived(_OF_BROWSER, nonce, token)
        if not is_ours:
            raise FormRefused("token")
        return form

    async def signed_in(self, response: Response, secret: str, action: str) -> Response:
        """The answer, with a new session for the browser; `action` is for the audit log."""
        session = await self._sign_in.session(secret)
        if session is not None:
            await self.audit.record(action, session.principal, origin())
        self.cookies.set(response, Cookie.SESSION, secret, SESSION_LIFETIME)
        self.cookies.clear(response, Cookie.FORM)
        return response

    def _browser(self, request: Request) -> str:
        """The nonce of a browser that nobody is signed in with; empty where it has none of ours."""
        nonce, _, signature = self.cookies.read(request, Cookie.FORM).partition(".")
        return nonce if self.signer.is_derived(_BROWSER, nonce, signature) else ""

    def _answering(self, endpoint: Endpoint) -> Endpoint:
        @functools.wraps(endpoint)
        async def answer(request: Request) -> Response:
            try:
                return await endpoint(request)
            except LayoverError as error:
                status = PAGE_STATUSES.get(type(error))
                if status is None:
                    raise
                reason = getattr(error, "reason", "") or str(error)
                _log.info("page_refused", status=status.value, reason=reason)
                headers = {}
                if isinstance(error, TooManyAttempts):
                    headers["retry-after"] = str(error.retry_after_seconds)
                again = "/signin" if isinstance(error, ProviderRefused) else ""
                response = render(
                    "error.html", status, title=status.phrase, text=text_of(error), again=again
                )
                response.headers.update(headers)
                return response
            except Exception:
                # Not the path: an invitation's is a secret.
                _log.exception("page_failed")
                return render(
                    "error.html",
                    HTTPStatus.INTERNAL_SERVER_ERROR,
                    title="Internal error",
                    text="Something went wrong here; the server's log says what.",
                    again="",
                )

        return answer


def see_other(path: str) -> RedirectResponse:
    """Go on to a page of ours."""
    return RedirectResponse(path, int(HTTPStatus.SEE_OTHER))
