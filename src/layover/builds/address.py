"""How clients reach this server, and what of their names is in its registry."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from layover.builds.models import Build, BuildOptions
from layover.oci.names import InvalidRepositoryName, InvalidTag, RepositoryName, Tag


@dataclass(frozen=True, slots=True)
class PublicAddress:
    """How clients reach this server: `url` without a slash at its end."""

    url: str

    @property
    def registry_host(self) -> str:
        """The host of image references, with its port when the URL has one."""
        return urlsplit(self.url).netloc

    def is_own(self, registry: str) -> bool:
        """Whether a registry's HOST or HOST:PORT is this server's, as clients are told it."""
        port = ":443" if self.url.startswith("https://") else ":80"
        own, named = (host.lower().removesuffix(port) for host in (self.registry_host, registry))
        return own == named

    def build_url(self, build_id: str) -> str:
        return f"{self.url.rstrip('/')}/builds/{build_id}"

    def join_url(self, secret: str) -> str:
        """The page on which whoever has an invitation's secret joins by it."""
        return f"{self.url.rstrip('/')}/join/{secret}"

    def reference(self, project_id: str, tag: str) -> str:
        return f"{self.registry_host}/{project_id}:{tag}"

    def pushed_references(self, build: Build) -> list[str]:
        """What a build that saves is pushed to: under its ID first, then its save tags."""
        tags = [build.id, *(tag for option in build.options for tag in option.save_tags)]
        return [self.reference(build.project_id, tag) for tag in dict.fromkeys(tags)]

    def own_names(self, project_id: str, options: Sequence[BuildOptions]) -> set[str]:
        """What the client itself pushes to this project's repositories here, as `NAME:TAG`.

        Docker keeps one login a host, so the build's token has to open these beside its own.
        """
        return {
            own
            for option in options
            for reference in _pushed_names(option)
            if (own := self._own_name(project_id, reference)) is not None
        }

    def _own_name(self, project_id: str, reference: str) -> str | None:
        host, _, path = reference.partition("/")
        if host != self.registry_host:
            return None
        name, colon, tag = path.partition(":")
        try:
            repository = RepositoryName.parse(name)
            parsed = Tag.parse(tag if colon else "latest")
        except (InvalidRepositoryName, InvalidTag):
            return None
        return f"{repository}:{parsed}" if repository.project_id == project_id else None


def _pushed_names(option: BuildOptions) -> Iterator[str]:
    """The names of the option's outputs that push; `-t` names where an output has none."""
    if option.push:
        yield from option.tags
    for output in option.outputs:
        attributes = dict(output.attributes)
        is_pushed = output.kind == "registry" or attributes.get("push") == "true"
        if is_pushed:
            name = attributes.get("name")
            yield from name.split(",") if name else option.tags
