"""The provider over HTTP: OpenID Connect Core 1.0 as far as a relying party and a JWKS need it."""

import base64
import html
import json
import secrets
import time
import urllib.parse
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from tests.oidc_provider.keys import Keys, is_verifier_of, sign

_CODE_SECONDS = 60


@dataclass
class User:
    password: str
    claims: dict[str, Any]


@dataclass
class RelyingParty:
    secret: str
    redirect_uris: list[str]


@dataclass
class Grant:
    """What a code stands for."""

    user: str
    query: dict[str, str]
    expires_at: float


@dataclass
class State:
    """Of one issuer."""

    keys: Keys = field(default_factory=Keys)
    users: dict[str, User] = field(default_factory=dict)
    clients: dict[str, RelyingParty] = field(default_factory=dict)
    codes: dict[str, Grant] = field(default_factory=dict)
    access_tokens: dict[str, str] = field(default_factory=dict)
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    next_id_token: dict[str, Any] = field(default_factory=dict)


class Provider:
    def __init__(self, url: str) -> None:
        self._url = url
        self._states: dict[str, State] = {}
        self.app = Starlette(
            routes=[
                Route("/control/{name}/{what}", self._control, methods=["POST"]),
                Route("/{name}/.well-known/openid-configuration", self._discovery),
                Route("/{name}/jwks", self._jwks),
                Route("/{name}/authorize", self._authorize, methods=["GET", "POST"]),
                Route("/{name}/token", self._token, methods=["POST"]),
                Route("/{name}/userinfo", self._userinfo),
            ]
        )

    def _state(self, request: Request) -> State:
        return self._states.setdefault(request.path_params["name"], State())

    def _issuer(self, request: Request) -> str:
        return f"{self._url}/{request.path_params['name']}"

    # What a test tells it.

    async def _control(self, request: Request) -> Response:
        state, told = self._state(request), await request.json()
        match request.path_params["what"]:
            case "sign":
                token = sign(
                    state.keys,
                    told["claims"],
                    told["algorithm"],
                    told["key"],
                    told["headers"],
                    tuple(told["without"]),
                )
                return JSONResponse({"token": token})
            case "rotate":
                state.keys.rotate(keep_old=told["keep_old"])
            case "answer":
                state.answers[told["document"]] = told["how"]
            case "asked":
                return JSONResponse({"discovery": 0, "jwks": 0, **state.asked})
            case "user":
                state.users[told["name"]] = User(told["password"], told["claims"])
            case "client":
                state.clients[told["client_id"]] = RelyingParty(
                    told["secret"], told["redirect_uris"]
                )
            case "next_id_token":
                state.next_id_token = told["changes"]
        return JSONResponse({})

    # What a relying party asks.

    async def _discovery(self, request: Request) -> Response:
        issuer = self._issuer(request)
        return self._document(
            request,
            "discovery",
            {
                "issuer": issuer,
                "jwks_uri": f"{issuer}/jwks",
                "authorization_endpoint": f"{issuer}/authorize",
                "token_endpoint": f"{issuer}/token",
                "userinfo_endpoint": f"{issuer}/userinfo",
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256", "ES256", "EdDSA"],
                "code_challenge_methods_supported": ["S256"],
                "token_endpoint_auth_methods_supported": [
                    "client_secret_basic",
                    "client_secret_post",
                ],
                "scopes_supported": ["openid", "profile", "email"],
            },
        )

    async def _jwks(self, request: Request) -> Response:
        return self._document(request, "jwks", dict(self._state(request).keys.published()))

    def _document(self, request: Request, name: str, document: dict[str, Any]) -> Response:
        state = self._state(request)
        state.asked[name] += 1
        how = state.answers.get(name, {})
        if "body" in how:
            content = str(how["body"])
        else:
            content = json.dumps(how.get("json", {**document, **how.get("merge", {})}))
        return Response(
            content,
            how.get("status", 200),
            headers=how.get("headers", {}),
            media_type="application/json",
        )

    async def _authorize(self, request: Request) -> Response:
        state, query = self._state(request), dict(request.query_params)
        client = state.clients.get(query.get("client_id", ""))
        if client is None or query.get("redirect_uri") not in client.redirect_uris:
            # Never a redirect to where nobody registered.
            return HTMLResponse("unknown client or redirect_uri", 400)
        if query.get("response_type") != "code" or "openid" not in query.get("scope", "").split():
            return self._sent_back(query, error="invalid_request")
        if query.get("code_challenge_method") != "S256" or not query.get("code_challenge"):
            return self._sent_back(query, error="invalid_request")
        if request.method == "GET":
            target = html.escape(f"?{request.url.query}")
            return HTMLResponse(
                f'<form method="post" action="{target}"><input name="user">'
                '<input name="password" type="password"><button>Sign in</button></form>'
            )
        form = urllib.parse.parse_qs((await request.body()).decode())
        name, password = (form.get(field, [""])[0] for field in ("user", "password"))
        user = state.users.get(name)
        if user is None or user.password != password:
            return self._sent_back(query, error="access_denied")
        code = secrets.token_urlsafe(16)
        state.codes[code] = Grant(name, query, time.time() + _CODE_SECONDS)
        return self._sent_back(query, code=code)

    def _sent_back(self, query: dict[str, str], **answer: str) -> Response:
        if "state" in query:
            answer["state"] = query["state"]
        uri = query["redirect_uri"]
        separator = "&" if "?" in uri else "?"
        return RedirectResponse(f"{uri}{separator}{urllib.parse.urlencode(answer)}", 302)

    async def _token(self, request: Request) -> Response:
        state = self._state(request)
        form = {
            name: values[0]
            for name, values in urllib.parse.parse_qs((await request.body()).decode()).items()
        }
        client_id, secret = _client_credentials(request, form)
        client = state.clients.get(client_id)
        if client is None or not secrets.compare_digest(client.secret, secret):
            return JSONResponse({"error": "invalid_client"}, 401)
        # A code is good once.
        grant = state.codes.pop(form.get("code", ""), None)
        if (
            form.get("grant_type") != "authorization_code"
            or grant is None
            or grant.expires_at < time.time()
            or grant.query["client_id"] != client_id
            or grant.query["redirect_uri"] != form.get("redirect_uri")
            or not is_verifier_of(form.get("code_verifier", ""), grant.query["code_challenge"])
        ):
            return JSONResponse({"error": "invalid_grant"}, 400)
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": self._issuer(request),
            "sub": grant.user,
            "aud": client_id,
            "iat": now,
            "exp": now + 300,
            **state.users[grant.user].claims,
        }
        if "nonce" in grant.query:
            claims["nonce"] = grant.query["nonce"]
        changes, state.next_id_token = state.next_id_token, {}
        claims |= changes.get("claims", {})
        claims = {name: value for name, value in claims.items() if value is not None}
        access_token = secrets.token_urlsafe(16)
        state.access_tokens[access_token] = grant.user
        return JSONResponse(
            {
                "access_token": access_token,
                "token_type": "Bearer",
                "expires_in": 300,
                "id_token": sign(
                    state.keys,
                    claims,
                    changes.get("algorithm", "RS256"),
                    changes.get("key", "current"),
                    {},
                ),
            },
            headers={"cache-control": "no-store"},
        )

    async def _userinfo(self, request: Request) -> Response:
        state = self._state(request)
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        user = state.access_tokens.get(token)
        if user is None:
            return JSONResponse({"error": "invalid_token"}, 401)
        return JSONResponse({"sub": user, **state.users[user].claims})


def _client_credentials(request: Request, form: dict[str, str]) -> tuple[str, str]:
    """client_secret_basic or client_secret_post (OpenID Connect Core 1.0, section 9)."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        user, _, secret = base64.b64decode(value).decode().partition(":")
        return urllib.parse.unquote_plus(user), urllib.parse.unquote_plus(secret)
    return form.get("client_id", ""), form.get("client_secret", "")
