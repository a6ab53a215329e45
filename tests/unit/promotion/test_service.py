import re
from collections.abc import Sequence
from datetime import timedelta

import pytest

from layover.builds.errors import (
    BuildGone,
    BuildNotSaved,
    BuildStillRunning,
    BuildUnknown,
    BuildUnsuccessful,
)
from layover.builds.models import BuildStatus
from layover.errors import LayoverError, StorageUnavailable
from layover.identity.management import InvalidChange, InvalidPlace
from layover.identity.models import ActionDenied, Principal, ProjectUnknown, TokenKind
from layover.oci.digest import Digest
from layover.oci.references import Destination, InvalidDestination
from layover.promotion.models import (
    InvalidPush,
    PushEnded,
    PushStatus,
    PushUnknown,
    TooManyPushes,
)
from layover.promotion.service import MAX_DESTINATIONS, MAX_PLATFORMS, named
from tests.unit.builds.world import FOREIGN_PROJECT, PROJECT, SISTER_PROJECT
from tests.unit.promotion.world import DESTINATION, MOST_LIVE, PLACE, TOKEN, VIEWER, PushWorld

pytestmark = pytest.mark.anyio


async def refusal(
    world: PushWorld,
    build_id: str,
    target: str = "",
    destinations: Sequence[str] = (DESTINATION,),
    platforms: Sequence[str] = (),
) -> LayoverError:
    """Why the push is not taken on; nothing is queued for it."""
    with pytest.raises(LayoverError) as caught:
        await world.pushes.create(world.world.user, build_id, target, destinations, platforms)
    pushes, _ = await world.pushes.list_page(world.world.user, PROJECT, 0, "")
    assert not pushes
    return caught.value


# --- what is pushed ------------------------------------------------------------------------------


async def test_a_push_of_a_build_is_queued_with_all_that_was_asked_for() -> None:
    world = PushWorld()
    build_id = await world.world.finished()
    push = await world.pushes.create(
        world.world.user,
        build_id,
        "",
        ["app", DESTINATION],
        with_referrers=True,
        authorizations=[(PLACE, TOKEN)],
    )
    assert (push.status, push.project_id, push.build_id) == (PushStatus.QUEUED, PROJECT, build_id)
    assert (push.target, push.source) == ("", Digest.of(build_id.encode()))
    assert list(map(str, push.destinations)) == ["docker.io/library/app:latest", DESTINATION]
    assert (push.platforms, push.with_referrers) == ((), True)
    assert (push.created_at, push.created_by) == (world.world.clock(), "user u1")
    assert await world.store.find(push.id) == push
    assert {str(place): given for place, given in world.authorizations.of[push.id].items()} == {
        PLACE: TOKEN
    }


async def test_a_registry_that_asks_for_nothing_is_given_nothing() -> None:
    world = PushWorld()
    push = await world.create()
    # Told of all the same: the server that is told begins.
    assert world.authorizations.of[push.id] == {}


async def test_of_a_bake_the_target_that_is_named_is_pushed() -> None:
    world = PushWorld()
    build_id = await world.world.finished("db", "web")
    push = await world.pushes.create(world.world.user, build_id, "web", [DESTINATION])
    assert (push.target, push.source) == ("web", Digest.of(f"{build_id}-web".encode()))


async def test_the_only_target_of_a_bake_needs_no_naming() -> None:
    world = PushWorld()
    build_id = await world.world.finished("web")
    push = await world.pushes.create(world.world.user, build_id, "", [DESTINATION])
    assert push.target == "web"


async def test_of_several_targets_one_has_to_be_named() -> None:
    world = PushWorld()
    build_id = await world.world.finished("web", "db")
    error = await refusal(world, build_id)
    assert isinstance(error, InvalidPush)
    assert str(error) == (
        f"build {build_id} saved several targets: name one with --target: db, web"
    )


async def test_an_unknown_target_is_told_which_there_are() -> None:
    world = PushWorld()
    build_id = await world.world.finished("web", "db")
    error = await refusal(world, build_id, "wep")
    assert str(error) == f"build {build_id} saved no target 'wep'; it has db, web"


async def test_a_plain_build_says_that_it_has_no_targets() -> None:
    world = PushWorld()
    build_id = await world.world.finished()
    assert str(await refusal(world, build_id, "web")) == (
        f"build {build_id} has no targets: leave out --target"
    )


async def test_a_save_tag_is_no_target() -> None:
    world = PushWorld()
    build_id = await world.world.finished(pushed=False)
    world.world.images.save(build_id, build_id, "main")
    push = await world.pushes.create(world.world.user, build_id, "", [DESTINATION])
    assert push.source == Digest.of(build_id.encode())


async def test_what_is_saved_under_save_tags_alone_is_not_saved() -> None:
    world = PushWorld()
    build_id = await world.world.finished(pushed=False)
    world.world.images.save(build_id, "main")
    assert isinstance(await refusal(world, build_id), BuildNotSaved)


@pytest.mark.parametrize(
    ("wanted", "pushed"),
    [
        (["linux/amd64"], ("linux/amd64",)),
        (["arm64"], ("linux/arm64/v8",)),
        (["linux/aarch64", "linux/arm64/v8"], ("linux/arm64/v8",)),
        (["linux/arm", "x86_64"], ("linux/arm/v6", "linux/arm/v7", "linux/amd64")),
        (["linux/arm/v7"], ("linux/arm/v7",)),
    ],
)
async def test_platforms_are_named_as_the_image_names_them(
    wanted: list[str], pushed: tuple[str, ...]
) -> None:
    world = PushWorld()
    build_id = await world.world.finished(
        platforms=("linux/amd64", "linux/arm64/v8", "linux/arm/v6", "linux/arm/v7")
    )
    push = await world.pushes.create(world.world.user, build_id, "", [DESTINATION], wanted)
    assert push.platforms == pushed


@pytest.mark.parametrize("platform", ["linux/s390x", "", "/", "linux/amd64/v2", "windows/amd64"])
async def test_an_unknown_platform_is_told_which_the_image_has(platform: str) -> None:
    world = PushWorld()
    build_id = await world.world.finished(platforms=("linux/amd64", "linux/arm64"))
    error = await refusal(world, build_id, platforms=["linux/amd64", platform])
    assert isinstance(error, InvalidPush)
    assert str(error) == (
        f"build {build_id} is not for {platform!r}; it is for linux/amd64, linux/arm64"
    )


async def test_of_an_image_without_platforms_none_can_be_chosen() -> None:
    world = PushWorld()
    build_id = await world.world.finished(platforms=())
    assert "leave out --platform" in str(await refusal(world, build_id, platforms=["linux/amd64"]))


async def test_platforms_are_not_without_number() -> None:
    world = PushWorld()
    build_id = await world.world.finished()
    error = await refusal(world, build_id, platforms=["linux/amd64"] * (MAX_PLATFORMS + 1))
    assert isinstance(error, InvalidPush)


# --- builds that cannot be pushed ----------------------------------------------------------------


async def test_an_unknown_build_is_not_pushed() -> None:
    assert isinstance(await refusal(PushWorld(), "unknown"), BuildUnknown)


async def test_a_running_build_is_pushed_when_it_has_finished() -> None:
    world = PushWorld()
    build_id = (await world.world.create()).build.id
    error = await refusal(world, build_id)
    assert isinstance(error, BuildStillRunning)
    assert str(error) == f"build {build_id} is still running: push it when it has finished"


async def test_a_failed_build_says_why_there_is_nothing_to_push() -> None:
    world = PushWorld()
    build_id = (await world.world.create()).build.id
    await world.world.builds.finish(world.world.user, build_id, BuildStatus.FAILED, "exit code: 3")
    error = await refusal(world, build_id)
    assert isinstance(error, BuildUnsuccessful)
    assert str(error) == f"build {build_id} failed: exit code: 3; nothing to push"


async def test_a_build_that_was_not_saved_says_so() -> None:
    world = PushWorld()
    build_id = await world.world.finished(pushed=False)
    assert isinstance(await refusal(world, build_id), BuildNotSaved)


async def test_an_expired_build_says_when_it_was_over() -> None:
    world = PushWorld()
    build_id = await world.world.finished()
    world.world.clock.advance(days=8)
    error = await refusal(world, build_id)
    assert isinstance(error, BuildGone)
    assert "expired at 2026-03-08" in str(error)


async def test_a_deleted_build_says_so() -> None:
    world = PushWorld()
    build_id = await world.world.finished()
    await world.world.builds.delete(world.world.user, build_id)
    assert isinstance(await refusal(world, build_id), BuildGone)


# --- destinations --------------------------------------------------------------------------------


async def test_a_push_goes_somewhere() -> None:
    world = PushWorld()
    build_id = await world.world.finished()
    assert "no destination" in str(await refusal(world, build_id, destinations=[]))


@pytest.mark.parametrize("text", ["", "App", "https://ghcr.io/a", "ghcr.io/a@sha256:b", "a:b:c"])
async def test_what_is_no_destination_is_refused(text: str) -> None:
    world = PushWorld()
    build_id = await world.world.finished()
    error = await refusal(world, build_id, destinations=[DESTINATION, text])
    assert isinstance(error, InvalidDestination)


async def test_the_same_destination_is_one_however_it_is_written() -> None:
    push = await PushWorld().create("app", "docker.io/library/app", "index.docker.io/app:latest")
    assert push.destinations == (Destination.parse("app"),)


async def test_destinations_are_counted_each_once() -> None:
    most = [f"registry.example/app:{number}" for number in range(MAX_DESTINATIONS)]
    push = await PushWorld().create(*most, *most)
    assert len(push.destinations) == MAX_DESTINATIONS


@pytest.mark.parametrize("count", [MAX_DESTINATIONS + 1, 100 * MAX_DESTINATIONS])
async def test_destinations_are_not_without_number(count: int) -> None:
    world = PushWorld()
    build_id = await world.world.finished()
    many = [f"registry.example/app:{number}" for number in range(count)]
    error = await refusal(world, build_id, destinations=many)
    assert isinstance(error, InvalidPush)
    assert "at most 20" in str(error)


@pytest.mark.parametrize("host", ["layover.example:5443", "LAYOVER.example:5443"])
async def test_an_image_is_not_pushed_onto_itself(host: str) -> None:
    world = PushWorld()
    build_id = await world.world.finished("web")
    error = await refusal(world, build_id, destinations=[f"{host}/{PROJECT}:{build_id}-web"])
    assert isinstance(error, InvalidPush)
    assert "is what the build is saved as already" in str(error)


@pytest.mark.parametrize(
    "destination",
    [
        f"layover.example:5443/{PROJECT}:latest",
        f"layover.example:5443/{PROJECT}/app:{{build}}",
        f"layover.example:5443/{SISTER_PROJECT}:{{build}}",
        f"layover.example/{PROJECT}:{{build}}",
        f"other.example:5443/{PROJECT}:{{build}}",
    ],
)
async def test_an_image_is_pushed_elsewhere_on_this_server(destination: str) -> None:
    world = PushWorld()
    build_id = await world.world.finished()
    where = destination.format(build=build_id)
    push = await world.pushes.create(world.world.user, build_id, "", [where])
    assert list(map(str, push.destinations)) == [where]


# --- what registries are shown -------------------------------------------------------------------


@pytest.mark.parametrize("place", ["registry.example/acme/other", "registry.example", "", "app"])
async def test_only_a_destination_is_shown_something(place: str) -> None:
    world = PushWorld()
    build_id = await world.world.finished()
    with pytest.raises(InvalidPush, match=re.escape(f"{place!r}")) as caught:
        await world.pushes.create(
            world.world.user, build_id, "", [DESTINATION], authorizations=[(place, TOKEN)]
        )
    assert TOKEN.secret not in str(caught.value)


async def test_a_place_is_shown_one_thing() -> None:
    world = PushWorld()
    build_id = await world.world.finished()
    with pytest.raises(InvalidPush, match="two authorizations"):
        await world.pushes.create(
            world.world.user,
            build_id,
            "",
            [DESTINATION, f"{PLACE}:v2"],
            authorizations=[(PLACE, TOKEN), (PLACE, TOKEN)],
        )


async def test_a_push_whose_authorization_cannot_be_kept_is_canceled() -> None:
    world = PushWorld()
    world.authorizations.failure = StorageUnavailable("the database")
    with pytest.raises(StorageUnavailable):
        await world.create()
    ((push,), _) = await world.pushes.list_page(world.world.user, PROJECT, 0, "")
    assert push.status is PushStatus.CANCELED


async def test_a_push_is_authorized_anew_while_it_lasts() -> None:
    world = PushWorld()
    push = await world.create()
    await world.pushes.authorize(world.world.project_token, push.id, [(PLACE, TOKEN)])
    assert list(world.authorizations.of[push.id].values()) == [TOKEN]


async def test_nothing_is_no_authorization() -> None:
    world = PushWorld()
    push = await world.create()
    with pytest.raises(InvalidPush, match="no authorization"):
        await world.pushes.authorize(world.world.user, push.id, [])


async def test_what_has_ended_is_not_authorized() -> None:
    world = PushWorld()
    push = await world.create()
    await world.end(push, PushStatus.DONE)
    with pytest.raises(PushEnded, match="it is done"):
        await world.pushes.authorize(world.world.user, push.id, [(PLACE, TOKEN)])


async def test_what_ends_while_it_is_authorized_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    world = PushWorld()
    push = await world.create()
    keep = world.authorizations.put

    async def late(*arguments: object) -> bool:
        await world.pushes.cancel(world.world.user, push.id)
        return await keep(push.id, {})

    monkeypatch.setattr(world.authorizations, "put", late)
    with pytest.raises(PushEnded, match="it is canceled"):
        await world.pushes.authorize(world.world.user, push.id, [(PLACE, TOKEN)])


# --- how many ------------------------------------------------------------------------------------


async def test_a_project_has_so_many_pushes_under_way_and_more_once_some_have_ended() -> None:
    world = PushWorld()
    pushes = [await world.create() for _ in range(MOST_LIVE)]
    with pytest.raises(TooManyPushes, match=f"{MOST_LIVE} pushes under way"):
        await world.create()
    await world.end(pushes[0], PushStatus.FAILED, "no")
    await world.create()


# --- shown, listed, stopped ----------------------------------------------------------------------


async def test_pushes_are_listed_newest_first_in_pages() -> None:
    world = PushWorld()
    created = []
    for _ in range(MOST_LIVE):
        created.append((await world.create()).id)
        world.world.clock.advance(seconds=1)
    first, token = await world.pushes.list_page(world.world.user, PROJECT, 2, "")
    rest, end = await world.pushes.list_page(world.world.user, PROJECT, 2, token)
    assert [push.id for push in (*first, *rest)] == created[::-1]
    assert (len(first), end) == (2, "")


@pytest.mark.parametrize("token", ["x", "!", "A" * 300, "MTI"])
async def test_a_page_begins_where_one_ended(token: str) -> None:
    world = PushWorld()
    with pytest.raises(InvalidPlace):
        await world.pushes.list_page(world.world.user, PROJECT, 0, token)


async def test_a_page_has_no_negative_size() -> None:
    world = PushWorld()
    with pytest.raises(InvalidChange):
        await world.pushes.list_page(world.world.user, PROJECT, -1, "")


async def test_a_canceled_push_that_waits_has_ended() -> None:
    world = PushWorld()
    push = await world.create()
    canceled = await world.pushes.cancel(world.world.user, push.id)
    assert (canceled.status, canceled.is_canceled) == (PushStatus.CANCELED, True)


async def test_a_running_push_is_asked_to_stop() -> None:
    world = PushWorld()
    push = await world.create()
    now = world.world.clock()
    assert await world.store.claim("a server", now, now + timedelta(minutes=1), 1) is not None
    canceled = await world.pushes.cancel(world.world.user, push.id)
    assert (canceled.status, canceled.is_canceled) == (PushStatus.RUNNING, True)


async def test_what_has_ended_stays_as_it_is_when_it_is_canceled() -> None:
    world = PushWorld()
    push = await world.create()
    await world.end(push, PushStatus.FAILED, "the registry said no")
    canceled = await world.pushes.cancel(world.world.user, push.id)
    assert (canceled.status, canceled.error) == (PushStatus.FAILED, "the registry said no")


# --- who may -------------------------------------------------------------------------------------


async def test_a_strangers_push_is_one_that_never_was() -> None:
    world = PushWorld()
    push = await world.create()
    stranger = world.world.foreigner
    for known in (push.id, "neverthere"):
        for call in (
            world.pushes.find(stranger, known),
            world.pushes.cancel(stranger, known),
            world.pushes.authorize(stranger, known, [(PLACE, TOKEN)]),
        ):
            with pytest.raises(PushUnknown) as caught:
                await call
            assert str(caught.value) == (
                f"unknown push {known!r}: `layover pushes list` shows pushes"
            )
    with pytest.raises(ProjectUnknown):
        await world.pushes.list_page(stranger, PROJECT, 0, "")
    with pytest.raises(BuildUnknown):
        await world.pushes.create(stranger, push.build_id, "", [DESTINATION])


async def test_a_viewer_sees_pushes_and_makes_none() -> None:
    world = PushWorld()
    push = await world.create()
    assert await world.pushes.find(VIEWER, push.id) == push
    assert (await world.pushes.list_page(VIEWER, PROJECT, 0, ""))[0] == (push,)
    for call in (
        world.pushes.create(VIEWER, push.build_id, "", [DESTINATION]),
        world.pushes.cancel(VIEWER, push.id),
        world.pushes.authorize(VIEWER, push.id, [(PLACE, TOKEN)]),
    ):
        with pytest.raises(ActionDenied, match="push builds on to other registries"):
            await call


async def test_a_pull_token_neither_sees_nor_makes_pushes() -> None:
    world = PushWorld()
    push = await world.create()
    for call in (
        world.pushes.find(world.world.puller, push.id),
        world.pushes.create(world.world.puller, push.build_id, "", [DESTINATION]),
        world.pushes.list_page(world.world.puller, PROJECT, 0, ""),
    ):
        with pytest.raises(ActionDenied):
            await call


async def test_a_builds_token_sees_no_other_builds_push() -> None:
    world = PushWorld()
    push = await world.create()
    driver = Principal("t6", TokenKind.BUILD, "org1", project_id=PROJECT, build_id="another")
    with pytest.raises(PushUnknown):
        await world.pushes.find(driver, push.id)
    assert await world.pushes.list_page(driver, PROJECT, 0, "") == ((), "")


async def test_a_projects_pushes_are_its_own() -> None:
    world = PushWorld()
    await world.create()
    assert await world.pushes.list_page(world.world.user, SISTER_PROJECT, 0, "") == ((), "")
    assert await world.pushes.list_page(world.world.foreigner, FOREIGN_PROJECT, 0, "") == ((), "")


@pytest.mark.parametrize(
    ("principal", "words"),
    [
        (Principal("t", TokenKind.USER, user_id="u", name="ada"), "user ada"),
        (Principal("t", TokenKind.USER, user_id="u"), "user u"),
        (Principal("t", TokenKind.PROJECT, name="deploys"), "project deploys"),
        (Principal("t", TokenKind.CI, name="repo:acme/app\x1b[2J"), "ci repo:acme/app\ufffd[2J"),
    ],
)
def test_who_asked_is_named_in_words_that_are_safe_to_print(
    principal: Principal, words: str
) -> None:
    assert named(principal) == words
