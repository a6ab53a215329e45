"""A build's life: created, seen, ended, deleted; and who may touch it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import structlog

from layover.builds.address import PublicAddress
from layover.builds.errors import (
    BuildEnded,
    BuildGone,
    BuildNotEnded,
    BuildUnknown,
    InvalidBuildRequest,
    ProjectNotGiven,
)
from layover.builds.limits import (
    MAX_ERROR_CHARACTERS,
    MAX_OPTIONS_CHARACTERS,
    MAX_SAVE_TAGS,
    MAX_TARGETS,
    clean_text,
)
from layover.builds.models import Build, BuildOptions, BuildStatus, Command
from layover.builds.ports import BuildStore
from layover.errors import StorageError
from layover.identity.access import Action, may_in_build
from layover.identity.ids import new_id
from layover.identity.models import Principal, Project, ProjectUnknown
from layover.identity.retention import check_retention
from layover.identity.service import IdentityService
from layover.oci.names import InvalidTag, Tag
from layover.registry.models import named_build

CLIENT_TIMEOUT = timedelta(seconds=60)

# A server looks for vanished clients every few seconds. One that did not for so long was
# stopped, suspended or had its clock set, and cannot tell who was silent meanwhile.
_LONGEST_ABSENCE = timedelta(seconds=30)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CreatedBuild:
    """A new build and the token that drives it, shown this once."""

    build: Build
    token: str


class BuildService:
    """Creates and ends builds. Every call but `cancel_vanished` is a caller's and authorized."""

    def __init__(
        self,
        store: BuildStore,
        identity: IdentityService,
        address: PublicAddress,
        now: Callable[[], datetime],
        client_timeout: timedelta = CLIENT_TIMEOUT,
    ) -> None:
        self._store = store
        self._identity = identity
        self._address = address
        self._now = now
        self._client_timeout = client_timeout
        # Since when this server listens without a break, and when it last looked.
        self._listens_since = self._looked_at = datetime.min.replace(tzinfo=UTC)

    async def create(
        self,
        principal: Principal,
        project_id: str | None,
        options: Sequence[BuildOptions],
        retention: timedelta | None = None,
    ) -> CreatedBuild:
        """Create a build; without `project_id`, in the only project that the caller sees.

        It is kept for `retention` from its end, for the project's without one.

        Raises ProjectNotGiven, ProjectUnknown, ActionDenied; InvalidTag for a save tag that is
        none, also with `-TARGET` behind it; InvalidRetention; InvalidBuildRequest.
        """
        project = await self.project(principal, Action.CREATE_BUILD, project_id)
        if retention is not None:
            check_retention(retention, project.policy)
        build_id = new_id()
        tags = {build_id, *_save_tags(options)}
        _check_names(options, tags)
        await self._check_foreign_ids(project.id, tags - {build_id})
        now = self._now()
        build = Build(
            id=build_id,
            project_id=project.id,
            status=BuildStatus.CREATED,
            options=tuple(options),
            created_at=now,
            seen_at=now,
            retention=retention or project.policy.retention,
        )
        # The build first: a crash in between leaves a build that ends by itself, not a token
        # that drives nothing.
        await self._store.add(build)
        names = {f"{project.id}:{tag}" for tag in tags}
        names |= self._address.own_names(project.id, options)
        token = await self._identity.create_build_token(
            principal, project, build_id, frozenset(names)
        )
        _log.info("build_created", build_id=build_id, project_id=project.id, save=build.is_saved)
        return CreatedBuild(build, token)

    async def project(
        self, principal: Principal, action: Action, project_id: str | None
    ) -> Project:
        """The project of that ID, or the caller's only one, if it may do `action` there."""
        if not project_id:
            visible = await self._identity.list_projects(principal)
            if len(visible) != 1:
                raise ProjectNotGiven([project.id for project in visible])
            project_id = visible[0].id
        return await self._identity.authorize(principal, action, project_id)

    async def find(self, principal: Principal, build_id: str, action: Action) -> Build:
        """The build, if the caller may do `action` to it.

        Raises BuildUnknown, alike for a build that does not exist and for one that the caller
        may not see; BuildGone; ActionDenied.
        """
        build = await self._store.find(build_id)
        if build is not None:
            gone = build.gone(self._now())
            project_id = build.project_id
        else:
            buried = await self._store.find_buried(build_id)
            if buried is None:
                raise BuildUnknown(build_id)
            project_id, gone = buried
        if not may_in_build(principal, build_id):
            raise BuildUnknown(build_id)
        try:
            await self._identity.authorize(principal, action, project_id)
        except ProjectUnknown:
            raise BuildUnknown(build_id) from None
        if gone is not None or build is None:
            assert gone is not None
            raise BuildGone(build_id, gone)
        return build

    async def driven(self, principal: Principal, build_id: str) -> Build:
        """The build, if the caller may drive it: its own token, or one of its project."""
        return await self.find(principal, build_id, Action.DRIVE_BUILD)

    async def mark_seen(self, build_id: str, *, starts: bool) -> None:
        """The build's client was heard of."""
        await self._store.mark_seen(build_id, self._now(), starts=starts)

    async def report_health(self, principal: Principal, build_id: str) -> datetime | None:
        """The client is there. Returns when it has to stop: None while the build lives."""
        build = await self.driven(principal, build_id)
        if build.status.has_ended:
            return build.finished_at or self._now()
        await self._store.mark_seen(build_id, self._now(), starts=True)
        return None

    async def finish(
        self, principal: Principal, build_id: str, status: BuildStatus, error: str | None = None
    ) -> None:
        """End the build with its client's own result; saying the same again changes nothing.

        Raises BuildUnknown, BuildGone, ActionDenied; BuildEnded when it ended another way.
        """
        build = await self.driven(principal, build_id)
        if not build.status.has_ended and not await self._end(build, status, error):
            # Somebody else ended it a moment ago: it may be what was asked for, or not.
            build = await self.driven(principal, build_id)
        if build.status.has_ended and build.status is not status:
            raise BuildEnded(build_id, build.status)
        # Also when it had ended: whoever ended it may have died before this.
        await self._identity.end_build_token(build.id)

    async def delete(self, principal: Principal, build_id: str) -> None:
        """Cancel the build if it lives, and let its time be over, with all that belongs to it.

        Raises BuildUnknown, BuildGone, ActionDenied.
        """
        build = await self.find(principal, build_id, Action.DELETE_BUILD)
        await self._end(build, BuildStatus.CANCELED, "deleted while it was running")
        await self._identity.end_build_token(build.id)
        if not await self._store.delete(build.id, self._now()):
            # Its time was over a moment ago, or another caller was faster.
            await self.find(principal, build_id, Action.DELETE_BUILD)
        await self._identity.end_pull_tokens(build.id)
        _log.info("build_deleted", build_id=build.id, project_id=build.project_id)

    async def keep(self, principal: Principal, build_id: str, retention: timedelta) -> Build:
        """Let an ended build live for `retention` from now on; it never lives shorter for it.

        Raises BuildUnknown, BuildGone, ActionDenied, InvalidRetention, BuildNotEnded.
        """
        build = await self.find(principal, build_id, Action.KEEP_BUILD)
        project = await self._identity.authorize(principal, Action.KEEP_BUILD, build.project_id)
        check_retention(retention, project.policy)
        if not build.status.has_ended:
            raise BuildNotEnded(build_id)
        now = self._now()
        until = await self._store.keep(build_id, now + retention, now)
        if until is None:
            # Its time was over a moment ago: told as that.
            return await self.find(principal, build_id, Action.KEEP_BUILD)
        _log.info("build_kept", build_id=build_id, expires_at=until.isoformat())
        return replace(build, expires_at=until)

    async def cancel_vanished(self, now: datetime) -> list[str]:
        """End as canceled every build whose client is silent for too long; return their IDs.

        A job for every few seconds. A server that starts, or was away, or whose database was,
        gives every client as long anew to be heard of: their builds went on without it. Raises
        StorageError.
        """
        if not timedelta(0) <= now - self._looked_at <= _LONGEST_ABSENCE:
            self._listens_since = now
        self._looked_at = now
        seen_before = now - self._client_timeout
        try:
            # Looked for also while nobody is to be ended: whether it could is what counts.
            has_vanished = await self._store.has_vanished(seen_before)
            if not has_vanished or now - self._listens_since < self._client_timeout:
                return []
            seconds = self._client_timeout.total_seconds()
            ended = await self._store.end_vanished(
                seen_before, f"its client was not heard of for {seconds:.0f} s", now
            )
        except StorageError:
            # What a client said meanwhile was heard by nobody.
            self._listens_since = self._now()
            raise
        for build_id in ended:
            await self._identity.end_build_token(build_id)
            _log.warning("build_vanished", build_id=build_id)
        return ended

    async def _end(self, build: Build, status: BuildStatus, error: str | None) -> bool:
        """Whether it was this that ended it."""
        text = clean_text(error, MAX_ERROR_CHARACTERS) if error else None
        if not await self._store.end(build.id, status, text, self._now()):
            return False
        _log.info("build_ended", build_id=build.id, status=status.value)
        return True

    async def _check_foreign_ids(self, project_id: str, tags: set[str]) -> None:
        """Refuse a save tag that is, or would hide, the ID of another build of the project.

        A build of another project is in nobody's way, and not for this caller to know of.
        """
        for tag in tags:
            other = await self._store.find(named_build(tag))
            if other is not None and other.project_id == project_id:
                raise InvalidBuildRequest(f"save tag {tag!r} is another build's: choose another")


def _save_tags(options: Sequence[BuildOptions]) -> set[str]:
    return {tag for option in options for tag in option.save_tags}


def _check_names(options: Sequence[BuildOptions], tags: set[str]) -> None:
    """Every tag that the build will write has to be one, also a bake's with its targets."""
    if len(options) > MAX_TARGETS:
        raise InvalidBuildRequest(f"{len(options)} targets: at most {MAX_TARGETS} a build")
    if sum(map(_characters, options)) > MAX_OPTIONS_CHARACTERS:
        raise InvalidBuildRequest(
            f"tags and outputs of more than {MAX_OPTIONS_CHARACTERS} characters: pass fewer"
        )
    if len(tags) > MAX_SAVE_TAGS:
        raise InvalidBuildRequest(f"{len(tags)} save tags: at most {MAX_SAVE_TAGS} a build")
    for tag in sorted(tags):
        Tag.parse(tag)
        for option in options:
            if option.command is Command.BAKE and option.target_name:
                name = f"{tag}-{option.target_name}"
                try:
                    Tag.parse(name)
                except InvalidTag as error:
                    raise InvalidBuildRequest(
                        f"target {option.target_name!r} cannot be saved: {error}"
                    ) from None


def _characters(option: BuildOptions) -> int:
    """How much text the option holds, with some for each value that may be empty."""
    texts = [*option.tags, *option.save_tags, option.target_name or ""]
    for output in option.outputs:
        texts += [output.kind, *(text for pair in output.attributes for text in pair)]
    return sum(len(text) + 8 for text in texts)
