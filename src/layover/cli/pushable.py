"""What of a build can be pushed, looked at before any registry is asked for anything."""

from collections.abc import Sequence

from layover.cli.errors import CliError, WrongUsage
from layover.cli.pullable import NotSaved, check_platform
from layover.client.api import Client
from layover.client.errors import AccessRefused
from layover.rpc.layover.v1.builds_pb import BuildStatus, SavedImage

_TOLD = {BuildStatus.FAILED: "failed", BuildStatus.CANCELED: "was canceled"}


async def check_pushable(
    client: Client, build_id: str, target: str, platforms: Sequence[str]
) -> None:
    """See that the build saved the target for the platforms.

    The server sees to that as well; this one is told before a login is shown to anybody. Raises a
    ClientError or CliError that says what there is instead.
    """
    try:
        details = await client.find_build(build_id)
    except AccessRefused:
        return  # A token that may not even see it is told best that it may not push it.
    if details is None or details.build is None:
        return
    build = details.build
    if not build.images and build.status is BuildStatus.FINISHED:
        raise NotSaved(build_id, "push")
    if not build.images:
        told = _TOLD.get(build.status, "has not finished yet")
        raise CliError(
            f"build {build_id} {told}: what is pushed is a build that has finished and was saved"
        )
    image = _chosen(build_id, build.images, target)
    for platform in platforms:
        check_platform(f"build {build_id}", image.platforms, platform)


def _chosen(build_id: str, images: Sequence[SavedImage], target: str) -> SavedImage:
    known = {image.target: image for image in images}
    names = ", ".join(sorted(filter(None, known)))
    if target:
        if not names:
            raise WrongUsage(f"build {build_id} has no targets: leave out --target")
        if target not in known:
            raise WrongUsage(f"build {build_id} has no target {target!r}; it has {names}")
        return known[target]
    if len(known) > 1:
        raise WrongUsage(
            f"build {build_id} has several targets: choose one with --target ({names})"
        )
    return images[0]
