from datetime import timedelta

import pytest

from layover.builds.errors import BuildEnded, BuildUnknown
from layover.builds.limits import MAX_DIGEST_CHARACTERS
from layover.builds.models import Dockerfile, LogEntry, Step
from tests.unit.builds.memory import START
from tests.unit.builds.world import World

pytestmark = pytest.mark.anyio


def line(text: bytes) -> LogEntry:
    return LogEntry("sha256:a", START, 1, text)


async def read_log(world: World, build_id: str) -> list[bytes]:
    return [entry.message async for entry in world.reports.log(world.user, build_id)]


async def test_a_step_and_its_log_are_named_alike_and_briefly() -> None:
    world = World()
    build = (await world.create()).build
    long = "sha256:" + "a" * 1_000_000
    entry = LogEntry(long, START, 1, b"")
    await world.reports.report(world.user, build.id, [Step(long, "RUN")], [entry])
    (step,) = await world.reports.steps(build)
    logged = [line.step_digest async for line in world.reports.log(world.user, build.id)]
    assert logged == [step.digest] == [long[:MAX_DIGEST_CHARACTERS]]


async def test_later_reports_of_a_step_add_to_it_and_keep_its_place() -> None:
    world = World()
    build = (await world.create()).build
    done = START + timedelta(seconds=2)
    reports = [
        [Step("sha256:a", "FROM base"), Step("sha256:b", "RUN make")],
        [Step("sha256:b", "RUN make", started_at=START)],
        [
            Step("sha256:b", "", completed_at=done, error="exit code: 1"),
            Step("sha256:a", "FROM base", cached=True),
        ],
    ]
    for steps in reports:
        await world.reports.report(world.user, build.id, steps, [])
    assert await world.reports.steps(build) == [
        Step("sha256:a", "FROM base", cached=True),
        Step("sha256:b", "RUN make", START, done, error="exit code: 1"),
    ]


async def test_the_log_is_read_in_the_order_in_which_it_was_reported() -> None:
    world = World()
    build_id = (await world.create()).build.id
    expected = [f"{number}\n".encode() for number in range(501)]
    for start in range(0, 501, 100):
        batch = [line(text) for text in expected[start : start + 100]]
        await world.reports.report(world.user, build_id, [], batch)
    assert await read_log(world, build_id) == expected


async def test_the_last_report_may_come_after_the_end_but_not_much_later() -> None:
    world = World()
    build_id = await world.finished()
    world.clock.advance(seconds=10)
    await world.reports.report(world.user, build_id, [], [line(b"last words")])
    assert await read_log(world, build_id) == [b"last words"]
    world.clock.advance(seconds=60)
    with pytest.raises(BuildEnded):
        await world.reports.report(world.user, build_id, [], [line(b"too late")])


async def test_a_report_is_a_sign_of_life() -> None:
    world = World()
    build_id = (await world.create()).build.id
    await world.watch(seconds=59)
    await world.reports.report(world.user, build_id, [], [line(b"hello")])
    assert await world.watch(seconds=59) == []


async def test_timings_add_the_steps_that_no_status_told_of() -> None:
    world = World()
    build = (await world.create()).build
    await world.reports.report(world.user, build.id, [Step("sha256:a", "RUN make")], [])
    timings = [Step("stable1", "RUN make", START), Step("stable2", "COPY . .", START)]
    await world.reports.report_timings(world.user, build.id, timings)
    await world.reports.report_timings(world.user, build.id, timings)
    assert [step.name for step in await world.reports.steps(build)] == ["RUN make", "COPY . ."]


async def test_the_last_dockerfile_of_a_target_counts() -> None:
    world = World()
    build = (await world.create()).build
    await world.reports.report_dockerfiles(
        world.user, build.id, [Dockerfile("", "Dockerfile", "FROM a")]
    )
    await world.reports.report_dockerfiles(
        world.user,
        build.id,
        [Dockerfile("", "Dockerfile", "FROM b"), Dockerfile("web", "web.df", "FROM c")],
    )
    assert await world.reports.dockerfiles(build) == [
        Dockerfile("", "Dockerfile", "FROM b"),
        Dockerfile("web", "web.df", "FROM c"),
    ]


async def test_another_projects_build_takes_no_report_and_shows_no_log() -> None:
    world = World()
    build_id = (await world.create()).build.id
    with pytest.raises(BuildUnknown):
        await world.reports.report(world.foreigner, build_id, [], [line(b"x")])
    with pytest.raises(BuildUnknown):
        await anext(world.reports.log(world.foreigner, build_id).__aiter__())


async def test_a_step_without_end_is_cut() -> None:
    world = World()
    build = (await world.create()).build
    await world.reports.report(world.user, build.id, [Step("sha256:a", "RUN " + "x" * 10_000)], [])
    (step,) = await world.reports.steps(build)
    assert len(step.name) == 4096
