"""/token: trades a token for a registry token (distribution's "Token Authentication
Specification", GET; "OAuth2 Token Authentication", POST)."""

import re
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from layover.audit.log import AuditLog
from layover.http.oci.auth import CATALOG_SCOPE, Authenticator, check_user_name
from layover.http.oci.errors import InvalidRequest
from layover.http.oci.paths import bounded_body
from layover.http.origin import origin
from layover.identity.models import Principal, Unauthenticated
from layover.identity.registry_tokens import CATALOG, LIFETIME, RegistryTokens, Scope

_SCOPE = re.compile(
    r"repository(?:\([a-z]+\))?:(?P<name>[^ :]+(?::[0-9]+/[^ :]+)?):(?P<actions>[a-z,*]+)"
)
TOKEN_PATH = "/token"  # noqa: S105  # a path
_MAX_SCOPES = 100
_MAX_FORM_BYTES = 64 << 10
_MAX_FORM_FIELDS = 20


class TokenRoutes:
    """Any holder of a token gets a registry token; what it can do is decided when it is used."""

    def __init__(
        self, authenticator: Authenticator, tokens: RegistryTokens, audit: AuditLog
    ) -> None:
        self._authenticator, self._tokens, self._audit = authenticator, tokens, audit

    def routes(self) -> list[Route]:
        return [Route(TOKEN_PATH, self._token, methods=["GET", "POST"])]

    async def _token(self, request: Request) -> Response:
        if request.method == "POST":
            principal, texts = await self._form(request)
        else:
            caller = await self._authenticator.caller(request)
            if caller.scopes is not None:
                # What one of ours is good for, and for how long, is all that it is good for.
                raise Unauthenticated
            principal = caller.principal
            texts = request.query_params.getlist("scope")
        token = self._tokens.issue(principal, _scopes(texts))
        # Clients log in for each push and pull.
        await self._audit.record("login.registry", principal, origin(), is_counted=True)
        return JSONResponse(
            {
                # Clients read the one or the other.
                "token": token,
                "access_token": token,
                "expires_in": int(LIFETIME.total_seconds()),
            },
            headers={"Cache-Control": "no-store"},
        )

    async def _form(self, request: Request) -> tuple[Principal, list[str]]:
        body = await bounded_body(request, _MAX_FORM_BYTES, InvalidRequest("the form is too large"))
        try:
            form = parse_qs(body.decode(), max_num_fields=_MAX_FORM_FIELDS)
        except ValueError as error:
            raise InvalidRequest("malformed form") from error
        match form.get("grant_type"):
            case ["password"]:
                check_user_name(form.get("username", [""])[0])
                secret = form.get("password", [""])[0]
            case ["refresh_token"]:
                secret = form.get("refresh_token", [""])[0]
            case _:
                raise InvalidRequest("grant_type has to be password or refresh_token")
        return await self._authenticator.holder(secret), form.get("scope", [])


def _scopes(texts: list[str]) -> tuple[Scope, ...]:
    """The scopes asked for; what is malformed or of a kind that we have not gives nothing."""
    words = [word for text in texts for word in text.split()][:_MAX_SCOPES]
    return tuple(scope for word in words if (scope := _scope(word)) is not None)


def _scope(word: str) -> Scope | None:
    if word == CATALOG_SCOPE:
        return CATALOG
    match = _SCOPE.fullmatch(word)
    return Scope(match["name"], _actions(match["actions"])) if match else None


def _actions(text: str) -> frozenset[str]:
    actions = frozenset(text.split(","))
    return actions | {"pull", "push", "delete"} if "*" in actions else actions
