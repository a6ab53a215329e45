"""Pushes that a client drives by itself, as the public one does: it says when one begins and how it
ended, asks for its blobs one by one, and puts the manifests.

Nothing is kept of one that is under way, so that none is left behind: its ID says itself what it
is. Whoever makes one up tells of a push to a place of its choice, which it may do anyway.
"""

import base64
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog

from layover.audit.text import cleaned
from layover.builds.life import BuildService
from layover.builds.models import Build, SavedImage
from layover.builds.ports import SavedImages
from layover.builds.pulls import saved_images, target_of
from layover.identity.access import Action
from layover.identity.ids import new_id
from layover.identity.models import Principal
from layover.oci.digest import Digest
from layover.oci.references import Destination, InvalidDestination
from layover.promotion.models import Push, PushStatus, PushUnknown
from layover.promotion.ports import PushStore
from layover.promotion.service import named

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

# A registry's host, a repository and a tag, in base64.
_LONGEST_ID = 1024
_ID = re.compile(r"([a-z2-7]{10})\.([A-Za-z0-9_-]+)")

_LONGEST_ERROR = 1000
_NOT_SAID = "its client did not say why"

# What has ended takes nobody's turn.
_HOWEVER_MANY = sys.maxsize

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Driven:
    """What a push's ID says."""

    id: str
    started_at: datetime
    destination: Destination

    def __str__(self) -> str:
        text = f"{(self.started_at - _EPOCH) // _MICROSECOND}|{self.destination}"
        return f"{self.id}.{base64.urlsafe_b64encode(text.encode()).decode().rstrip('=')}"

    @classmethod
    def parse(cls, text: str) -> "_Driven":
        """Raises PushUnknown."""
        match = _ID.fullmatch(text[: _LONGEST_ID + 1])
        if match is None or len(text) > _LONGEST_ID:
            raise PushUnknown(text)
        try:
            said = base64.urlsafe_b64decode(match[2] + "=" * (-len(match[2]) % 4)).decode()
            microseconds, _, destination = said.partition("|")
            started_at = _EPOCH + int(microseconds) * _MICROSECOND
            return cls(match[1], started_at, Destination.parse(destination))
        except (ValueError, OverflowError, InvalidDestination):
            raise PushUnknown(text) from None


class DrivenPushService:
    """Writes down how pushes ended that clients drove. Every call is authorized."""

    def __init__(
        self,
        store: PushStore,
        builds: BuildService,
        images: SavedImages,
        now: Callable[[], datetime],
    ) -> None:
        self._store, self._builds, self._images, self._now = store, builds, images, now

    async def start(self, principal: Principal, build_id: str, destination: str) -> str:
        """The ID to end the push by.

        Raises BuildUnknown, BuildGone, ActionDenied; BuildStillRunning, BuildUnsuccessful,
        BuildNotSaved; InvalidDestination.
        """
        build = await self._builds.find(principal, build_id, Action.PUSH_ON)
        await saved_images(self._images, build, "push")
        driven = _Driven(new_id(), self._now(), Destination.parse(destination))
        _log.info(
            "push_started",
            push_id=driven.id,
            build_id=build.id,
            destination=str(driven.destination),
        )
        return str(driven)

    async def finish(
        self, principal: Principal, push_id: str, build_id: str, error: str | None
    ) -> None:
        """The push ended, by `error` if there is one; saying so again changes nothing.

        It is listed from now on, where the build saved one image: of several nobody said which
        was pushed. Raises BuildUnknown, BuildGone, ActionDenied; PushUnknown.
        """
        build = await self._builds.find(principal, build_id, Action.PUSH_ON)
        driven, now = _Driven.parse(push_id), self._now()
        if not build.created_at <= driven.started_at <= now:
            raise PushUnknown(push_id)
        _log.info("push_finished", push_id=driven.id, build_id=build.id, failed=error is not None)
        image = _only(build, await self._images.of_build(build.project_id, build.id))
        if image is None or await self._store.find(driven.id) is not None:
            return
        target, saved = image
        push = Push(
            id=driven.id,
            project_id=build.project_id,
            build_id=build.id,
            target=target,
            source=Digest.parse(saved.digest),
            destinations=(driven.destination,),
            created_at=driven.started_at,
            created_by=named(principal),
            status=PushStatus.DONE if error is None else PushStatus.FAILED,
            started_at=driven.started_at,
            finished_at=now,
            error=None if error is None else cleaned(error, _LONGEST_ERROR) or _NOT_SAID,
        )
        await self._store.add(push, _HOWEVER_MANY)


def _only(build: Build, images: list[SavedImage]) -> tuple[str, SavedImage] | None:
    """The build's image and its target, where it saved one."""
    found = [(name, image) for image in images if (name := target_of(build, image)) is not None]
    return found[0] if len(found) == 1 else None
