"""Where an image is to be: REGISTRY/REPOSITORY:TAG, as Docker's clients read it.

The OCI specifications have no such text; the rules are those of Docker's reference grammar. A
name without a registry is Docker Hub's, and one of a single word there an official image's.
"""

import re
from dataclasses import dataclass
from typing import Self

from layover.errors import LayoverError
from layover.oci.names import InvalidRepositoryName, InvalidTag, RepositoryName, Tag

DOCKER_HUB = "docker.io"

# The host that answers for Docker Hub's registry.
_DOCKER_HUB_HOST = "registry-1.docker.io"
_DOCKER_HUB_NAMES = frozenset({DOCKER_HUB, "index.docker.io", _DOCKER_HUB_HOST})

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*\.?|\[[0-9a-fA-F:.]+\])(?::[0-9]{{1,5}})?")


class InvalidDestination(LayoverError):
    """The text does not say where an image is to be."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(
            f"invalid destination {text[:300]!r}: {reason}. Expected REGISTRY/REPOSITORY:TAG, as"
            " ghcr.io/acme/app:v1"
        )
        self.text, self.reason = text, reason


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A repository of a registry."""

    registry: str
    """HOST or HOST:PORT in lower case; docker.io for Docker Hub."""
    repository: RepositoryName

    @property
    def host(self) -> str:
        """HOST or HOST:PORT to dial."""
        return _DOCKER_HUB_HOST if self.registry == DOCKER_HUB else self.registry

    @classmethod
    def parse(cls, registry: str, repository: str) -> Self:
        """Read the two where they are told apart. Raises InvalidDestination."""
        text = f"{registry}/{repository}"
        if _REGISTRY.fullmatch(registry) is None or not _is_port(registry):
            raise InvalidDestination(text, f"{registry[:100]!r} is not a registry's host")
        registry = registry.lower()
        if not _is_host(registry):
            # In lower case it would read as a repository of Docker Hub's.
            raise InvalidDestination(text, f"{registry!r} needs its port, as {registry}:443")
        if registry in _DOCKER_HUB_NAMES:
            registry = DOCKER_HUB
            repository = repository if "/" in repository else f"library/{repository}"
        try:
            return cls(registry, RepositoryName.parse(repository))
        except InvalidRepositoryName as error:
            raise InvalidDestination(text, str(error)) from error

    def __str__(self) -> str:
        return f"{self.registry}/{self.repository}"


@dataclass(frozen=True, slots=True, order=True)
class Destination:
    """A tag of a repository of a registry."""

    place: Place
    tag: Tag

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a destination; without a tag it is `latest`. Raises InvalidDestination."""
        if "@" in text:
            raise InvalidDestination(text, "an image cannot be pushed by a digest")
        if "://" in text:
            raise InvalidDestination(text, "a registry is named without a scheme")
        registry, rest = split_registry(text)
        repository, colon, tag = rest.partition(":")
        try:
            return cls(
                Place.parse(registry or DOCKER_HUB, repository),
                Tag.parse(tag if colon else "latest"),
            )
        except InvalidDestination as error:
            # What was asked for stands in it as it was asked for.
            raise InvalidDestination(text, error.reason) from error
        except InvalidTag as error:
            raise InvalidDestination(text, str(error)) from error

    def __str__(self) -> str:
        return f"{self.place}:{self.tag}"


def split_registry(text: str) -> tuple[str, str]:
    """The registry of an image's name, empty where it has none, and the rest.

    Docker's rule: the first component is a host if it could not be a repository's.
    """
    first, slash, rest = text.partition("/")
    if slash and (_is_host(first) or first != first.lower()):
        return first, rest
    return "", text


def _is_host(first: str) -> bool:
    return "." in first or ":" in first or first == "localhost"


def _is_port(registry: str) -> bool:
    _, colon, port = registry.rpartition(":")
    return not colon or not port.isdecimal() or 0 < int(port) < 65536  # IPv6 ends with "]"
