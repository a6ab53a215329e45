"""What every BuildStore and LeaseStore does, in memory and on every database."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TypeAlias

import pytest
from sqlalchemy import Table, func, insert, select

from layover.adapters.sql.builds import SqlBuildStore
from layover.adapters.sql.database import Database
from layover.adapters.sql.migrate import migrate
from layover.adapters.sql.retention import SqlRetentionStore
from layover.adapters.sql.schema import build_logs, build_steps, organizations, projects
from layover.builds.builders import LeaseState
from layover.builds.limits import MAX_LOG_BYTES, MAX_READ_CHARACTERS, MAX_STEPS, MAX_TARGETS
from layover.builds.models import (
    Build,
    BuildOptions,
    BuildOutput,
    BuildPage,
    BuildStatus,
    Command,
    Dockerfile,
    LogEntry,
    PageKey,
    Step,
)
from layover.registry.models import Gone
from tests.contract.conftest import DATABASES, url_of
from tests.stores import MAX_RETENTION, RETENTION
from tests.unit.builds.memory import START, MemoryBuildStore

pytestmark = pytest.mark.anyio

Store: TypeAlias = MemoryBuildStore | SqlBuildStore

AMD = "linux/amd64"
PROJECTS = ("project1", "project2")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@contextmanager
def opened(url: str) -> Iterator[Database]:
    database = Database(url)
    migrate(database.engine)
    with database.engine.begin() as connection:
        connection.execute(insert(organizations).values(id="org", name="o", created_at=START))
        for project_id in PROJECTS:
            connection.execute(
                insert(projects).values(
                    id=project_id,
                    organization_id="org",
                    name=project_id,
                    created_at=START,
                    retention_seconds=RETENTION // timedelta(seconds=1),
                    max_retention_seconds=MAX_RETENTION // timedelta(seconds=1),
                    extends_on_pull=False,
                )
            )
    yield database
    database.close()


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with opened(database_url) as database:
        yield database


@pytest.fixture(params=["memory", *DATABASES])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    if request.param == "memory":
        yield MemoryBuildStore()
        return
    with opened(url_of(request.param, request)) as database:
        yield SqlBuildStore(database)


def build(build_id: str = "build1", project_id: str = "project1", age_seconds: float = 0) -> Build:
    created_at = START - timedelta(seconds=age_seconds)
    return Build(
        id=build_id,
        project_id=project_id,
        status=BuildStatus.CREATED,
        options=(
            BuildOptions(
                command=Command.BAKE,
                tags=("app:1", "app:2"),
                outputs=(BuildOutput("image", (("name", "x"), ("push", "true"))),),
                push=True,
                target_name="wéb",
                save=True,
                save_tags=("main",),
            ),
            BuildOptions(command=Command.BAKE, load=True, lint=True),
        ),
        created_at=created_at,
        seen_at=created_at,
    )


def log(*messages: bytes) -> list[LogEntry]:
    return [LogEntry("sha256:a", START, 2, message) for message in messages]


async def test_a_build_reads_as_it_was_added(store: Store) -> None:
    await store.add(build())
    assert await store.find("build1") == build()
    assert await store.find("other") is None


async def test_being_seen_starts_a_created_build_once(store: Store) -> None:
    await store.add(build())
    first, second = START + timedelta(seconds=1), START + timedelta(seconds=2)
    await store.mark_seen("build1", START, starts=False)
    assert await store.find("build1") == build()
    await store.mark_seen("build1", first, starts=True)
    await store.mark_seen("build1", second, starts=True)
    expected = replace(build(), status=BuildStatus.RUNNING, started_at=first, seen_at=second)
    assert await store.find("build1") == expected


async def test_an_ended_build_does_not_change(store: Store) -> None:
    await store.add(build())
    later = START + timedelta(seconds=1)
    assert await store.end("build1", BuildStatus.FAILED, "why", later)
    expected = replace(
        build(),
        status=BuildStatus.FAILED,
        error="why",
        finished_at=later,
        expires_at=later + RETENTION,
    )
    assert await store.find("build1") == expected
    assert not await store.end("build1", BuildStatus.FINISHED, None, later)
    await store.mark_seen("build1", later, starts=True)
    assert await store.find("build1") == expected


async def test_ending_an_unknown_build_ends_nothing(store: Store) -> None:
    assert not await store.end("unknown", BuildStatus.FINISHED, None, START)


async def test_only_live_builds_that_were_not_seen_vanish(store: Store) -> None:
    for build_id, age in (("old", 61), ("edge", 60), ("new", 0), ("ended", 100)):
        await store.add(build(build_id, age_seconds=age))
    await store.end("ended", BuildStatus.FINISHED, None, START)
    seen_before = START - timedelta(seconds=60)
    assert await store.has_vanished(seen_before)
    assert await store.end_vanished(seen_before, "silent", START) == ["old"]
    assert not await store.has_vanished(seen_before)
    vanished = await store.find("old")
    assert vanished is not None
    assert (vanished.status, vanished.error) == (BuildStatus.CANCELED, "silent")
    assert await store.end_vanished(seen_before, "silent", START) == []


async def test_a_deleted_build_is_hidden_once_and_lists_no_more(store: Store) -> None:
    await store.add(build())
    assert not await store.delete("unknown", START)
    later = START + timedelta(seconds=5)
    assert await store.delete("build1", later)
    assert not await store.delete("build1", later)
    found = await store.find("build1")
    assert found is not None
    assert found.gone(later) == Gone(is_deleted=True, at=later)
    assert (await store.list_page("project1", None, 10, later)).builds == ()
    # An end that comes late does not bring it back.
    await store.end("build1", BuildStatus.FINISHED, None, later)
    assert (await store.list_page("project1", None, 10, later)).builds == ()


async def test_a_builds_time_counts_from_its_end_to_the_next_whole_second(store: Store) -> None:
    for build_id in ("running", "ended", "vanished"):
        await store.add(replace(build(build_id), retention=timedelta(seconds=10)))
    ended_at = START + timedelta(microseconds=1)
    await store.end("ended", BuildStatus.FINISHED, None, ended_at)
    await store.mark_seen("running", START + timedelta(seconds=1), starts=True)
    await store.end_vanished(START + timedelta(microseconds=1), "silent", ended_at)
    over = START + timedelta(seconds=11)
    for build_id, expires_at in (("running", None), ("ended", over), ("vanished", over)):
        found = await store.find(build_id)
        assert found is not None
        assert (found.expires_at, found.gone(over - timedelta(microseconds=1))) == (
            expires_at,
            None,
        )
    listed = await store.list_page("project1", None, 10, over - timedelta(microseconds=1))
    assert len(listed.builds) == 3
    listed = await store.list_page("project1", None, 10, over)
    assert [found.id for found in listed.builds] == ["running"]


async def test_a_build_is_kept_while_it_is_there_and_never_for_shorter(store: Store) -> None:
    await store.add(build())
    hour = timedelta(hours=1)
    assert await store.keep("build1", START + hour, START) is None
    assert await store.keep("unknown", START + hour, START) is None
    await store.end("build1", BuildStatus.FINISHED, None, START)
    over = START + RETENTION
    assert await store.keep("build1", START + hour, START) == over
    assert await store.keep("build1", over + hour, START) == over + hour
    assert await store.keep("build1", over + hour * 2, over + hour) is None
    found = await store.find("build1")
    assert found is not None
    assert found.gone(over + hour) == Gone(is_deleted=False, at=over + hour)
    await store.add(build("deleted"))
    await store.end("deleted", BuildStatus.FINISHED, None, START)
    await store.delete("deleted", START)
    assert await store.keep("deleted", over + hour, START) is None


async def test_a_listing_is_newest_first_and_goes_on_where_it_stopped(store: Store) -> None:
    ages = {"a": 3, "b": 1, "c": 2, "d": 2}
    for build_id, age in ages.items():
        await store.add(build(build_id, age_seconds=age))
    await store.add(build("foreign", "project2"))
    whole = await store.list_page("project1", None, 4, START)
    everything = whole.builds
    assert not whole.has_more
    assert [found.id for found in everything] == ["b", "d", "c", "a"]
    for count, last in enumerate(everything, start=1):
        rest = await store.list_page("project1", PageKey(last.created_at, last.id), 10, START)
        assert rest == BuildPage(everything[count:], has_more=False)
    first = await store.list_page("project1", None, 2, START)
    assert first == BuildPage(everything[:2], has_more=True)


async def test_what_one_request_reads_is_bounded_whatever_is_kept(database: Database) -> None:
    store = SqlBuildStore(database)
    tag = "x" * (MAX_READ_CHARACTERS // 3)
    for age in range(5):
        large = replace(build(f"b{age}", age_seconds=age), options=(BuildOptions(tags=(tag,)),))
        await store.add(large)
    pages, after = [], None
    while True:
        page = await store.list_page("project1", after, 100, START)
        pages.append([found.id for found in page.builds])
        if not page.has_more:
            break
        after = PageKey(page.builds[-1].created_at, page.builds[-1].id)
    assert pages == [["b0", "b1"], ["b2", "b3"], ["b4"]]
    error = "x" * 16_000
    for start in range(0, 1_000, 100):
        steps = [Step(f"{number}", "RUN", error=error) for number in range(start, start + 100)]
        await store.record("b0", steps, [], START)
    assert len(await store.list_steps("b0")) == MAX_READ_CHARACTERS // 16_006
    for target in range(12):
        await store.put_dockerfiles("b0", [Dockerfile(f"{target:02}", "", "x" * 1024 * 1024)])
    assert len(await store.list_dockerfiles("b0")) == 8


async def test_steps_are_merged_and_keep_the_order_of_their_first_report(store: Store) -> None:
    await store.add(build())
    done = START + timedelta(seconds=1)
    await store.record("build1", [Step("b", "RUN b"), Step("a", "RUN a")], [], START)
    await store.record(
        "build1",
        [Step("c", "RUN c"), Step("b", "RUN b", START), Step("b", "", None, done, error="no")],
        [],
        START,
    )
    assert await store.list_steps("build1") == [
        Step("b", "RUN b", START, done, error="no"),
        Step("a", "RUN a"),
        Step("c", "RUN c"),
    ]


async def test_a_log_is_read_in_order_from_any_place_on(store: Store) -> None:
    await store.add(build())
    await store.add(build("other"))
    await store.record("build1", [], log(b"1", b"2"), START)
    await store.record("other", [], log(b"x"), START)
    await store.record("build1", [], log(b"3\xff"), START)
    entries = await store.read_log("build1", 0, 10)
    assert [entry for _, entry in entries] == log(b"1", b"2", b"3\xff")
    assert await store.read_log("build1", 0, 1) == entries[:1]
    assert await store.read_log("build1", entries[0][0], 10) == entries[1:]
    assert await store.read_log("build1", entries[-1][0], 10) == []


async def test_a_report_marks_the_build_as_seen(store: Store) -> None:
    await store.add(build())
    later = START + timedelta(seconds=9)
    await store.record("build1", [], log(b"x"), later)
    found = await store.find("build1")
    assert found is not None
    assert found.seen_at == later


async def test_reports_of_a_build_that_is_gone_are_dropped(store: Store) -> None:
    await store.record("gone", [Step("a", "RUN")], log(b"x"), START)
    await store.put_dockerfiles("gone", [Dockerfile("", "Dockerfile", "")])
    assert await store.list_steps("gone") == []
    assert await store.list_dockerfiles("gone") == []


async def test_a_log_ends_at_its_limit_and_says_so(store: Store) -> None:
    await store.add(build())
    chunk = b"x" * (MAX_LOG_BYTES // 4)
    for _ in range(6):
        await store.record("build1", [], log(chunk), START)
    entries = await store.read_log("build1", 0, 100)
    assert [entry.message == chunk for _, entry in entries] == [True, True, True, False]
    assert entries[-1][1].message.startswith(b"log truncated")


async def test_more_steps_than_the_limit_are_left_out(store: Store) -> None:
    await store.add(build())
    half = MAX_STEPS // 2 + 10
    for start in (0, half):
        steps = [Step(f"sha256:{number}", "RUN") for number in range(start, start + half)]
        await store.record("build1", steps, [], START)
    assert len(await store.list_steps("build1")) == MAX_STEPS
    # Those that are known still change.
    await store.record("build1", [Step("sha256:0", "RUN", cached=True)], [], START)
    assert (await store.list_steps("build1"))[0].cached


async def test_dockerfiles_are_replaced_by_target_and_bounded(store: Store) -> None:
    await store.add(build())
    files = [Dockerfile(f"t{n:04}", "Dockerfile", "FROM a") for n in range(MAX_TARGETS - 1)]
    await store.put_dockerfiles("build1", files)
    changed = Dockerfile("t0000", "other", "FROM b")
    extra = [Dockerfile("x1", "f", ""), Dockerfile("x2", "f", "")]
    await store.put_dockerfiles("build1", [changed, *extra])
    expected = [changed, *files[1:], extra[0]]
    assert await store.list_dockerfiles("build1") == expected


async def test_the_last_of_two_dockerfiles_of_one_target_counts(store: Store) -> None:
    await store.add(build())
    twice = [Dockerfile("", "a", "FROM a"), Dockerfile("", "b", "FROM b")]
    await store.put_dockerfiles("build1", twice)
    assert await store.list_dockerfiles("build1") == twice[1:]


async def test_a_lease_is_chosen_from_what_the_store_knows(store: Store) -> None:
    for build_id in ("b1", "b2"):
        await store.add(build(build_id))
    await store.add(build("b3", "project2"))
    known: list[LeaseState] = []

    async def lease(of: Build, builder: str, platform: str = AMD) -> str | None:
        def choose(state: LeaseState) -> str:
            loads = {name: load for name, load in state.loads.items() if load}
            known.append(replace(state, loads=loads))
            return builder

        return await store.lease(of, platform, choose, START)

    assert await lease(build("b1"), "one") == "one"
    await lease(build("b2"), "two")
    await lease(build("b3", "project2"), "two")
    # Another platform is another cache; the same one is a lease that moves.
    await lease(build("b2"), "one", "linux/arm64")
    await lease(build("b2"), "one")
    assert known == [
        LeaseState(None, None, {}),
        LeaseState(None, "one", {"one": 1}),
        LeaseState(None, None, {"one": 1, "two": 1}),
        LeaseState(None, None, {"one": 1, "two": 2}),
        LeaseState("two", "two", {"one": 2, "two": 1}),
    ]
    assert await store.count_leases() == {"one": 3, "two": 1}


async def test_the_end_of_a_build_releases_its_leases(store: Store) -> None:
    for build_id in ("b1", "b2", "b3"):
        await store.add(build(build_id, age_seconds=100 if build_id == "b2" else 0))
        await store.lease(build(build_id), AMD, lambda _: "one", START)
    await store.end("b1", BuildStatus.FINISHED, None, START)
    await store.end_vanished(START - timedelta(seconds=60), "silent", START)
    assert await store.count_leases() == {"one": 1}
    # The cache stays warm.
    await store.lease(build("b3"), AMD, lambda state: state.last_used or "none", START)
    assert await store.count_leases() == {"one": 1}


async def test_an_ended_or_unknown_build_gets_no_lease(store: Store) -> None:
    await store.add(build())
    await store.end("build1", BuildStatus.CANCELED, None, START)
    for build_id in ("build1", "unknown"):
        assert await store.lease(build(build_id), AMD, lambda _: "one", START) is None
    assert await store.count_leases() == {}


async def test_a_collected_build_leaves_word_of_itself_alone(database: Database) -> None:
    store, retention = SqlBuildStore(database), SqlRetentionStore(database)
    await store.add(build())
    await store.record("build1", [Step("a", "RUN")], log(b"x"), START)
    await store.delete("build1", START)
    assert await store.find_buried("build1") is None
    while await retention.release_ended(START, 10):
        pass
    assert await store.find("build1") is None
    assert await store.find_buried("build1") == ("project1", Gone(is_deleted=True, at=START))
    for table in (build_steps, build_logs):
        assert await _count(database, table) == 0


async def _count(database: Database, table: Table) -> int | None:
    query = select(func.count()).select_from(table)
    return await database.read(lambda connection: connection.scalar(query))
