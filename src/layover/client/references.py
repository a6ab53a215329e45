"""Image references as a user writes them: [HOST[:PORT]/]REPOSITORY[:TAG][@DIGEST]."""

import re
from dataclasses import dataclass
from typing import Self

from layover.client.errors import ClientError
from layover.oci.digest import Digest
from layover.oci.names import RepositoryName, Tag
from layover.oci.references import split_registry

# Build and project IDs: ten lower-case base32 characters.
_ID = re.compile(r"[a-z2-7]{10}")


class InvalidImage(ClientError):
    """The text is not an image reference."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(f"invalid image reference {text[:300]!r}: {reason}")
        self.text = text


def is_id(text: str) -> bool:
    """Whether `text` has the form of a build's or a project's ID."""
    return _ID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Image:
    """A parsed reference. `host` is empty where the text has none."""

    host: str
    repository: str
    tag: str = ""
    digest: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises InvalidImage, or one of `oci`'s errors for a malformed part."""
        rest, _, digest = text.partition("@")
        host, rest = split_registry(rest)
        repository, _, tag = rest.partition(":")
        if not repository:
            raise InvalidImage(text, "it has no repository")
        RepositoryName.parse(repository)
        if tag or rest.endswith(":"):
            Tag.parse(tag)
        if digest or text.endswith("@"):
            Digest.parse(digest)
        return cls(host, repository, tag, digest)

    @classmethod
    def parse_name(cls, text: str) -> Self:
        """Parse what an image is to be called: a reference without a digest. Raises as `parse`."""
        image = cls.parse(text)
        if image.digest:
            raise InvalidImage(text, "an image is not named by a digest")
        return image

    @property
    def name(self) -> str:
        """The reference without its tag and digest."""
        return f"{self.host}/{self.repository}" if self.host else self.repository

    @property
    def version(self) -> str:
        """What an engine's API wants beside the name: the digest, else the tag, else latest."""
        return self.digest or self.tag or "latest"

    @property
    def project_id(self) -> str:
        return self.repository.split("/", 1)[0]

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"
