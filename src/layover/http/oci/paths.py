"""What the registry's paths and query parameters say."""

from collections.abc import AsyncIterator, Mapping
from urllib.parse import urlencode

from starlette.requests import ClientDisconnect, Request

from layover.errors import LayoverError
from layover.http.oci.errors import InvalidRequest
from layover.oci.names import RepositoryName
from layover.registry.models import UploadTruncated

MAX_PAGE = 10_000


def repository_of(request: Request) -> RepositoryName:
    """The `<name>` of the path. Raises InvalidRepositoryName."""
    return RepositoryName.parse(request.path_params["name"])


def page_limit(request: Request) -> int:
    """How many entries of a listing are answered: its `n`, or the most. Raises InvalidRequest."""
    text = request.query_params.get("n")
    if text is None:
        return MAX_PAGE
    if not text.isascii() or not text.isdigit():
        raise InvalidRequest("n has to be a number")
    digits = text.lstrip("0") or "0"
    return MAX_PAGE if len(digits) > len(str(MAX_PAGE)) else min(int(digits), MAX_PAGE)


def next_page(path: str, query: Mapping[str, str]) -> str:
    """The Link header that leads to the next page (RFC 8288)."""
    return f'<{path}?{urlencode(query)}>; rel="next"'


async def content(request: Request) -> AsyncIterator[bytes]:
    """The request's body as it arrives. Raises UploadTruncated when the client goes away."""
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect as error:
        raise UploadTruncated from error


async def bounded_body(request: Request, limit_bytes: int, too_large: LayoverError) -> bytes:
    """The whole body. Raises `too_large` before more than the limit is held."""
    body = bytearray()
    async for chunk in content(request):
        body += chunk
        if len(body) > limit_bytes:
            raise too_large
    return bytes(body)
