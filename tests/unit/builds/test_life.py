from datetime import datetime, timedelta
from typing import Any

import pytest

from layover.builds.errors import (
    BuildEnded,
    BuildGone,
    BuildNotEnded,
    BuildUnknown,
    InvalidBuildRequest,
    ProjectNotGiven,
)
from layover.builds.limits import MAX_OPTIONS_CHARACTERS
from layover.builds.models import BuildOptions, BuildOutput, BuildStatus, Command
from layover.errors import StorageUnavailable
from layover.identity.access import Action
from layover.identity.models import (
    ActionDenied,
    Principal,
    ProjectUnknown,
    TokenKind,
    Unauthenticated,
)
from layover.identity.retention import InvalidRetention
from layover.oci.names import InvalidTag
from layover.registry.models import Gone
from tests.unit.builds.world import FOREIGN_PROJECT, PROJECT, SAVED, World

pytestmark = pytest.mark.anyio

ENDS = (BuildStatus.FINISHED, BuildStatus.FAILED, BuildStatus.CANCELED)


async def test_a_new_build_is_created_and_its_token_drives_it() -> None:
    world = World()
    created = await world.create()
    assert await world.status(created.build.id) is BuildStatus.CREATED
    own = await world.identity.authenticate(created.token)
    assert own.kind is TokenKind.BUILD
    assert own.build_id == created.build.id
    assert await world.builds.driven(own, created.build.id) == created.build


async def test_a_builds_token_writes_its_id_and_its_save_tags_alone() -> None:
    world = World()
    created = await world.create([BuildOptions(save=True, save_tags=("main", "v1"))])
    own = await world.identity.authenticate(created.token)
    project_id = created.build.project_id
    assert own.tags == {f"{project_id}:{tag}" for tag in (created.build.id, "main", "v1")}


async def test_health_starts_a_build_and_does_not_tell_it_to_stop() -> None:
    world = World()
    build_id = (await world.create()).build.id
    world.clock.advance(seconds=3)
    assert await world.builds.report_health(world.user, build_id) is None
    build = await world.store.find(build_id)
    assert build is not None
    assert build.status is BuildStatus.RUNNING
    assert build.started_at == build.seen_at == world.clock()


@pytest.mark.parametrize("first", ENDS)
@pytest.mark.parametrize("second", ENDS)
async def test_an_ended_build_keeps_its_first_end(first: BuildStatus, second: BuildStatus) -> None:
    world = World()
    build_id = (await world.create()).build.id
    await world.builds.finish(world.user, build_id, first, "the first")
    before = await world.store.find(build_id)
    world.clock.advance(seconds=1)
    if second is first:
        await world.builds.finish(world.user, build_id, second, "the second")
    else:
        with pytest.raises(BuildEnded, match=first):
            await world.builds.finish(world.user, build_id, second, "the second")
    assert await world.store.find(build_id) == before


async def test_the_token_of_an_ended_build_is_worth_nothing() -> None:
    world = World()
    created = await world.create()
    own = await world.identity.authenticate(created.token)
    await world.builds.finish(own, created.build.id, BuildStatus.FINISHED)
    with pytest.raises(Unauthenticated):
        await world.identity.authenticate(created.token)


async def test_health_of_an_ended_build_tells_to_stop() -> None:
    world = World()
    build_id = await world.finished()
    cancels_at = await world.builds.report_health(world.user, build_id)
    assert cancels_at is not None
    assert cancels_at <= world.clock()


async def test_a_build_whose_client_is_silent_ends_as_canceled() -> None:
    world = World()
    silent = await world.create()
    assert await world.watch(seconds=40) == []
    heard = (await world.create()).build.id
    assert await world.watch(seconds=21) == [silent.build.id]
    assert await world.status(silent.build.id) is BuildStatus.CANCELED
    assert not (await world.status(heard)).has_ended
    build = await world.store.find(silent.build.id)
    assert build is not None
    assert build.error == "its client was not heard of for 60 s"
    with pytest.raises(Unauthenticated):
        await world.identity.authenticate(silent.token)


async def test_health_keeps_a_build_alive_for_as_long_as_it_comes() -> None:
    world = World()
    build_id = (await world.create()).build.id
    for _ in range(5):
        assert await world.watch(seconds=55) == []
        await world.builds.report_health(world.user, build_id)
        assert await world.watch(seconds=0) == []


@pytest.mark.parametrize("absence_seconds", [31, 3600, -3600])
async def test_a_server_that_was_away_gives_clients_time_to_be_heard_of(
    absence_seconds: float,
) -> None:
    world = World()
    await world.watch(seconds=100)
    alive, gone = [(await world.create()).build.id for _ in range(2)]
    assert await world.watch(seconds=50) == []
    world.clock.advance(seconds=absence_seconds)
    assert await world.watch(seconds=5) == []
    await world.builds.report_health(world.user, alive)
    if absence_seconds > 0:
        assert await world.watch(seconds=56) == [gone]
    assert not (await world.status(alive)).has_ended


async def test_a_database_that_was_away_gives_clients_time_to_be_heard_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    await world.watch(seconds=100)
    alive, gone = [(await world.create()).build.id for _ in range(2)]

    async def fails(_: datetime) -> bool:
        raise StorageUnavailable

    monkeypatch.setattr(world.store, "has_vanished", fails)
    for _ in range(10):
        # As the job does, which waits for the database and tries again.
        world.clock.advance(seconds=15)
        with pytest.raises(StorageUnavailable):
            await world.builds.cancel_vanished(world.clock())
    monkeypatch.undo()
    # It is back, and clients have not said a word yet.
    assert await world.watch(seconds=5) == []
    await world.builds.report_health(world.user, alive)
    assert await world.watch(seconds=56) == [gone]
    assert not (await world.status(alive)).has_ended


@pytest.mark.parametrize("ended_as", ENDS)
async def test_a_build_that_ends_otherwise_as_its_client_says_its_end_is_told_so(
    monkeypatch: pytest.MonkeyPatch, ended_as: BuildStatus
) -> None:
    world = World()
    build_id = (await world.create()).build.id
    end = world.store.end

    async def after_another(asked: str, *how: Any) -> bool:
        await end(asked, ended_as, None, world.clock())
        return await end(asked, *how)

    monkeypatch.setattr(world.store, "end", after_another)
    if ended_as is BuildStatus.FINISHED:
        await world.builds.finish(world.user, build_id, BuildStatus.FINISHED)
    else:
        with pytest.raises(BuildEnded, match=ended_as):
            await world.builds.finish(world.user, build_id, BuildStatus.FINISHED)
    assert await world.status(build_id) is ended_as


@pytest.mark.parametrize("action", ["health", "finish", "delete", "driven"])
async def test_another_projects_build_reads_exactly_as_unknown(action: str) -> None:
    world = World()
    theirs = (await world.create()).build.id

    async def attempt(build_id: str) -> str:
        with pytest.raises(BuildUnknown) as caught:
            match action:
                case "health":
                    await world.builds.report_health(world.foreigner, build_id)
                case "finish":
                    await world.builds.finish(world.foreigner, build_id, BuildStatus.FINISHED)
                case "delete":
                    await world.builds.delete(world.foreigner, build_id)
                case _:
                    await world.builds.driven(world.foreigner, build_id)
        return str(caught.value).replace(build_id, "ID")

    assert await attempt(theirs) == await attempt("aaaaaaaaaa")
    assert not (await world.status(theirs)).has_ended


async def test_a_builds_token_does_not_see_its_projects_other_builds() -> None:
    world = World()
    other = (await world.create()).build.id
    own = await world.identity.authenticate((await world.create()).token)
    with pytest.raises(BuildUnknown):
        await world.builds.driven(own, other)


async def test_a_pull_token_creates_and_drives_nothing() -> None:
    world = World()
    build_id = (await world.create()).build.id
    with pytest.raises(ActionDenied):
        await world.builds.create(world.puller, PROJECT, [SAVED])
    with pytest.raises(ActionDenied):
        await world.builds.driven(world.puller, build_id)


async def test_without_a_project_the_only_visible_one_is_meant() -> None:
    world = World()
    created = await world.builds.create(world.project_token, None, [SAVED])
    assert created.build.project_id == PROJECT


async def test_without_a_project_the_caller_of_several_is_told_what_to_pass() -> None:
    world = World()
    with pytest.raises(ProjectNotGiven, match=rf"--project.*{PROJECT}"):
        await world.builds.create(world.user, None, [SAVED])


async def test_no_build_is_created_in_a_project_that_the_caller_does_not_see() -> None:
    world = World()
    with pytest.raises(ProjectUnknown):
        await world.builds.create(world.user, FOREIGN_PROJECT, [SAVED])


@pytest.mark.parametrize("tag", ["", "-dash", ".dot", "a b", "ü", "a" * 129, "x:y", "a/b"])
async def test_a_save_tag_that_is_no_tag_is_refused(tag: str) -> None:
    with pytest.raises(InvalidTag):
        await World().create([BuildOptions(save=True, save_tags=(tag,))])


async def test_a_save_tag_has_to_be_one_with_its_target_too() -> None:
    def bake(tag: str) -> list[BuildOptions]:
        return [
            BuildOptions(command=Command.BAKE, save=True, save_tags=(tag,), target_name="t" * 27)
        ]

    await World().create(bake("a" * 100))
    with pytest.raises(InvalidBuildRequest, match="cannot be saved"):
        await World().create(bake("a" * 101))


@pytest.mark.parametrize("suffix", ["", "-target"])
async def test_a_save_tag_cannot_be_another_builds(suffix: str) -> None:
    world = World()
    other = (await world.create()).build.id
    with pytest.raises(InvalidBuildRequest, match="another build"):
        await world.create([BuildOptions(save=True, save_tags=(other + suffix,))])


async def test_a_save_tag_says_nothing_of_the_builds_of_other_projects() -> None:
    world = World()
    foreign = (await world.builds.create(world.foreigner, FOREIGN_PROJECT, [SAVED])).build.id
    await world.create([BuildOptions(save=True, save_tags=(foreign,))])


async def test_options_that_every_listing_would_read_are_bounded() -> None:
    world = World()
    for options in (
        BuildOptions(tags=("x" * MAX_OPTIONS_CHARACTERS,)),
        BuildOptions(tags=("",) * MAX_OPTIONS_CHARACTERS),
        BuildOptions(outputs=(BuildOutput("local", (("dest", "x" * MAX_OPTIONS_CHARACTERS),)),)),
    ):
        with pytest.raises(InvalidBuildRequest, match="pass fewer"):
            await world.create([options])


async def test_more_targets_than_the_limit_are_refused() -> None:
    with pytest.raises(InvalidBuildRequest, match="1001 targets"):
        await World().create([SAVED] * 1001)


async def test_deleting_a_running_build_cancels_it_and_hides_it() -> None:
    world = World()
    created = await world.create()
    build_id = created.build.id
    world.images.save(build_id, build_id)
    await world.builds.report_health(world.user, build_id)
    await world.builds.delete(world.user, build_id)
    with pytest.raises(BuildGone, match="deleted at 2026-03-01T12:00:00Z"):
        await world.builds.driven(world.user, build_id)
    assert await world.status(build_id) is BuildStatus.CANCELED
    with pytest.raises(Unauthenticated):
        await world.identity.authenticate(created.token)


async def test_a_deleted_build_is_deleted_once_and_lists_nowhere() -> None:
    world = World()
    build_id = await world.finished()
    puller = (await world.pulls.pull_info(world.user, build_id)).token
    await world.builds.delete(world.user, build_id)
    with pytest.raises(BuildGone):
        await world.builds.delete(world.user, build_id)
    assert (await world.listing.list_page(world.user, PROJECT, 10, "")).builds == ()
    with pytest.raises(Unauthenticated):
        await world.identity.authenticate(puller)


async def test_a_build_is_over_at_its_time_and_not_a_moment_sooner() -> None:
    world = World()
    build_id = await world.finished()
    world.clock.advance(days=7, microseconds=-1)
    assert await world.builds.find(world.user, build_id, Action.SEE_BUILDS)
    world.clock.advance(microseconds=1)
    with pytest.raises(BuildGone, match="expired at 2026-03-08T12:00:00Z"):
        await world.builds.find(world.user, build_id, Action.SEE_BUILDS)
    assert (await world.listing.list_page(world.user, PROJECT, 10, "")).builds == ()


async def test_a_collected_build_is_told_of_to_who_may_see_it_alone() -> None:
    world = World()
    build_id = await world.finished()
    world.store.collect(build_id, Gone(is_deleted=False, at=world.clock()))
    with pytest.raises(BuildGone, match="expired at"):
        await world.builds.find(world.user, build_id, Action.SEE_BUILDS)
    with pytest.raises(BuildUnknown):
        await world.builds.find(world.foreigner, build_id, Action.SEE_BUILDS)
    own = await world.identity.authenticate((await world.create()).token)
    with pytest.raises(BuildUnknown):
        await world.builds.find(own, build_id, Action.SEE_BUILDS)


async def test_a_build_is_kept_longer_and_never_shorter() -> None:
    world = World()
    build_id = await world.finished()
    kept = await world.builds.keep(world.user, build_id, timedelta(days=14))
    assert kept.expires_at == world.clock() + timedelta(days=14)
    kept = await world.builds.keep(world.user, build_id, timedelta(days=1))
    assert kept.expires_at == world.clock() + timedelta(days=14)
    world.clock.advance(days=13)
    assert await world.builds.find(world.user, build_id, Action.SEE_BUILDS)


@pytest.mark.parametrize("seconds", [0, -1, 0.5, 91 * 86_400, 10**9])
async def test_a_retention_out_of_bounds_is_refused(seconds: float) -> None:
    world = World()
    build_id = await world.finished()
    with pytest.raises(InvalidRetention):
        await world.builds.keep(world.user, build_id, timedelta(seconds=seconds))
    with pytest.raises(InvalidRetention):
        await world.builds.create(world.user, PROJECT, [SAVED], timedelta(seconds=seconds))


async def test_what_cannot_be_kept_is_told_as_what_it_is() -> None:
    world = World()
    week = timedelta(days=7)
    running = (await world.create()).build.id
    with pytest.raises(BuildNotEnded):
        await world.builds.keep(world.user, running, week)
    over = await world.finished()
    world.clock.advance(days=8)
    with pytest.raises(BuildGone):
        await world.builds.keep(world.user, over, week)
    build_id = await world.finished()
    with pytest.raises(BuildUnknown):
        await world.builds.keep(world.foreigner, build_id, week)
    with pytest.raises(BuildUnknown):
        await world.builds.keep(world.user, "aaaaaaaaaa", week)
    with pytest.raises(ActionDenied):
        await world.builds.keep(world.puller, build_id, week)


async def test_a_build_is_kept_for_what_was_asked_when_it_was_created() -> None:
    world = World()
    created = await world.builds.create(world.user, PROJECT, [SAVED], timedelta(hours=36))
    world.clock.advance(hours=1)
    await world.builds.finish(world.user, created.build.id, BuildStatus.FINISHED)
    build = await world.builds.find(world.user, created.build.id, Action.SEE_BUILDS)
    assert build.expires_at == world.clock() + timedelta(hours=36)


async def test_no_pull_token_outlives_its_build() -> None:
    world = World()
    build_id = await world.finished()
    world.clock.advance(days=7, minutes=-5)
    for token in (
        (await world.pulls.pull_info(world.user, build_id)).token,
        await world.pulls.pull_token(world.user, None, build_id),
    ):
        world.clock.advance(minutes=4)
        assert await world.identity.authenticate(token)
        world.clock.advance(minutes=1)
        with pytest.raises(Unauthenticated):
            await world.identity.authenticate(token)
        world.clock.advance(minutes=-5)


async def test_a_builds_token_does_not_delete_its_build() -> None:
    world = World()
    created = await world.create()
    own = await world.identity.authenticate(created.token)
    with pytest.raises(ActionDenied):
        await world.builds.delete(own, created.build.id)


async def test_an_endless_error_is_cut() -> None:
    world = World()
    build_id = (await world.create()).build.id
    await world.builds.finish(world.user, build_id, BuildStatus.FAILED, "x\0" * 100_000)
    build = await world.store.find(build_id)
    assert build is not None
    assert build.error is not None
    assert len(build.error) <= 16 * 1024
    assert "\0" not in build.error


async def test_a_timeout_of_the_settings_counts() -> None:
    world = World()
    builds = type(world.builds)(
        world.store,
        world.identity,
        world.address,
        world.clock,
        timedelta(seconds=5),
    )
    await builds.cancel_vanished(world.clock())
    build_id = (await world.create()).build.id
    world.clock.advance(seconds=6)
    assert await builds.cancel_vanished(world.clock()) == [build_id]


async def test_a_project_token_of_another_project_sees_no_build() -> None:
    world = World()
    build_id = (await world.create()).build.id
    other = Principal("t9", TokenKind.PROJECT, "org1", project_id="projectbbb")
    with pytest.raises(BuildUnknown):
        await world.builds.driven(other, build_id)
