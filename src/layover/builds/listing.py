"""Builds as they are listed and shown: newest first, in pages that new builds do not shift."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from layover.builds.errors import InvalidBuildRequest, InvalidPageToken
from layover.builds.life import BuildService
from layover.builds.models import Build, PageKey, SavedImage
from layover.builds.ports import BuildStore, SavedImages
from layover.identity.access import Action
from layover.identity.models import Principal, Project
from layover.identity.paging import decode_key, encode_key

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1_000


@dataclass(frozen=True, slots=True)
class Page:
    """Builds and where the next page begins, None on the last."""

    builds: tuple[Build, ...]
    next_token: str | None


class ListingService:
    """Lists and shows builds to who may see them."""

    def __init__(
        self,
        builds: BuildService,
        store: BuildStore,
        images: SavedImages,
        now: Callable[[], datetime],
    ) -> None:
        self._builds = builds
        self._store = store
        self._images = images
        self._now = now

    async def list_page(
        self, principal: Principal, project_id: str | None, page_size: int, page_token: str
    ) -> Page:
        """A page of the project's builds; `page_size` 0 asks for 100, above 1,000 gives 1,000.

        Raises ProjectNotGiven, ProjectUnknown; InvalidPageToken; InvalidBuildRequest for a
        negative size. A build's own token lists its own build alone.
        """
        project = await self._builds.project(principal, Action.SEE_BUILDS, project_id)
        if page_size < 0:
            raise InvalidBuildRequest("page_size is negative: pass 1 to 1000, or 0 for 100")
        size = min(page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
        after = decode_page_token(page_token) if page_token else None
        if principal.build_id is not None:
            own = await self._builds.find(principal, principal.build_id, Action.SEE_BUILDS)
            return Page((own,) if after is None else (), None)
        found = await self._store.list_page(project.id, after, size, self._now())
        return Page(found.builds, encode_page_token(found.builds[-1]) if found.has_more else None)

    async def show(self, principal: Principal, build_id: str) -> tuple[Build, list[SavedImage]]:
        """The build and what is saved of it. Raises BuildUnknown."""
        build = await self._builds.find(principal, build_id, Action.SEE_BUILDS)
        return build, await self._images.of_build(build.project_id, build.id)

    async def sizes(self, builds: Sequence[Build]) -> dict[str, int]:
        """The saved bytes of each build, in one query; a build without any may be missing."""
        return await self._images.sizes([build.id for build in builds])

    async def used_bytes(self, project: Project) -> int:
        """What counts for the project's quota. The caller has authorized it."""
        return await self._images.used_bytes(project.id)


def encode_page_token(last: Build) -> str:
    """The token of the page behind `last`."""
    return encode_key(last.created_at, last.id)


def decode_page_token(token: str) -> PageKey:
    """Raise InvalidPageToken unless `token` is one that encode_page_token made."""
    try:
        return PageKey(*decode_key(token))
    except ValueError:
        raise InvalidPageToken from None
