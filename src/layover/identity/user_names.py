"""What users may be called, so that no name passes for another."""

import re

from layover.identity.sign_in_models import InvalidUserName

_LONGEST = 64
_LOCAL = re.compile(rf"[a-z0-9][a-z0-9._-]{{0,{_LONGEST - 1}}}")

# A provider's names may be addresses; what else they hold could look like anything.
_FOREIGN = re.compile(r"[^a-z0-9._@+-]+")

# Room for what makes a name unlike the others'.
_LONGEST_FOREIGN = 48


def parse_user_name(text: str) -> str:
    """A local user's name, in lower case. Raises InvalidUserName."""
    name = text.strip().lower()
    if _LOCAL.fullmatch(name) is None:
        raise InvalidUserName
    return name


def shown_name(*candidates: object) -> str:
    """A name for a user of a provider: the first of its claims that has letters or digits."""
    for candidate in candidates:
        if not isinstance(candidate, str):
            continue
        name = _FOREIGN.sub("-", candidate[:1000].strip().lower())[:_LONGEST_FOREIGN].strip("-._@+")
        if name:
            return name
    return "user"
