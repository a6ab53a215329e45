from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layover.builds.errors import InvalidBuildRequest, InvalidPageToken
from layover.builds.listing import decode_page_token, encode_page_token
from layover.builds.models import Build, BuildStatus
from layover.identity.models import ProjectUnknown
from tests.unit.builds.world import FOREIGN_PROJECT, PROJECT, World

pytestmark = pytest.mark.anyio


async def ids(world: World, page_size: int, token: str = "") -> tuple[list[str], str | None]:
    page = await world.listing.list_page(world.user, PROJECT, page_size, token)
    return [build.id for build in page.builds], page.next_token


async def test_pages_hold_every_build_once_newest_first_though_new_ones_come() -> None:
    world = World()
    created: list[str] = []
    for _ in range(7):
        created.insert(0, (await world.create()).build.id)
        world.clock.advance(seconds=1)
    first, token = await ids(world, 3)
    await world.create()
    assert token is not None
    second, token = await ids(world, 3, token)
    assert token is not None
    third, token = await ids(world, 3, token)
    assert token is None
    assert first + second + third == created


async def test_builds_of_the_same_moment_are_all_listed() -> None:
    world = World()
    created = {(await world.create()).build.id for _ in range(5)}
    seen: list[str] = []
    token: str | None = ""
    while token is not None:
        more, token = await ids(world, 1, token)
        seen += more
    assert sorted(seen) == sorted(created)


async def test_a_page_that_is_just_full_is_the_last() -> None:
    world = World()
    await world.create()
    assert (await ids(world, 1))[1] is None


async def test_page_sizes_have_bounds() -> None:
    world = World()
    for _ in range(101):
        await world.create()
    assert len((await ids(world, 0))[0]) == 100
    assert len((await ids(world, 2**31 - 1))[0]) == 101
    with pytest.raises(InvalidBuildRequest):
        await ids(world, -1)


async def test_a_builds_token_lists_its_own_build_alone() -> None:
    world = World()
    await world.create()
    created = await world.create()
    own = await world.identity.authenticate(created.token)
    page = await world.listing.list_page(own, None, 10, "")
    assert [build.id for build in page.builds] == [created.build.id]


async def test_a_foreign_project_is_not_listed() -> None:
    world = World()
    with pytest.raises(ProjectUnknown):
        await world.listing.list_page(world.user, FOREIGN_PROJECT, 10, "")


@given(
    st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.just(UTC)),
    st.text("abcdefghij234567", min_size=10, max_size=10),
)
def test_a_page_token_reads_as_it_was_written(created_at: datetime, build_id: str) -> None:
    build = Build(build_id, PROJECT, BuildStatus.CREATED, (), created_at, created_at)
    key = decode_page_token(encode_page_token(build))
    assert (key.created_at, key.build_id) == (created_at, build_id)


@given(st.text())
def test_any_other_text_is_refused_or_a_place(text: str) -> None:
    try:
        key = decode_page_token(text)
    except InvalidPageToken:
        return
    assert key.created_at - datetime(1970, 1, 1, tzinfo=UTC) > timedelta.min
