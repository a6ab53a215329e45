"""/join/SECRET: an invitation, for whoever has its link.

Looking at it changes nothing: what previews links, and a user who only reads, use nothing up.
"""

from http import HTTPStatus
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from layover.http.origin import origin
from layover.http.pages.errors import PAGE_STATUSES, text_of
from layover.http.pages.frontend import Frontend, Visitor, see_other
from layover.identity.management import Invitation
from layover.identity.models import Organization, Principal, TokenKind
from layover.identity.sign_in import SignInService
from layover.identity.sign_in_models import (
    InvalidPassword,
    InvalidUserName,
    UserNameTaken,
)

# What a user who makes a new account can do otherwise.
_MENDABLE = (InvalidPassword, InvalidUserName, UserNameTaken)


class Invitations(Protocol):
    """As much of identity's organizations as joining takes."""

    async def find_invitation(self, secret: str) -> tuple[Invitation, Organization]: ...

    async def accept(self, user_id: str, secret: str) -> Organization: ...


class JoinRoutes:
    """Shows an invitation, and lets its reader accept it."""

    def __init__(
        self, frontend: Frontend, sign_in: SignInService, invitations: Invitations
    ) -> None:
        self._frontend, self._sign_in, self._invitations = frontend, sign_in, invitations

    def routes(self) -> list[Route]:
        return [
            self._frontend.route("/join/{secret}", self._get, "GET"),
            self._frontend.route("/join/{secret}", self._post, "POST"),
        ]

    async def _get(self, request: Request) -> Response:
        return await self._page(request, await self._frontend.visitor(request))

    async def _post(self, request: Request) -> Response:
        visitor = await self._frontend.visitor(request)
        form = await self._frontend.form(request, visitor)
        secret = request.path_params["secret"]
        if visitor.session is not None:
            await self._accept(visitor.session.principal, secret)
            return see_other("/")
        # A stranger makes no user without one.
        await self._invitations.find_invitation(secret)
        name, password = form.get("name", ""), form.get("password", "")
        if password != form.get("password_again", ""):
            problem = "The two passwords are not the same."
            return await self._page(
                request, visitor, HTTPStatus.UNPROCESSABLE_ENTITY, name=name, problem=problem
            )
        try:
            user = await self._sign_in.create_local_user(name, password)
        except _MENDABLE as error:
            status = PAGE_STATUSES[type(error)]
            return await self._page(request, visitor, status, name=name, problem=text_of(error))
        by = Principal("", TokenKind.USER, user_id=user.id, name=user.name)
        await self._accept(by, secret)
        session = await self._sign_in.start_session(user, "invitation")
        return await self._frontend.signed_in(see_other("/"), session, "login.invitation")

    async def _accept(self, by: Principal, secret: str) -> None:
        assert by.user_id is not None
        organization = await self._invitations.accept(by.user_id, secret)
        await self._frontend.audit.record(
            "members.join", by, origin(), where=organization, subject=by.user_id
        )

    async def _page(
        self,
        request: Request,
        visitor: Visitor,
        status: int = HTTPStatus.OK,
        *,
        name: str = "",
        problem: str = "",
    ) -> Response:
        secret = request.path_params["secret"]
        invitation, organization = await self._invitations.find_invitation(secret)
        return self._frontend.show(
            request,
            visitor,
            "join.html",
            status,
            organization=organization,
            role=invitation.role,
            secret=secret,
            name=name[:100],
            problem=problem,
        )
