"""Where a user goes on to after signing in: a path of this server, and never another's address."""

import re
from urllib.parse import quote

HOME = "/"

_LONGEST = 512

# What our own paths are made of. Without "//", "\", "%" and ":" no browser reads anything else out
# of it than a path, however it is decoded on the way.
_OWN = re.compile(r"/(?:[A-Za-z0-9._~-]+/)*[A-Za-z0-9._~-]*(?:\?[A-Za-z0-9._~=&-]*)?")

# Nobody signs in in order to sign in.
_NOT_AFTERWARDS = ("/signin", "/signout")


def own_path(text: str) -> str:
    """`text` when it is a path of ours, else the home page."""
    if len(text) > _LONGEST or _OWN.fullmatch(text) is None:
        return HOME
    path = text.partition("?")[0]
    if path.startswith(_NOT_AFTERWARDS) or not {".", ".."}.isdisjoint(path.split("/")):
        return HOME
    return text


def sign_in_path(return_to: str) -> str:
    """The sign-in page that leads on to `return_to`."""
    path = own_path(return_to)
    return "/signin" if path == HOME else f"/signin?return_to={quote(path, safe='/')}"
