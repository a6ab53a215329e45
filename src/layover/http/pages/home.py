"""/: who is signed in, and where they are a member."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from layover.http.pages.frontend import Frontend, see_other
from layover.http.pages.return_to import sign_in_path


class HomeRoutes:
    """The page that a user comes to after signing in."""

    def __init__(self, frontend: Frontend, url: str) -> None:
        self._frontend, self._url = frontend, url

    def routes(self) -> list[Route]:
        return [self._frontend.route("/", self._get, "GET")]

    async def _get(self, request: Request) -> Response:
        visitor = await self._frontend.visitor(request)
        if visitor.session is None:
            return see_other(sign_in_path("/"))
        return self._frontend.show(
            request,
            visitor,
            "home.html",
            memberships=visitor.session.memberships,
            url=self._url,
        )
