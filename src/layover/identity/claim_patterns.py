"""What a trust policy asks of a token's claims.

A claim is named as it stands in the token, `repository` or `oidc.circleci.com/project-id`; one
that lies deeper by a JSON pointer (RFC 6901), which begins with a slash:
`/kubernetes.io/namespace`, with `~1` for a slash in a name and `~0` for a tilde. A list is entered
by its elements' numbers.

A pattern is the claim's whole text, in which `*` stands for any text, also none and also one with
slashes in it. Nothing else is special, and case matters. A number is matched as JSON writes it, a
boolean as `true` or `false`, a list when one of its elements matches. What is missing, null, a
fraction or an object matches nothing, not even `*`.
"""

from collections.abc import Mapping

MAX_PATTERN_LENGTH = 1024
MAX_NAME_LENGTH = 256

ANY = "*"


def is_anything(pattern: str) -> bool:
    """Whether every text matches."""
    return not pattern.strip(ANY)


def matches(pattern: str, text: str) -> bool:
    """Whether the pattern stands for the whole text.

    The parts between the stars are looked for from left to right, each as soon as it can be, so
    there is nothing to go back to: the time grows as the text does.
    """
    first, *rest = pattern.split(ANY)
    if not rest:
        return text == pattern
    *middle, last = rest
    end = len(text) - len(last)
    if not text.startswith(first) or not text.endswith(last) or end < len(first):
        return False
    at = len(first)
    for part in middle:
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def claim_matches(claims: Mapping[str, object], name: str, pattern: str) -> bool:
    """Whether the claim of this name is there and stands for what the pattern asks."""
    value = find_claim(claims, name)
    if isinstance(value, list):
        return any(_value_matches(pattern, element) for element in value)
    return _value_matches(pattern, value)


def find_claim(claims: Mapping[str, object], name: str) -> object:
    """The claim's value, None when there is none."""
    if not name.startswith("/"):
        return claims.get(name)
    found: object = claims
    for part in name[1:].split("/"):
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, Mapping):
            found = found.get(key)
        elif isinstance(found, list) and key.isascii() and key.isdigit() and len(key) < 6:
            found = found[int(key)] if int(key) < len(found) else None
        else:
            return None
    return found


def _value_matches(pattern: str, value: object) -> bool:
    match value:
        case str():
            return matches(pattern, value)
        case bool():
            return matches(pattern, "true" if value else "false")
        case int() if abs(value) < 2**63:
            return matches(pattern, str(value))
        case _:
            return False
