"""Changing one member of a JSON document and leaving every other byte of it alone.

For files that belong to others: their order, indentation, numbers and escapes stay as they are.
Offsets are into the text that was parsed.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


@dataclass(frozen=True, slots=True)
class Number:
    """A number as it is written: no document is refused for one that is too long for an int."""

    text: str


_DECODER = json.JSONDecoder(parse_constant=_no_constant, parse_int=Number, parse_float=Number)

_SPACE = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an object, and where its key and its value stand."""

    key: str
    key_start: int
    key_end: int
    value_start: int
    value_end: int


@dataclass(frozen=True, slots=True)
class ObjectText:
    """An object of a document: where it stands, braces included, and its members in order."""

    start: int
    end: int
    members: tuple[Member, ...]

    def find(self, key: str) -> Member | None:
        """The member of this key; of several the last, as Go and Python take it."""
        return next((member for member in reversed(self.members) if member.key == key), None)


def parse(text: str) -> Any:
    """The document's value. Raises ValueError, also for one that is nested too deeply."""
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_object(text: str, start: int = 0) -> ObjectText:
    """The object at `start`, or behind the space there, of a text that `parse` took."""
    start = position = _skip(text, start)
    if text[position] != "{":
        raise ValueError("not an object")
    position = _skip(text, position + 1)
    members: list[Member] = []
    while text[position] != "}":
        if text[position] == ",":
            position = _skip(text, position + 1)
        key, key_end = _DECODER.raw_decode(text, position)
        colon = _skip(text, key_end)
        value_start = _skip(text, colon + 1)
        _, value_end = _DECODER.raw_decode(text, value_start)
        members.append(Member(str(key), position, key_end, value_start, value_end))
        position = _skip(text, value_end)
    return ObjectText(start, position + 1, tuple(members))


def with_member(text: str, owner: ObjectText, key: str, value: str | dict[str, str]) -> str:
    """The text with one more member at the end of `owner`, written as its last one is.

    `without_member` takes it away again to the byte.
    """
    if not owner.members:
        # Whatever space there is stays behind it.
        inside = owner.start + 1
        return f"{text[:inside]}{json.dumps(key)}: {json.dumps(value)}{text[inside:]}"
    last = owner.members[-1]
    before = _gap(text, last.key_start)
    colon = text[last.key_end : last.value_start]
    written = json.dumps(value)
    if isinstance(value, dict):
        written = _object(value, before, colon)
    return (
        f"{text[: last.value_end]},{before}{json.dumps(key)}{colon}{written}"
        + (text[last.value_end :])
    )


def without_member(text: str, owner: ObjectText, member: Member) -> str:
    """The text without a member of `owner`, and without the comma that set it apart."""
    index = owner.members.index(member)
    if index > 0:
        return text[: owner.members[index - 1].value_end] + text[member.value_end :]
    if len(owner.members) > 1:
        return text[: member.key_start] + text[owner.members[1].key_start :]
    return text[: member.key_start] + text[member.value_end :]


def _object(members: dict[str, str], before: str, colon: str) -> str:
    """An object in a document whose members of the first level have `before` before them."""
    if "\n" not in before:
        written = [f"{json.dumps(key)}{colon}{json.dumps(value)}" for key, value in members.items()]
        return "{" + ", ".join(written) + "}"
    line, _, indent = before.rpartition("\n")
    line += "\n"
    written = [
        f"{line}{indent * 2}{json.dumps(key)}{colon}{json.dumps(value)}"
        for key, value in members.items()
    ]
    return "{" + ",".join(written) + f"{line}{indent}" + "}"


def _gap(text: str, end: int) -> str:
    """The space that ends at `end`."""
    start = end
    while text[start - 1] in " \t\r\n":
        start -= 1
    return text[start:end]


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return position if match is None else match.end()
