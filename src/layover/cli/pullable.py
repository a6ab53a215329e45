"""Finding what a user wants to pull: a build, a project's tag, or a full reference."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from layover.cli.errors import CliError, WrongUsage
from layover.client.api import Client
from layover.client.references import Image, is_id
from layover.oci.platforms import is_for
from layover.rpc.depot.cli.v1 import build_pb as wire

USERNAME = "x-token"


class NotSaved(CliError):
    """The build is known, and nothing of it is in the registry."""

    def __init__(self, build_id: str, verb: str = "pull") -> None:
        super().__init__(
            f"build {build_id} was not saved, so there is nothing to {verb}:"
            " build with --save to keep it in the registry"
        )
        self.build_id = build_id


@dataclass(frozen=True, slots=True)
class Pullable:
    """An image in the registry, how to get it, and what the user called it when building."""

    image: Image
    username: str
    password: str = field(repr=False)
    target: str = ""
    names: tuple[str, ...] = ()
    # Empty where nobody knows.
    platforms: tuple[str, ...] = ()


async def find(client: Client, text: str, targets: Sequence[str]) -> list[Pullable]:
    """What `text` names. Raises a ClientError or CliError that says what there is instead."""
    # A lone word can only be meant as a build's ID; the server says that it knows none such.
    if "/" not in text and ":" not in text:
        return await _build(client, text, targets)
    if targets:
        raise WrongUsage("--target chooses among a build's targets: give a build ID with it")
    image = Image.parse(text)
    if not image.host:
        if not is_id(image.project_id):
            raise WrongUsage(
                f"{text!r} is neither a build ID nor PROJECT:TAG nor a full reference;"
                " `layover list builds` shows builds"
            )
        image = replace(image, host=client.server.registry_host)
    elif image.host != client.server.registry_host and not await _is_ours(client, image):
        # The token is for our server: another registry is not to see it.
        raise WrongUsage(
            f"{image.host} is not the registry of {client.server.url}:"
            f" pull from it with `docker pull {text}`"
        )
    token = await client.get_pull_token(image.project_id)
    return [Pullable(image, USERNAME, token)]


async def _is_ours(client: Client, image: Image) -> bool:
    """Whether a host is another name of our registry, as a build's own reference has it."""
    if not is_id(image.tag[:10]):
        return False
    info = await client.get_pull_info(image.tag[:10])
    return Image.parse(info.reference).name == image.name


async def _build(client: Client, build_id: str, targets: Sequence[str]) -> list[Pullable]:
    info = await client.get_pull_info(build_id)
    saved = [o for o in info.options if o.save or (o.load and info.save_for_load)]
    if not saved:
        raise NotSaved(build_id)
    platforms = await _platforms(client, build_id)
    reference = Image.parse(info.reference)
    found = []
    for options in saved:
        target = (options.target_name or "") if options.command == wire.Command.BAKE else ""
        image = replace(reference, tag=f"{reference.tag}-{target}") if target else reference
        found.append(
            Pullable(
                image,
                info.username,
                info.password,
                target,
                tuple(options.tags),
                platforms.get(target, ()),
            )
        )
    return _chosen(found, build_id, targets)


def _chosen(found: list[Pullable], build_id: str, targets: Sequence[str]) -> list[Pullable]:
    if not targets:
        return found
    known = {item.target: item for item in found if item.target}
    for target in targets:
        if not known:
            raise WrongUsage(f"build {build_id} has no targets: leave out --target")
        if target not in known:
            raise WrongUsage(
                f"build {build_id} has no target {target!r}; it has {', '.join(sorted(known))}"
            )
    return [known[target] for target in dict.fromkeys(targets)]


async def _platforms(client: Client, build_id: str) -> dict[str, tuple[str, ...]]:
    details = await client.find_build(build_id)
    if details is None or details.build is None:
        return {}
    return {image.target: tuple(image.platforms) for image in details.build.images}


def check_platform(what: str, known: Sequence[str], platform: str | None) -> None:
    """Raise WrongUsage when what is known to be for these platforms, if any, is not for that."""
    if platform is None or not known:
        return
    if not any(is_for(one, platform) for one in known):
        raise WrongUsage(f"{what} is not built for {platform}; it is for {', '.join(known)}")
