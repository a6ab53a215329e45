"""Forms as they come back: from a page of ours, in the browser that it was sent to.

Two checks stand beside the cookies' SameSite=Lax, each enough by itself: what the browser says of
where a request comes from (Sec-Fetch-Site, Origin), and a token that only our own page knows.
"""

from collections.abc import Mapping
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import Request

from layover.errors import LayoverError
from layover.http.oci.paths import bounded_body

# The field with the token, in every form.
CSRF_FIELD = "csrf"

_MAX_BYTES = 16 * 1024
_MAX_FIELDS = 20

# "none" is what a user does without any page, as sending a form again.
_OWN_SITES = frozenset({"same-origin", "none"})


class FormRefused(LayoverError):
    """A form that did not come from a page of ours, or from one that is out of date."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            "this form is out of date, or did not come from this server's own page: go back,"
            " load the page again, and send it once more"
        )
        self.reason = reason


class FormTooLarge(LayoverError):
    """More than any form of ours holds."""

    def __init__(self) -> None:
        super().__init__("the form is too large")


async def read_form(request: Request, url: str) -> Mapping[str, str]:
    """The fields of a form that a page at `url`, which is our own address, sent.

    Raises FormRefused, FormTooLarge.
    """
    check_source(request, url)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise FormRefused("content-type")
    body = await bounded_body(request, _MAX_BYTES, FormTooLarge())
    try:
        fields = parse_qsl(
            body.decode(), keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="strict"
        )
    except ValueError as error:
        raise FormRefused("malformed") from error
    form = dict(fields)
    if len(form) < len(fields):
        raise FormRefused("a field twice")
    return form


def check_source(request: Request, url: str) -> None:
    """Raise FormRefused when the browser says that another site's page sent the request."""
    site = request.headers.get("sec-fetch-site", "same-origin")
    if site not in _OWN_SITES:
        raise FormRefused("sec-fetch-site")
    told = request.headers.get("origin")
    if told is None:
        return
    own, origin = urlsplit(url), _split(told)
    # A server may be reached by other names than its public one, as by localhost; the browser
    # says itself which name its user went to.
    names = {own.netloc.lower(), request.headers.get("host", "").lower()}
    if origin is None or origin[0] != own.scheme or origin[1] not in names:
        raise FormRefused("origin")


def _split(origin: str) -> tuple[str, str] | None:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return None
    return (parts.scheme, parts.netloc.lower()) if parts.netloc else None
