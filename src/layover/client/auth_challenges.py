"""What a registry answers a stranger with: `WWW-Authenticate` (RFC 9110, section 11.6.1).

    Bearer realm="https://auth.example.com/token",service="registry.example.com", Basic realm="x"

A list of challenges, each a list of parameters, with the same comma between both.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from layover.client.errors import ClientError

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SEPARATORS = re.compile(r"[ \t,]*")
_SCHEME = re.compile(rf"({_WORD})(?=[ \t,]|$)")
_CREDENTIALS = re.compile(r"[ \t]+([A-Za-z0-9._~+/-]+=*)[ \t]*(?=,|$)")
_PARAMETER = re.compile(
    rf"({_WORD})[ \t]*=[ \t]*"
    # A tab and whatever can be seen; what a backslash stands before is itself.
    rf'(?:({_WORD})|"((?:[\t !#-\[\]-~\x80-\U0010ffff]|\\[\t -~\x80-\U0010ffff])*)")'
    r"[ \t]*(?=,|$)"
)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)

# As much as a registry could want to say, many times over.
_MAX_CHARACTERS = 16 << 10


class ChallengesInvalid(ClientError):
    """The header does not say how to sign in, or not in one way alone."""

    def __init__(self) -> None:
        super().__init__("its WWW-Authenticate header is malformed")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to sign in."""

    scheme: str
    """In lower case: `bearer`, `basic`."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """By their names in lower case."""


def parse_challenges(values: Sequence[str]) -> tuple[Challenge, ...]:
    """Read the values of every such header of an answer, in their order.

    Raises ChallengesInvalid. A parameter that is there twice is not chosen from: who else reads the
    header might choose the other.
    """
    text = ",".join(values)
    if len(text) > _MAX_CHARACTERS:
        raise ChallengesInvalid
    found: list[tuple[str, dict[str, str]]] = []
    position = _after(_SEPARATORS, text, 0)
    while position < len(text):
        if parameter := _PARAMETER.match(text, position):
            name, plain, quoted = parameter.groups()
            if not found or name.lower() in found[-1][1]:
                raise ChallengesInvalid
            found[-1][1][name.lower()] = _ESCAPED.sub(r"\1", quoted) if plain is None else plain
            position = parameter.end()
        elif scheme := _SCHEME.match(text, position):
            found.append((scheme[1].lower(), {}))
            position = scheme.end()
            if credentials := _CREDENTIALS.match(text, position):
                # For other schemes than a registry's: of no use, and no parameter.
                position = credentials.end()
        else:
            raise ChallengesInvalid
        position = _after(_SEPARATORS, text, position)
    return tuple(Challenge(scheme, parameters) for scheme, parameters in found)


def _after(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    return position if match is None else match.end()
