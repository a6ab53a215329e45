"""Where a server is, and the token that it knows us by."""

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from layover.client.errors import ClientError


class InvalidAddress(ClientError):
    """The text is not the address of a server."""

    def __init__(self, text: str) -> None:
        super().__init__(
            f"{text!r} is not a server's address: expected one like https://layover.example.com"
        )
        self.text = text


class InvalidToken(ClientError):
    """The text cannot be a token. The message doesn't repeat it: it may hold one."""

    def __init__(self) -> None:
        super().__init__(
            "the token cannot be one: there is a space, a line break or another character in it"
            " that no token has"
        )


def parse_token(text: str) -> str:
    """A token without what surrounds it in a file or a variable. Raises InvalidToken."""
    token = text.strip()
    # It is sent in an HTTP header, whose library would quote it in its error.
    if not token.isascii() or not token.isprintable() or " " in token:
        raise InvalidToken
    return token


def parse_url(text: str) -> str:
    """Bring a server's address into the one form that it is kept and compared in.

    Raises InvalidAddress. User names and passwords in an address are refused: an address is
    shown in messages and a token is not.
    """
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError:
        raise InvalidAddress(text) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise InvalidAddress(text)
    if parts.query or parts.fragment:
        raise InvalidAddress(text)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    default_port = {"http": 80, "https": 443}[parts.scheme]
    netloc = host if port in (None, default_port) else f"{host}:{port}"
    return f"{parts.scheme}://{netloc}{parts.path.rstrip('/')}"


@dataclass(frozen=True, slots=True)
class Server:
    """A server's address, in `parse_url`'s form, and a token for it."""

    url: str
    token: str = field(repr=False)

    @property
    def registry_host(self) -> str:
        """The registry's host, with its port when it has one, as in an image's name."""
        return urlsplit(self.url).netloc

    @property
    def is_plain_http(self) -> bool:
        return self.url.startswith("http://")
