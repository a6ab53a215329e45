"""Pushes as their callers ask for them: queued, shown, stopped, authorized.

A server's runner does the work; this decides what may be asked for.
"""

import contextlib
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import structlog

from layover.audit.text import cleaned
from layover.builds.address import PublicAddress
from layover.builds.errors import BuildNotSaved
from layover.builds.life import BuildService
from layover.builds.models import Build, SavedImage
from layover.builds.ports import SavedImages
from layover.builds.pulls import saved_images, target_of
from layover.errors import StorageError
from layover.identity.access import Action, may_in_build
from layover.identity.ids import new_id
from layover.identity.management import Place as PageKey
from layover.identity.models import Principal, ProjectUnknown
from layover.identity.paging import decode_place, encode_place, page_size
from layover.identity.service import IdentityService
from layover.oci.digest import Digest
from layover.oci.platforms import is_for
from layover.oci.references import Destination, Place
from layover.promotion.models import (
    Authorization,
    InvalidPush,
    Push,
    PushEnded,
    PushPage,
    PushUnknown,
)
from layover.promotion.ports import Authorizations, PushStore

MAX_DESTINATIONS = 20
MAX_PLATFORMS = 50

# Of a project, queued or running.
MAX_LIVE = 100

# So long a new push is left to the server that was told what authorizes it: what may not be written
# down is in no other's memory.
_OWN_TURN = timedelta(seconds=5)

_LONGEST_NAME = 100
_VERB = "push"

# What a client says a place is shown: the place as text, as it stands in a push.
Given = Sequence[tuple[str, Authorization]]

_log = structlog.get_logger(__name__)


class PushService:
    """Takes pushes on, shows and stops them. Every call is a caller's and authorized."""

    def __init__(
        self,
        store: PushStore,
        builds: BuildService,
        images: SavedImages,
        identity: IdentityService,
        authorizations: Authorizations,
        address: PublicAddress,
        now: Callable[[], datetime],
        holder: str,
        most_live: int = MAX_LIVE,
    ) -> None:
        """`address` is this server's own, onto which nothing pushes itself; `holder` names this
        server as its PushRunner does."""
        self._store = store
        self._builds = builds
        self._images = images
        self._identity = identity
        self._authorizations = authorizations
        self._address = address
        self._now = now
        self._holder = holder
        self._most_live = most_live

    async def create(
        self,
        principal: Principal,
        build_id: str,
        target: str,
        destinations: Sequence[str],
        platforms: Sequence[str] = (),
        *,
        with_referrers: bool = False,
        authorizations: Given = (),
    ) -> Push:
        """Queue a push of a saved build, or of one target of a bake; of an index `platforms` alone
        where some are named.

        Raises BuildUnknown, BuildGone, ActionDenied; BuildStillRunning, BuildUnsuccessful,
        BuildNotSaved; InvalidPush, InvalidDestination; TooManyPushes.
        """
        build = await self._builds.find(principal, build_id, Action.PUSH_ON)
        target, image = chosen_image(build, await saved_images(self._images, build, _VERB), target)
        push = Push(
            id=new_id(),
            project_id=build.project_id,
            build_id=build.id,
            target=target,
            source=Digest.parse(image.digest),
            destinations=_destinations(destinations),
            created_at=self._now(),
            created_by=named(principal),
            platforms=_platforms(build, image, platforms),
            with_referrers=with_referrers,
        )
        for destination in push.destinations:
            self._check_is_elsewhere(destination, push.project_id, image.tag)
        given = _by_place(push, authorizations)
        until = push.created_at + _OWN_TURN
        await self._store.add(push, self._most_live, holder=self._holder, until=until)
        try:
            # Also without any: the server that is told of a new push is the one to begin it.
            await self._authorizations.put(push.id, given)
        except BaseException:
            # The client will ask anew; a push that nothing authorizes helps nobody.
            with contextlib.suppress(StorageError):
                await self._store.cancel(push.id, self._now())
            raise
        _log.info(
            "push_created",
            push_id=push.id,
            build_id=push.build_id,
            project_id=push.project_id,
            destinations=[str(destination) for destination in push.destinations],
        )
        return push

    async def find(
        self, principal: Principal, push_id: str, action: Action = Action.SEE_BUILDS
    ) -> Push:
        """The push, if the caller may do `action` to it.

        Raises PushUnknown, alike for one that does not exist and for one that the caller may not
        see; ActionDenied.
        """
        push = await self._store.find(push_id)
        if push is None or not may_in_build(principal, push.build_id):
            raise PushUnknown(push_id)
        try:
            await self._identity.authorize(principal, action, push.project_id)
        except ProjectUnknown:
            raise PushUnknown(push_id) from None
        return push

    async def list_page(
        self, principal: Principal, project_id: str | None, size: int, page_token: str
    ) -> tuple[Sequence[Push], str]:
        """A page of the project's pushes, the newest first, and the token of the next; "" on the
        last. Without a project, of the only one that the caller sees.

        Raises ProjectNotGiven, ProjectUnknown, ActionDenied; InvalidChange, InvalidPlace.
        """
        project = await self._builds.project(principal, Action.SEE_BUILDS, project_id)
        after = None
        if page_token:
            key = decode_place(page_token)
            after = (key.created_at, key.id)
        limit = page_size(size)
        if principal.build_id is not None:
            # A build's own token is over before its build can be pushed on.
            return (), ""
        page: PushPage = await self._store.list_page(project.id, after, limit)
        return page.pushes, encode_place(PageKey(*page.next)) if page.next else ""

    async def cancel(self, principal: Principal, push_id: str) -> Push:
        """Ask the push to stop; what has ended stays as it is. Returns it as it stands.

        Raises PushUnknown, ActionDenied.
        """
        push = await self.find(principal, push_id, Action.PUSH_ON)
        canceled = await self._store.cancel(push.id, self._now())
        if canceled is None:
            raise PushUnknown(push_id)
        _log.info("push_canceled", push_id=push.id, project_id=push.project_id)
        return canceled

    async def authorize(self, principal: Principal, push_id: str, authorizations: Given) -> Push:
        """Let the push show these to its registries from now on.

        Raises PushUnknown, ActionDenied; InvalidPush; PushEnded.
        """
        push = await self.find(principal, push_id, Action.PUSH_ON)
        if push.status.has_ended:
            raise PushEnded(push.id, push.status)
        given = _by_place(push, authorizations)
        if not given:
            raise InvalidPush("no authorization is given")
        if not await self._authorizations.put(push.id, given):
            # It ended a moment ago.
            push = await self.find(principal, push_id, Action.PUSH_ON)
            raise PushEnded(push.id, push.status)
        _log.info("push_authorized", push_id=push.id, places=[str(place) for place in given])
        return push

    def _check_is_elsewhere(self, destination: Destination, project_id: str, tag: str) -> None:
        """Refuse to push an image onto itself, where it waits for its own end."""
        place = destination.place
        if (
            self._address.is_own(place.registry)
            and place.repository.value == project_id
            and destination.tag.value == tag
        ):
            raise InvalidPush(
                f"{destination} is what the build is saved as already: push it under another name"
            )


def named(principal: Principal) -> str:
    """Who a caller is in words, as the audit log names actors."""
    name = cleaned(principal.name, _LONGEST_NAME) or principal.user_id or principal.token_id
    return f"{principal.kind.value} {name}"


def chosen_image(build: Build, images: Sequence[SavedImage], target: str) -> tuple[str, SavedImage]:
    """The image of that target, "" for a plain build's, and the target's name.

    Raises InvalidPush; BuildNotSaved when none is saved under the build's ID.
    """
    targets = {name: image for image in images if (name := target_of(build, image)) is not None}
    if not targets:
        raise BuildNotSaved(build.id, build.is_saved, _VERB)
    if target:
        if target in targets:
            return target, targets[target]
        known = sorted(filter(None, targets))
        if not known:
            raise InvalidPush(f"build {build.id} has no targets: leave out --target")
        raise InvalidPush(
            f"build {build.id} saved no target {target[:100]!r}; it has {', '.join(known)}"
        )
    if len(targets) > 1:
        raise InvalidPush(
            f"build {build.id} saved several targets: name one with --target:"
            f" {', '.join(sorted(filter(None, targets)))}"
        )
    return next(iter(targets.items()))


def _destinations(texts: Sequence[str]) -> tuple[Destination, ...]:
    """Each once. Raises InvalidPush, InvalidDestination."""
    # Before they are looked at, and again once it is known which are the same.
    if len(texts) > 10 * MAX_DESTINATIONS:
        raise InvalidPush(f"{len(texts)} destinations: at most {MAX_DESTINATIONS} a push")
    found = tuple(dict.fromkeys(map(Destination.parse, texts)))
    if not found:
        raise InvalidPush("no destination: say where to push to with -t REGISTRY/REPOSITORY:TAG")
    if len(found) > MAX_DESTINATIONS:
        raise InvalidPush(f"{len(found)} destinations: at most {MAX_DESTINATIONS} a push")
    return found


def _platforms(build: Build, image: SavedImage, wanted: Sequence[str]) -> tuple[str, ...]:
    """The image's own words for the platforms that are wanted. Raises InvalidPush."""
    if len(wanted) > MAX_PLATFORMS:
        raise InvalidPush(f"{len(wanted)} platforms: at most {MAX_PLATFORMS} a push")
    if wanted and not image.platforms:
        raise InvalidPush(
            f"what build {build.id} saved names no platform: leave out --platform to push all of it"
        )
    found = dict[str, None]()
    for platform in wanted:
        meant = [known for known in image.platforms if is_for(known, platform)]
        if not meant:
            raise InvalidPush(
                f"build {build.id} is not for {platform[:100]!r}; it is for"
                f" {', '.join(dict.fromkeys(image.platforms))}"
            )
        found |= dict.fromkeys(meant)
    return tuple(found)


def _by_place(push: Push, given: Given) -> dict[Place, Authorization]:
    """What each place is shown. Raises InvalidPush for what is no place of the push."""
    places = {str(place): place for place in push.places}
    found = dict[Place, Authorization]()
    for text, authorization in given:
        place = places.get(text)
        if place is None:
            raise InvalidPush(
                f"an authorization is for {text[:300]!r}, which is none of the push's"
                f" repositories: {', '.join(places)}"
            )
        if place in found:
            raise InvalidPush(f"{place} is given two authorizations")
        found[place] = authorization
    return found
