"""A resolved bake definition: what `buildx bake --print` tells, and what saving changes in it.

buildx resolves files, variables, inheritance, matrices and overrides; Layover rewrites the
result's tags and outputs and gives that to buildx to build. Paths in a printed definition are
relative to the working folder, which both runs share.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from layover.cli.buildx.arguments import call_of
from layover.cli.buildx.outputs import Output, with_saved
from layover.cli.errors import BuildxFailed

# A definition in a repository: buildx's own test is "a URL, or a git remote".
_REMOTE = re.compile(r"(https?://|git://|git@|ssh://|github\.com/)")


def is_remote(position: str) -> bool:
    """Whether an argument of `bake` names a definition elsewhere rather than a target."""
    return _REMOTE.match(position) is not None


@dataclass(frozen=True)
class Target:
    """One target of a definition, as far as saving goes."""

    name: str
    content: Mapping[str, Any]

    @property
    def tags(self) -> list[str]:
        return [str(tag) for tag in self.content.get("tags") or []]

    @property
    def outputs(self) -> list[Output]:
        return [Output.from_json(value) for value in self.content.get("output") or []]

    @property
    def platforms(self) -> list[str]:
        return [str(platform) for platform in self.content.get("platforms") or []]

    @property
    def call(self) -> str:
        """What buildx tells of this target instead of building it, as `check`."""
        return call_of(str(self.content.get("call") or ""))

    @property
    def is_built(self) -> bool:
        return not self.call

    @property
    def context(self) -> str:
        return str(self.content.get("context") or ".")

    @property
    def dockerfile(self) -> str:
        return str(self.content.get("dockerfile") or "Dockerfile")

    @property
    def inline_dockerfile(self) -> str | None:
        text = self.content.get("dockerfile-inline")
        # The printed definition escapes what would be an interpolation.
        return None if text is None else str(text).replace("$${", "${").replace("%%{", "%{")


class Definition:
    """A resolved definition. Linked targets are in it; only requested ones are results."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self._groups: Mapping[str, Any] = content.get("group") or {}
        self._targets: Mapping[str, Any] = content.get("target") or {}
        self._content = content

    @classmethod
    def parse(cls, text: str) -> "Definition":
        """Read what `buildx bake --print` wrote. Raises BuildxFailed."""
        try:
            content = json.loads(text)
        except ValueError as error:
            raise BuildxFailed("print the bake definition", str(error)) from error
        if not isinstance(content, dict) or not content.get("target"):
            raise BuildxFailed("print the bake definition", "it has no targets")
        return cls(content)

    @property
    def requested(self) -> list[Target]:
        """The targets that were asked for, groups taken apart, each once."""
        found: dict[str, Target] = {}
        waiting = ["default"]
        seen: set[str] = set()
        while waiting:
            name = waiting.pop(0)
            if name in seen:
                continue
            seen.add(name)
            # A group and a target may share a name; the group is what a user means by it.
            if name in self._groups:
                members = [str(member) for member in self._groups[name].get("targets") or []]
                # A group that names itself means the target of that name.
                if name in members and name in self._targets:
                    found.setdefault(name, Target(name, self._targets[name]))
                waiting = members + waiting
            elif name in self._targets:
                found.setdefault(name, Target(name, self._targets[name]))
        return list(found.values())

    def saved(
        self, tags: Sequence[str], *, insecure_registry: bool, several_builders: bool
    ) -> dict[str, Any]:
        """The definition with every requested target pushed to `<tag>-<target>` as well.

        A target that buildx only tells about makes no image and stays as it is.
        """
        targets = dict(self._targets)
        for target in self.requested:
            if not target.is_built:
                continue
            outputs = with_saved(
                target.outputs,
                user_names=target.tags,
                saved_names=[f"{tag}-{target.name}" for tag in tags],
                insecure_registry=insecure_registry,
                several_builders=several_builders,
            )
            changed = {key: value for key, value in target.content.items() if key != "tags"}
            changed["output"] = [output.as_json() for output in outputs]
            targets[target.name] = changed
        return {**self._content, "target": targets}
