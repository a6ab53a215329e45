"""/device: where a signed-in user says whether a command line may act as them."""

from http import HTTPStatus
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from layover.http.origin import origin
from layover.http.pages.errors import PAGE_STATUSES, text_of
from layover.http.pages.frontend import Frontend, Visitor, see_other
from layover.http.pages.return_to import sign_in_path
from layover.identity.logins import LoginService, read_code
from layover.identity.sign_in_models import LoginUnknown


class DeviceRoutes:
    """Shows what asks, and takes the answer."""

    def __init__(self, frontend: Frontend, logins: LoginService) -> None:
        self._frontend, self._logins = frontend, logins

    def routes(self) -> list[Route]:
        return [
            self._frontend.route("/device", self._get, "GET"),
            self._frontend.route("/device", self._post, "POST"),
        ]

    async def _get(self, request: Request) -> Response:
        visitor = await self._frontend.visitor(request)
        code = request.query_params.get("code", "")
        if visitor.session is None:
            # Signing in is for a code that could be one; whether it is, only users learn.
            return see_other(sign_in_path(_path(code)))
        if not code:
            return self._enter(request, visitor)
        try:
            login = await self._logins.find(code, origin().address)
        except LoginUnknown as error:
            status = PAGE_STATUSES[LoginUnknown]
            return self._enter(request, visitor, status, code=code, problem=text_of(error))
        return self._frontend.show(request, visitor, "device.html", login=login)

    async def _post(self, request: Request) -> Response:
        visitor = await self._frontend.visitor(request)
        if visitor.session is None:
            return see_other(sign_in_path("/device"))
        form = await self._frontend.form(request, visitor)
        code = form.get("code", "")
        # Whatever is not a clear yes is a no.
        approve = form.get("decision") == "approve"
        try:
            login = await self._logins.decide(
                code, visitor.session.user, origin().address, approve=approve
            )
        except LoginUnknown as error:
            status = PAGE_STATUSES[LoginUnknown]
            return self._enter(request, visitor, status, code=code, problem=text_of(error))
        await self._frontend.audit.record(
            "login.approve" if approve else "login.deny",
            visitor.session.principal,
            origin(),
            details={"waits_at": login.address, "program": login.user_agent},
        )
        return self._frontend.show(request, visitor, "device_done.html", approved=approve)

    def _enter(
        self,
        request: Request,
        visitor: Visitor,
        status: int = HTTPStatus.OK,
        *,
        code: str = "",
        problem: str = "",
    ) -> Response:
        return self._frontend.show(
            request, visitor, "device_code.html", status, code=code[:32], problem=problem
        )


def _path(code: str) -> str:
    found = read_code(code)
    return f"/device?code={quote(found)}" if found else "/device"
