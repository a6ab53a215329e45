"""Repository names and references (distribution-spec v1.1.1, "Pulling manifests").

A name is parsed once, at the edge; past it nobody validates a `str` again.
"""

import re
from dataclasses import dataclass
from typing import Self

from layover.errors import LayoverError
from layover.oci.digest import Digest

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")

# The length that many clients allow for a host and a name together, as the specification notes.
MAX_NAME_LENGTH = 255


class InvalidRepositoryName(LayoverError):
    """The text is not a repository name."""

    def __init__(self, text: str) -> None:
        super().__init__(
            f"invalid repository name {text[:300]!r}: expected lower-case letters and digits,"
            f" joined by '.', '_', '__' or '-' and '/', at most {MAX_NAME_LENGTH} characters"
        )
        self.text = text


class InvalidTag(LayoverError):
    """The text is neither a tag nor a digest."""

    def __init__(self, text: str) -> None:
        super().__init__(
            f"invalid tag {text[:150]!r}: expected 1 to 128 letters, digits, '_', '.' or '-',"
            " the first no '.' or '-'"
        )
        self.text = text


@dataclass(frozen=True, slots=True, order=True)
class RepositoryName:
    """A repository's name; its first path component is its project's ID."""

    value: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raise InvalidRepositoryName unless `text` is a well-formed name."""
        if len(text) > MAX_NAME_LENGTH or _NAME.fullmatch(text) is None:
            raise InvalidRepositoryName(text)
        return cls(text)

    @property
    def project_id(self) -> str:
        return self.value.split("/", 1)[0]

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True, order=True)
class Tag:
    """A mutable name of a manifest within a repository."""

    value: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raise InvalidTag unless `text` is a well-formed tag."""
        if _TAG.fullmatch(text) is None:
            raise InvalidTag(text)
        return cls(text)

    def __str__(self) -> str:
        return self.value


Reference = Tag | Digest


def parse_reference(text: str) -> Reference:
    """Read the `<reference>` of a manifest's path: a digest if it has a colon, else a tag.

    Raises InvalidDigest or InvalidTag.
    """
    return Digest.parse(text) if ":" in text else Tag.parse(text)
