"""Where a build's result goes: buildx's outputs, and what saving adds to them.

buildx gives the names of `-t` to every image output alike. A saved build has names of two
kinds, the registry's and the user's, so each output carries its own in its `name` attribute
and `-t` is not passed on.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from layover.cli.buildx.arguments import parse_switch
from layover.cli.errors import WrongUsage
from layover.client.references import Image
from layover.errors import LayoverError

_NAMED_TYPES = frozenset({"image", "registry", "docker", "oci"})
# What `--push` means, and attributes that change nothing about how a name is pushed.
_PLAIN_PUSH = frozenset({"name", "push", "unpack"})


@dataclass(frozen=True, slots=True)
class Output:
    """One `--output`: a type and its attributes, `dest` among them."""

    kind: str
    attributes: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `type=local,dest=out`, `out` or `-`, as buildx does. Raises WrongUsage."""
        try:
            fields = next(csv.reader(io.StringIO(text), strict=True), [])
        except csv.Error as error:
            raise WrongUsage(f"invalid --output {text!r}: {error}") from error
        if fields == [text] and not text.startswith("type="):
            return cls("tar" if text == "-" else "local", {"dest": text})
        attributes: dict[str, str] = {}
        for item in fields:
            key, equals, value = item.partition("=")
            if not equals:
                raise WrongUsage(f"invalid --output {text!r}: {item!r} is not KEY=VALUE")
            attributes[key.strip().lower()] = value
        kind = attributes.pop("type", "")
        if not kind:
            raise WrongUsage(f"invalid --output {text!r}: it has no type=")
        return cls(kind, attributes)

    def __str__(self) -> str:
        buffer = io.StringIO()
        pairs = [f"type={self.kind}", *(f"{k}={v}" for k, v in self.attributes.items())]
        csv.writer(buffer, lineterminator="").writerow(pairs)
        return buffer.getvalue()

    def as_json(self) -> dict[str, str]:
        """The form that a bake file has it in."""
        return {"type": self.kind, **self.attributes}

    @classmethod
    def from_json(cls, value: str | Mapping[str, str]) -> Self:
        """Read either form that a bake file may have it in."""
        if isinstance(value, str):
            return cls.parse(value)
        attributes = {str(k): str(v) for k, v in value.items()}
        return cls(attributes.pop("type", ""), attributes)

    @property
    def pushes(self) -> bool:
        """Whether this output pushes to a registry."""
        if self.kind == "registry":
            return True
        return self.kind == "image" and _is_on(self.attributes.get("push", ""))

    @property
    def is_plain_push(self) -> bool:
        """Whether this output does nothing but push its names."""
        return self.pushes and set(self.attributes) <= _PLAIN_PUSH

    def named(self, names: Sequence[str]) -> "Output":
        """With these names, unless it is of a kind without, or has its own."""
        if self.kind not in _NAMED_TYPES or self.attributes.get("name") or not names:
            return self
        return Output(self.kind, {**self.attributes, "name": ",".join(names)})


def _is_on(text: str) -> bool:
    return bool(text) and parse_switch("push", text)


def asked_outputs(specifications: Sequence[str], *, push: bool, load: bool) -> list[Output]:
    """The outputs that a command line asks for, `--push` and `--load` among them.

    As buildx has it, `--push` turns the image outputs that are there into pushing ones, and
    adds one where there is none; `--load` likewise.
    """
    outputs = [Output.parse(text) for text in specifications if text]
    if push:
        if not any(output.kind in ("image", "registry") for output in outputs):
            outputs.append(Output("registry"))
        outputs = [
            Output("image", {**output.attributes, "push": "true"})
            if output.kind == "image"
            else output
            for output in outputs
        ]
    if load and not any(o.kind == "docker" and "dest" not in o.attributes for o in outputs):
        outputs.append(Output("docker"))
    return outputs


def with_saved(
    outputs: Sequence[Output],
    *,
    user_names: Sequence[str],
    saved_names: Sequence[str],
    insecure_registry: bool,
    several_builders: bool,
) -> list[Output]:
    """Add the push that saves to the outputs of the user.

    The saving push joins a plain push of the user's, so that both are one image; several
    builders make one index only of the first push, so there it has to. Otherwise it is an
    output of its own, and the last: buildx's metadata tells of the last one, and the saved
    image is what it is wanted for. Raises WrongUsage where both cannot be had.
    """
    for name in user_names:
        # buildx reads the names of -t, and takes an output's as they are: the image could not
        # be pulled under them.
        try:
            Image.parse_name(name)
        except LayoverError as error:
            raise WrongUsage(f"-t {name}: {error}") from error
    named = [output.named(user_names) for output in outputs]
    for output in named:
        if output.pushes and not output.attributes.get("name"):
            raise WrongUsage("--push needs a name to push to: add -t NAME:TAG")
    if not insecure_registry:
        for index, output in enumerate(named):
            if output.is_plain_push:
                names = [*output.attributes["name"].split(","), *saved_names]
                joined = Output(output.kind, {**output.attributes, "name": ",".join(names)})
                return [*named[:index], *named[index + 1 :], joined]
    if several_builders and any(output.pushes for output in named):
        raise WrongUsage(
            "a build on several builders is pushed once: --save cannot be joined with this"
            " --output here. Save first, then push the saved image; or use --build-platform to"
            " build on one builder"
        )
    attributes = {"push": "true", "unpack": "false", "name": ",".join(saved_names)}
    if insecure_registry:
        attributes["registry.insecure"] = "true"
    return [*named, Output("image", attributes)]
