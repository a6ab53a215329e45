"""What a client needs to save a build's images and to pull them again: names and tokens."""

from dataclasses import dataclass
from datetime import datetime

from layover.builds.address import PublicAddress
from layover.builds.errors import (
    BuildNotSaved,
    BuildStillRunning,
    BuildUnknown,
    BuildUnsuccessful,
)
from layover.builds.life import BuildService
from layover.builds.models import Build, BuildStatus, SavedImage
from layover.builds.ports import SavedImages
from layover.identity.access import Action
from layover.identity.models import Principal, Project
from layover.identity.service import IdentityService

USERNAME = "x-token"


@dataclass(frozen=True, slots=True)
class PullInfo:
    """How to pull a saved build."""

    build: Build
    reference: str
    token: str


def target_of(build: Build, image: SavedImage) -> str | None:
    """The bake target that the image is of, "" for a plain build's, None for a save tag's."""
    if image.tag == build.id:
        return ""
    return image.tag[len(build.id) + 1 :] if image.tag.startswith(f"{build.id}-") else None


def check_finished(build: Build, verb: str = "pull") -> None:
    """Raise BuildStillRunning, BuildUnsuccessful; `verb` is what is to be done with the build."""
    if not build.status.has_ended:
        raise BuildStillRunning(build.id, verb)
    if build.status is not BuildStatus.FINISHED:
        raise BuildUnsuccessful(build.id, build.status, build.error, verb)


async def saved_images(images: SavedImages, build: Build, verb: str = "pull") -> list[SavedImage]:
    """What the registry holds of a build that finished; `verb` is what is to be done with it.

    Raises BuildStillRunning, BuildUnsuccessful, BuildNotSaved.
    """
    check_finished(build, verb)
    found = await images.of_build(build.project_id, build.id)
    if not found:
        raise BuildNotSaved(build.id, build.is_saved, verb)
    return found


class PullService:
    """Hands out references and pull tokens."""

    def __init__(
        self,
        builds: BuildService,
        images: SavedImages,
        identity: IdentityService,
        address: PublicAddress,
    ) -> None:
        self._builds = builds
        self._images = images
        self._identity = identity
        self.address = address

    async def pull_info(self, principal: Principal, build_id: str) -> PullInfo:
        """How to pull the build, with a fresh token that pulls.

        Raises BuildUnknown, ActionDenied; BuildStillRunning, BuildUnsuccessful, BuildNotSaved.
        """
        build = await self._builds.find(principal, build_id, Action.CREATE_PULL_TOKEN)
        await saved_images(self._images, build)
        project = await self._identity.authorize(
            principal, Action.CREATE_PULL_TOKEN, build.project_id
        )
        return PullInfo(
            build=build,
            reference=self.address.reference(build.project_id, build.id),
            token=await self._identity.create_pull_token(
                principal, project, build.id, until=build.expires_at
            ),
        )

    async def pull_token(
        self, principal: Principal, project_id: str | None, build_id: str | None
    ) -> str:
        """A token that pulls from the project, of the build when one is named.

        Raises ProjectNotGiven when neither is and the caller sees several projects.
        """
        project, until = await self.pullable(principal, project_id, build_id)
        return await self._identity.create_pull_token(
            principal, project, build_id or None, until=until
        )

    async def pullable(
        self, principal: Principal, project_id: str | None, build_id: str | None
    ) -> tuple[Project, datetime | None]:
        """The project of which, or of one build of which, the caller may make a pull token.

        With the build's end as far as it has one. Raises ProjectNotGiven, ProjectUnknown,
        ActionDenied; of a build BuildUnknown, BuildGone.
        """
        until = None
        if build_id:
            build = await self._builds.find(principal, build_id, Action.CREATE_PULL_TOKEN)
            if project_id and project_id != build.project_id:
                raise BuildUnknown(build_id)
            project_id, until = build.project_id, build.expires_at
        return await self._builds.project(principal, Action.CREATE_PULL_TOKEN, project_id), until
