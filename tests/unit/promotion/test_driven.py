import base64
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layover.builds.errors import BuildNotSaved, BuildStillRunning, BuildUnknown
from layover.identity.models import ActionDenied
from layover.oci.digest import Digest
from layover.oci.references import Destination, InvalidDestination
from layover.promotion.driven import _Driven
from layover.promotion.models import Push, PushStatus, PushUnknown
from tests.unit.builds.memory import START
from tests.unit.builds.world import PROJECT
from tests.unit.promotion.world import DESTINATION, MOST_LIVE, VIEWER, PushWorld

pytestmark = pytest.mark.anyio


async def listed(world: PushWorld) -> list[Push]:
    pushes, _ = await world.pushes.list_page(world.world.user, PROJECT, 0, "")
    return list(pushes)


async def test_a_push_that_its_client_drove_is_listed_when_it_has_ended() -> None:
    world = PushWorld()
    build_id = await world.world.finished()
    push_id = await world.driven.start(world.world.user, build_id, DESTINATION)
    assert await listed(world) == []
    world.world.clock.advance(seconds=30)
    await world.driven.finish(world.world.user, push_id, build_id, None)
    (push,) = await listed(world)
    assert push_id.startswith(f"{push.id}.")
    assert (push.status, push.error, push.build_id) == (PushStatus.DONE, None, build_id)
    assert (push.target, push.source) == ("", Digest.of(build_id.encode()))
    assert push.destinations == (Destination.parse(DESTINATION),)
    assert (push.created_at, push.started_at) == (START, START)
    assert push.finished_at == world.world.clock()
    assert push.created_by == "user u1"


async def test_one_that_failed_says_why_in_words_that_are_safe_to_print() -> None:
    world = PushWorld()
    build_id = await world.world.finished()
    for error in ("denied\x1b[2J, password=hunter2", ""):
        push_id = await world.driven.start(world.world.user, build_id, DESTINATION)
        await world.driven.finish(world.world.user, push_id, build_id, error)
    assert {(push.status, push.error) for push in await listed(world)} == {
        (PushStatus.FAILED, "denied\ufffd[2J, password=[redacted]"),
        (PushStatus.FAILED, "its client did not say why"),
    }


async def test_to_end_it_once_more_changes_nothing() -> None:
    world = PushWorld()
    build_id = await world.world.finished()
    push_id = await world.driven.start(world.world.user, build_id, DESTINATION)
    for error in (None, None, "too late"):
        await world.driven.finish(world.world.user, push_id, build_id, error)
    assert [push.status for push in await listed(world)] == [PushStatus.DONE]


async def test_it_takes_no_place_of_those_that_the_server_does() -> None:
    world = PushWorld()
    for _ in range(MOST_LIVE):
        push = await world.create()
    push_id = await world.driven.start(world.world.user, push.build_id, DESTINATION)
    await world.driven.finish(world.world.user, push_id, push.build_id, None)
    now = world.world.clock()
    until = now + timedelta(hours=1)
    while (claim := await world.store.claim("a server", now, until, 1000)) is not None:
        assert not push_id.startswith(claim.push.id)
    assert len(await listed(world)) == MOST_LIVE + 1


async def test_of_several_targets_nobody_says_which_so_that_none_is_listed() -> None:
    world = PushWorld()
    build_id = await world.world.finished("db", "web")
    push_id = await world.driven.start(world.world.user, build_id, DESTINATION)
    await world.driven.finish(world.world.user, push_id, build_id, None)
    assert await listed(world) == []


async def test_the_only_target_of_a_bake_is_told() -> None:
    world = PushWorld()
    build_id = await world.world.finished("web")
    push_id = await world.driven.start(world.world.user, build_id, DESTINATION)
    await world.driven.finish(world.world.user, push_id, build_id, None)
    assert [push.target for push in await listed(world)] == ["web"]


async def test_what_cannot_be_pushed_is_not_begun() -> None:
    world = PushWorld()
    running = (await world.world.create()).build.id
    unsaved = await world.world.finished(pushed=False)
    saved = await world.world.finished()
    user = world.world.user
    for build_id, destination, error in (
        ("unknown", DESTINATION, BuildUnknown),
        (running, DESTINATION, BuildStillRunning),
        (unsaved, DESTINATION, BuildNotSaved),
        (saved, "No Destination", InvalidDestination),
    ):
        with pytest.raises(error):
            await world.driven.start(user, build_id, destination)


async def test_who_may_not_push_on_neither_begins_nor_ends() -> None:
    world = PushWorld()
    build_id = await world.world.finished()
    push_id = await world.driven.start(world.world.user, build_id, DESTINATION)
    for principal, error in ((VIEWER, ActionDenied), (world.world.foreigner, BuildUnknown)):
        with pytest.raises(error):
            await world.driven.start(principal, build_id, DESTINATION)
        with pytest.raises(error):
            await world.driven.finish(principal, push_id, build_id, None)
    assert await listed(world) == []


def made_up(text: str, push_id: str = "abcdefghij") -> str:
    return f"{push_id}.{base64.urlsafe_b64encode(text.encode()).decode().rstrip('=')}"


@pytest.mark.parametrize(
    "push_id",
    [
        "",
        "abcdefghij",
        "abcdefghij.",
        "abcdefghij.!",
        made_up("1|ghcr.io/acme/app:v1", "ABCDEFGHIJ"),
        made_up("x|ghcr.io/acme/app:v1"),
        made_up("1|No Destination"),
        made_up(f"{'9' * 40}|ghcr.io/acme/app:v1"),
        # Before the build was, and after now.
        made_up("1|ghcr.io/acme/app:v1"),
        made_up("32503680000000000|ghcr.io/acme/app:v1"),
        made_up("1|ghcr.io/acme/app:v1" + " " * 2000),
    ],
    ids=range(11),
)
async def test_what_is_no_pushs_id_is_unknown(push_id: str) -> None:
    world = PushWorld()
    build_id = await world.world.finished()
    with pytest.raises(PushUnknown):
        await world.driven.finish(world.world.user, push_id, build_id, None)
    assert await listed(world) == []


async def test_an_id_of_another_push_changes_nothing_of_that() -> None:
    world = PushWorld()
    push = await world.create()
    microseconds = str(_Driven("a" * 10, START, push.destinations[0]))
    known = f"{push.id}.{microseconds.partition('.')[2]}"
    await world.driven.finish(world.world.user, known, push.build_id, "no")
    assert await listed(world) == [push]


@given(
    time=st.datetimes(timezones=st.just(UTC)),
    destination=st.sampled_from(["app", "ghcr.io/acme/app:v1", "[::1]:5000/a/b_c/d-e:x.Y"]),
)
def test_an_id_says_what_it_was_made_of(time: datetime, destination: str) -> None:
    driven = _Driven("abcdefghij", time, Destination.parse(destination))
    assert _Driven.parse(str(driven)) == driven


@given(text=st.text(max_size=80) | st.text(max_size=80).map(lambda text: made_up(repr(text))))
def test_whatever_is_said_to_be_an_id_is_one_or_unknown(text: str) -> None:
    try:
        _Driven.parse(text)
    except PushUnknown:
        return
    assert text.startswith(_Driven.parse(text).id)
