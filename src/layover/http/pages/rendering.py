"""The pages' HTML: templates that escape whatever they are given, under a policy that runs nothing.

There is no script in any page. Should a name ever come through unescaped, the browser runs nothing
of it either, loads nothing from elsewhere, and sends no form to anybody else.
"""

import hashlib
from functools import cache
from http import HTTPStatus
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none';"
    " frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    # The forms' Origin needs it; another site learns nothing of where its visitor came from.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}

_ASSETS = {"layover.css": "text/css", "layover.svg": "image/svg+xml"}
_ASSET_LIFETIME_SECONDS = 86_400

_environment = Environment(
    loader=PackageLoader("layover.http.pages"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, status: int = HTTPStatus.OK, **facts: object) -> HTMLResponse:
    """A page. What is in `facts` is text, however much it looks like HTML."""
    content = _environment.get_template(template).render(asset=_asset_path, **facts)
    return HTMLResponse(content, int(status), headers=_HEADERS)


def asset_routes() -> list[Route]:
    """The stylesheet and the icon."""
    return [Route("/assets/{name}", _asset, methods=["GET"])]


async def _asset(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _ASSETS:
        return Response("not found\n", HTTPStatus.NOT_FOUND, media_type="text/plain")
    headers = {"cache-control": f"public, max-age={_ASSET_LIFETIME_SECONDS}"}
    return Response(_content(name), media_type=_ASSETS[name], headers=headers)


def _asset_path(name: str) -> str:
    """Where the asset is, as it is in this release: a changed one is another."""
    return f"/assets/{name}?v={hashlib.sha256(_content(name)).hexdigest()[:12]}"


@cache
def _content(name: str) -> bytes:
    return files("layover.http.pages").joinpath("static", name).read_bytes()
