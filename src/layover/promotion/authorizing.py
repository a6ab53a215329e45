"""What a client gives a push to show a registry: read once, and quoted in no error."""

import base64
import re
from datetime import datetime

from layover.promotion.models import Authorization, AuthorizationScheme, InvalidPush

MAX_SECRET_BYTES = 64 << 10

# RFC 6750, section 2.1, and what more of ASCII registries put into tokens. No space and no control
# character: it stands in a header.
_TOKEN = re.compile(r"[\x21-\x7e]+")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def bearer(token: str, expires_at: datetime | None = None) -> Authorization:
    """A token of a registry. Raises InvalidPush."""
    if len(token) > MAX_SECRET_BYTES:
        raise InvalidPush(f"a registry's token is longer than {MAX_SECRET_BYTES} bytes")
    if _TOKEN.fullmatch(token) is None:
        raise InvalidPush("a registry's token is empty, or has characters that no token has")
    return Authorization(AuthorizationScheme.BEARER, token, expires_at)


def basic(username: str, password: str) -> Authorization:
    """A user of a registry that knows Basic alone (RFC 7617). Raises InvalidPush."""
    if not username or ":" in username:
        raise InvalidPush("a registry's user name is empty or has a colon")
    text = f"{username}:{password}"
    if _CONTROLS.search(text):
        raise InvalidPush("a registry's user name or password has control characters")
    encoded = base64.b64encode(text.encode())
    if len(encoded) > MAX_SECRET_BYTES:
        raise InvalidPush(f"a registry's password is longer than {MAX_SECRET_BYTES} bytes")
    return Authorization(AuthorizationScheme.BASIC, encoded.decode())


def basic_encoded(secret: str) -> Authorization:
    """As `basic`, of `user:password` in base64. Raises InvalidPush."""
    if len(secret) > MAX_SECRET_BYTES:
        raise InvalidPush(f"a registry's password is longer than {MAX_SECRET_BYTES} bytes")
    try:
        username, colon, password = base64.b64decode(secret, validate=True).decode().partition(":")
    except ValueError:
        # Without its cause: that quotes what it could not read.
        raise InvalidPush("malformed Basic credentials for the registry") from None
    if not colon:
        raise InvalidPush("malformed Basic credentials for the registry")
    return basic(username, password)
