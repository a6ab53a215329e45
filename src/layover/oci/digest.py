"""Digests: what names a blob or a manifest (image-spec v1.1.1, "Digests")."""

import hashlib
import re
from dataclasses import dataclass
from typing import Protocol, Self

from layover.errors import LayoverError

# image-spec v1.1.1, "Registered Algorithms".
_HEX_LENGTHS = {"sha256": 64, "sha512": 128}
_DIGEST = re.compile(r"(sha256|sha512):([0-9a-f]+)")


class Hash(Protocol):
    """The part of a hashlib object that is used here."""

    @property
    def name(self) -> str: ...
    def update(self, data: bytes | bytearray | memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...


class InvalidDigest(LayoverError):
    """The text is not a digest of a registered algorithm."""

    def __init__(self, text: str) -> None:
        super().__init__(
            f"invalid digest {text[:150]!r}: expected sha256: and 64, or sha512: and 128,"
            " lower-case hexadecimal digits"
        )
        self.text = text


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """An algorithm and the lower-case hexadecimal hash of some bytes."""

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raise InvalidDigest unless `text` is a well-formed digest we can verify."""
        match = _DIGEST.fullmatch(text)
        if match is None or len(match[2]) != _HEX_LENGTHS[match[1]]:
            raise InvalidDigest(text)
        return cls(match[1], match[2])

    @classmethod
    def of(cls, content: bytes, algorithm: str = "sha256") -> Self:
        """Hash `content`."""
        return cls(algorithm, hashlib.new(algorithm, content).hexdigest())

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


def new_hash(algorithm: str) -> Hash:
    """Start a hash of a registered algorithm."""
    return hashlib.new(algorithm)
