"""What every PushStore does: who works on a push, and what is left of it."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, func, select

from layover.adapters.sql.pushes import LONGEST_LEASE, SqlPushStore
from layover.adapters.sql.schema import push_authorizations, push_transfers, pushes
from layover.oci.digest import Digest
from layover.oci.names import RepositoryName, Tag
from layover.oci.references import Destination, Place
from layover.promotion.models import (
    Push,
    PushStatus,
    TooManyPushes,
    Transfer,
    TransferState,
)
from layover.promotion.ports import PushStore
from tests.contract.conftest import DATABASES, url_of
from tests.stores import NOW, Stores, opened
from tests.unit.promotion.memory import MemoryPushStore

pytestmark = pytest.mark.anyio

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
LEASE = timedelta(seconds=10)
UNTIL = NOW + LEASE
MANY = 100

# A registry whose name alone would be read as a repository of Docker Hub's.
HERE = Place("registry", RepositoryName("acme/app"))
THERE = Place("ghcr.io", RepositoryName("acme/app"))
ELSEWHERE = Place("localhost:5000", RepositoryName("app"))


@pytest.fixture(params=["memory", *DATABASES])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PushStore]:
    if request.param == "memory":
        yield MemoryPushStore()
        return
    with opened(tmp_path, url_of(request.param, request)) as stores:
        yield SqlPushStore(stores.database)


@pytest.fixture(params=DATABASES)
def sql(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    with opened(tmp_path, url_of(request.param, request)) as stores:
        yield stores


def new(push_id: str, created_at: datetime = NOW, **more: Any) -> Push:
    push = Push(
        id=push_id,
        project_id="mine",
        build_id="bcdefghijk",
        target="",
        source=Digest.of(b"an image"),
        destinations=(Destination(HERE, Tag("v1")), Destination(THERE, Tag("latest"))),
        created_at=created_at,
        created_by="Ann",
    )
    return replace(push, **more)


def transfer(place: Place, content: bytes, **more: Any) -> Transfer:
    return replace(Transfer(place, Digest.of(content), 1 << 40), **more)


async def claimed(store: PushStore, now: datetime = NOW, holder: str = "server") -> str | None:
    claim = await store.claim(holder, now, now + LEASE, MANY)
    return None if claim is None else claim.push.id


async def found(store: PushStore, push_id: str = "a") -> Push:
    push = await store.find(push_id)
    assert push is not None
    return push


async def test_a_push_is_found_as_it_was_added(store: PushStore) -> None:
    plain = new("a")
    much = new(
        "b",
        target="web",
        platforms=("linux/amd64", "linux/arm/v7"),
        with_referrers=True,
        created_by="a 'job' \N{SNOWMAN} of \"acme/app\"",
        destinations=tuple(Destination(ELSEWHERE, Tag(f"v{n}")) for n in range(20)),
    )
    for push in (plain, much):
        await store.add(push, MANY)
    assert await found(store, "a") == plain
    assert await found(store, "b") == much
    assert await store.find("c") is None


async def test_a_project_has_only_so_many_pushes_under_way(store: PushStore) -> None:
    await store.add(new("a"), 2)
    await store.add(new("b"), 2)
    with pytest.raises(TooManyPushes) as refused:
        await store.add(new("c"), 2)
    assert refused.value.limit == 2
    assert await store.find("c") is None
    await store.add(new("d", project_id="foreign"), 2)
    # One that runs is under way, one that has ended is not.
    assert await claimed(store) == "a"
    with pytest.raises(TooManyPushes):
        await store.add(new("c"), 2)
    assert await store.end("a", "server", PushStatus.DONE, None, NOW)
    await store.add(new("c"), 2)


async def test_the_oldest_push_is_taken_first_and_by_one_server(store: PushStore) -> None:
    for number, push_id in enumerate("cab"):
        await store.add(new(push_id, NOW + number * SECOND), MANY)
    now = NOW + MINUTE
    claim = await store.claim("server", now, now + LEASE, MANY)
    assert claim is not None
    assert claim.takeovers == 0
    assert claim.push == await found(store, "c")
    assert (claim.push.status, claim.push.started_at) == (PushStatus.RUNNING, now)
    assert await claimed(store, now, "other") == "a"
    assert await claimed(store, now) == "b"
    assert await claimed(store, now) is None


async def test_a_project_that_pushes_much_leaves_room_for_others(store: PushStore) -> None:
    for number in range(4):
        await store.add(new(f"mine{number}", NOW + number * SECOND), MANY)
    await store.add(new("foreign", NOW + MINUTE, project_id="foreign"), MANY)
    now = NOW + MINUTE
    taken = []
    while claim := await store.claim("server", now, now + LEASE, 2):
        taken.append(claim.push.id)
    assert taken == ["mine0", "mine1", "foreign"]
    assert await store.end("mine0", "server", PushStatus.FAILED, "no", now)
    claim = await store.claim("server", now, now + LEASE, 2)
    assert claim is not None and claim.push.id == "mine2"


async def test_what_a_dead_server_left_goes_before_what_has_not_begun(store: PushStore) -> None:
    await store.add(new("a", NOW + MINUTE), MANY)
    assert await claimed(store, NOW) == "a"
    await store.add(new("b"), MANY)
    just_before = UNTIL - timedelta(microseconds=1)
    # A project's limit holds for what begins.
    claim = await store.claim("other", just_before, just_before + LEASE, 1)
    assert claim is None
    claim = await store.claim("other", UNTIL, UNTIL + LEASE, 1)
    assert claim is not None
    assert (claim.push.id, claim.takeovers, claim.push.started_at) == ("a", 1, NOW)
    claim = await store.claim("third", UNTIL + LEASE, UNTIL + 2 * LEASE, 1)
    assert claim is not None
    assert (claim.push.id, claim.takeovers) == ("a", 2)
    # What is there already says nothing of this push.
    at = UNTIL + 2 * LEASE
    exists = transfer(HERE, b"config", state=TransferState.EXISTS)
    await store.report("a", "third", at - SECOND, at, transfers=[exists])
    claim = await store.claim("fourth", at, at + LEASE, 1)
    assert claim is not None and claim.takeovers == 3
    arrived = transfer(HERE, b"layer", state=TransferState.SENT)
    await store.report("a", "fourth", at, at + LEASE, transfers=[arrived])
    claim = await store.claim("fifth", at + LEASE, at + 2 * LEASE, 1)
    assert claim is not None and claim.takeovers == 1


async def test_a_new_push_is_left_to_the_server_that_was_asked_for_a_while(
    store: PushStore,
) -> None:
    await store.add(new("a"), MANY, holder="asked", until=UNTIL)
    just_before = UNTIL - timedelta(microseconds=1)
    assert await claimed(store, just_before, "other") is None
    assert await store.report("a", "asked", NOW, UNTIL) is None, "nobody works on it yet"
    assert not await store.end("a", "asked", PushStatus.DONE, None, NOW)
    assert await claimed(store, NOW, "asked") == "a"
    assert await store.end("a", "asked", PushStatus.DONE, None, NOW)
    await store.add(new("b"), MANY, holder="asked", until=UNTIL)
    claim = await store.claim("other", UNTIL, UNTIL + LEASE, MANY)
    assert claim is not None
    assert (claim.push.id, claim.takeovers) == ("b", 0)


async def test_a_server_that_leaves_lets_another_go_on_at_once(store: PushStore) -> None:
    await store.add(new("a"), MANY)
    assert await claimed(store) == "a"
    later = NOW + SECOND
    assert await store.report("a", "server", later, later) is not None
    assert await claimed(store, later, "other") == "a"


async def test_a_report_keeps_the_push_and_what_it_says(store: PushStore) -> None:
    await store.add(new("a"), MANY)
    await claimed(store)
    first = [transfer(HERE, b"layer"), transfer(HERE, b"config"), transfer(THERE, b"layer")]
    digest = Digest.of(b"pushed")
    is_canceled = await store.report(
        "a", "server", NOW, UNTIL, transfers=first, digest=digest, waits_for={THERE, HERE}
    )
    assert is_canceled is False
    told = await found(store)
    assert told.transfers == tuple(first)
    assert (told.digest, set(told.waits_for)) == (digest, {HERE, THERE})
    # Of those that moved alone; None leaves what was said.
    moved = first[1].at(TransferState.SENDING, 1 << 39)
    more = transfer(THERE, b"config")
    now = UNTIL - SECOND
    await store.report("a", "server", now, now + LEASE, transfers=[moved, more])
    told = await found(store)
    assert told.transfers == (first[0], moved, first[2], more)
    assert (told.digest, set(told.waits_for)) == (digest, {HERE, THERE})
    await store.report("a", "server", now, now + LEASE, waits_for=[])
    assert (await found(store)).waits_for == ()
    assert await claimed(store, now + LEASE - SECOND, "other") is None
    assert await store.end("a", "server", PushStatus.DONE, None, now)
    assert (await found(store)).transfers == (first[0], moved, first[2], more)


async def test_nothing_is_taken_from_a_server_whose_push_is_another_ones(store: PushStore) -> None:
    await store.add(new("a"), MANY)
    await claimed(store, NOW, "first")
    assert await claimed(store, UNTIL, "second") == "a"
    before = await found(store)
    transfers = [transfer(HERE, b"layer")]
    assert await store.report("a", "first", UNTIL, UNTIL + LEASE, transfers=transfers) is None
    assert not await store.end("a", "first", PushStatus.FAILED, "too late", UNTIL)
    assert await found(store) == before
    assert await store.end("a", "second", PushStatus.DONE, None, UNTIL)
    ended = await found(store)
    for holder in ("first", "second"):
        assert await store.report("a", holder, UNTIL, UNTIL + LEASE, transfers=transfers) is None
        assert not await store.end("a", holder, PushStatus.FAILED, "too late", UNTIL)
    assert await found(store) == ended
    for holder in ("first", ""):
        assert await store.report("b", holder, UNTIL, UNTIL + LEASE) is None


async def test_a_queued_push_is_nobodys_to_report_or_end(store: PushStore) -> None:
    await store.add(new("a"), MANY)
    assert await store.report("a", "server", NOW, UNTIL) is None
    assert not await store.end("a", "server", PushStatus.DONE, None, NOW)
    assert await found(store) == new("a")


async def test_a_server_that_was_late_goes_on_where_nobody_took_its_push(store: PushStore) -> None:
    await store.add(new("a"), MANY)
    await claimed(store)
    late = UNTIL + MINUTE
    assert await store.report("a", "server", late, late + LEASE) is not None
    assert await claimed(store, late, "other") is None


async def test_a_push_ends_with_why_it_failed(store: PushStore) -> None:
    await store.add(new("a"), MANY)
    await claimed(store)
    await store.report("a", "server", NOW, UNTIL, waits_for=[HERE])
    later = NOW + SECOND
    assert await store.end("a", "server", PushStatus.FAILED, "registry refused it", later)
    push = await found(store)
    assert (push.status, push.error) == (PushStatus.FAILED, "registry refused it")
    assert (push.started_at, push.finished_at, push.waits_for) == (NOW, later, ())
    assert await claimed(store, later + timedelta(days=1)) is None


async def test_a_queued_push_ends_when_it_is_canceled(store: PushStore) -> None:
    await store.add(new("a"), MANY)
    await store.keep_sealed("a", {HERE: b"sealed"})
    push = await store.cancel("a", NOW + SECOND)
    assert push == await found(store)
    assert push.is_canceled
    assert (push.status, push.finished_at) == (PushStatus.CANCELED, NOW + SECOND)
    assert await store.sealed("a") == {}
    assert await claimed(store) is None
    assert await store.cancel("a", NOW + MINUTE) == push
    assert await store.cancel("b", NOW) is None


async def test_a_running_push_hears_that_it_is_canceled(store: PushStore) -> None:
    await store.add(new("a"), MANY)
    await claimed(store)
    push = await store.cancel("a", NOW + SECOND)
    assert push is not None
    assert (push.is_canceled, push.status) == (True, PushStatus.RUNNING)
    assert await store.report("a", "server", NOW + SECOND, UNTIL + SECOND)
    # Whoever takes it over hears it as well, and ends it.
    claim = await store.claim("other", UNTIL + SECOND, UNTIL + MINUTE, MANY)
    assert claim is not None and claim.push.is_canceled
    assert await store.end("a", "other", PushStatus.CANCELED, None, UNTIL + SECOND)
    ended = await found(store)
    assert ended.status is PushStatus.CANCELED
    assert await store.cancel("a", UNTIL + MINUTE) == ended


async def test_what_is_done_stays_done_when_it_is_canceled(store: PushStore) -> None:
    await store.add(new("a"), MANY)
    await claimed(store)
    await store.end("a", "server", PushStatus.DONE, None, NOW)
    push = await store.cancel("a", NOW)
    assert push is not None
    assert (push.status, push.is_canceled) == (PushStatus.DONE, False)


async def test_what_authorizes_a_push_is_forgotten_with_its_end(store: PushStore) -> None:
    await store.add(new("a"), MANY)
    assert await store.sealed("a") == {}
    assert await store.keep_sealed("a", {HERE: b"\0one", THERE: b"two"})
    await claimed(store)
    assert await store.keep_sealed("a", {THERE: b"anew", ELSEWHERE: b"three"})
    assert await store.sealed("a") == {HERE: b"\0one", THERE: b"anew", ELSEWHERE: b"three"}
    assert await store.end("a", "server", PushStatus.FAILED, None, NOW)
    assert await store.sealed("a") == {}
    assert not await store.keep_sealed("a", {HERE: b"late"})
    assert not await store.keep_sealed("unknown", {HERE: b"late"})
    assert await store.sealed("a") == await store.sealed("unknown") == {}


async def test_pushes_are_listed_newest_first_in_pages(store: PushStore) -> None:
    # Several at one time, which their IDs tell apart.
    expected = [new(f"{n:03}", NOW + n // 3 * SECOND) for n in range(10)]
    for push in expected:
        await store.add(push, MANY)
    await store.add(new("theirs", project_id="foreign"), MANY)
    assert await claimed(store, NOW + MINUTE) == "000"
    expected[0] = await found(store, "000")
    for limit in (1, 3, 10, 11):
        listed: list[Push] = []
        after: tuple[datetime, str] | None = None
        while True:
            page = await store.list_page("mine", after, limit)
            assert 0 < len(page.pushes) <= limit
            listed += page.pushes
            after = page.next
            if after is None:
                break
            assert after == (listed[-1].created_at, listed[-1].id)
        assert listed == expected[::-1]
    assert (await store.list_page("nobody", None, 5)).pushes == ()


async def test_a_page_has_what_became_of_the_transfers(store: PushStore) -> None:
    for push_id in "abc":
        await store.add(new(push_id), MANY)
        await claimed(store)
    for push_id, content in (("a", b"one"), ("c", b"two")):
        transfers = [transfer(HERE, content, sent_bytes=5, state=TransferState.SENDING)]
        await store.report(push_id, "server", NOW, UNTIL, transfers=transfers)
    page = await store.list_page("mine", None, 5)
    assert list(page.pushes) == [await found(store, push_id) for push_id in "cba"]


async def test_old_pushes_are_forgotten_some_at_a_time(store: PushStore) -> None:
    for number in range(5):
        await store.add(new(str(number)), MANY)
        await claimed(store)
        await store.report(str(number), "server", NOW, UNTIL, transfers=[transfer(HERE, b"x")])
        at = NOW + number * MINUTE
        await store.end(str(number), "server", PushStatus.DONE, None, at)
    await store.add(new("queued"), MANY)
    await store.add(new("running", NOW - MINUTE), MANY)
    assert await claimed(store) == "running"
    before = NOW + 3 * MINUTE
    counts = []
    while forgotten := await store.forget_ended(before, 2):
        counts.append(forgotten)
    assert counts == [2, 1]
    left = {push.id for push in (await store.list_page("mine", None, MANY)).pushes}
    assert left == {"3", "4", "queued", "running"}
    assert await store.find("0") is None


# --- in databases ---------------------------------------------------------------------------


async def test_nothing_of_a_forgotten_push_stays(sql: Stores) -> None:
    store = SqlPushStore(sql.database)
    await store.add(new("a"), MANY)
    await claimed(store)
    await store.keep_sealed("a", {HERE: b"sealed"})
    await store.report("a", "server", NOW, UNTIL, transfers=[transfer(HERE, b"layer")])
    await store.end("a", "server", PushStatus.DONE, None, NOW)
    assert await store.forget_ended(UNTIL, 1) == 1
    for table in (pushes, push_transfers, push_authorizations):
        query = select(func.count()).select_from(table)
        assert await sql.database.read(lambda connection: connection.scalar(query)) == 0  # noqa: B023


async def test_a_clock_that_was_set_back_holds_up_no_push(sql: Stores) -> None:
    store = SqlPushStore(sql.database)
    await store.add(new("a"), MANY)
    year = timedelta(days=365)
    assert await claimed(store, NOW + year, "dead") == "a"
    assert await claimed(store, NOW, "other") == "a"
    # Nor does a server that asks for too much.
    await store.report("a", "other", NOW, NOW + year)
    assert await claimed(store, NOW + LONGEST_LEASE - SECOND, "third") is None
    assert await claimed(store, NOW + LONGEST_LEASE, "third") == "a"


async def test_a_page_of_large_pushes_is_a_short_one(
    sql: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("layover.adapters.sql.pushes._PAGE_TRANSFERS", 5)
    store = SqlPushStore(sql.database)
    sizes = {"a": 2, "b": 9, "c": 0, "d": 3, "e": 2}
    for push_id, size in sizes.items():
        await store.add(new(push_id), MANY)
        await claimed(store)
        transfers = [transfer(HERE, bytes([number])) for number in range(size)]
        await store.report(push_id, "server", NOW, UNTIL, transfers=transfers)
    pages = []
    after: tuple[datetime, str] | None = None
    while True:
        page = await store.list_page("mine", after, 10)
        pages.append([push.id for push in page.pushes])
        after = page.next
        if after is None:
            break
    assert pages == [["e", "d", "c"], ["b"], ["a"]]


async def test_servers_that_look_at_once_take_each_push_once(sql: Stores) -> None:
    with sql.replica() as second, sql.replica() as third:
        stores = [SqlPushStore(one.database) for one in (sql, second, third)]
        for number in range(20):
            await stores[0].add(new(f"{number:02}"), MANY)

        async def take(store: PushStore, holder: str) -> list[str]:
            taken = []
            while push_id := await claimed(store, NOW, holder):
                taken.append(push_id)
            return taken

        taken = await asyncio.gather(
            *(take(store, f"server {number}") for number, store in enumerate(stores * 2))
        )
        assert sorted(push_id for some in taken for push_id in some) == [
            f"{number:02}" for number in range(20)
        ]
        for number, some in enumerate(taken):
            for push_id in some:
                assert await stores[0].report(push_id, f"server {number}", NOW, UNTIL) is not None


async def test_of_pushes_that_come_at_once_as_many_are_taken_as_may_be(sql: Stores) -> None:
    with sql.replica() as second:
        stores = [SqlPushStore(one.database) for one in (sql, second)]
        done = await asyncio.gather(
            *(stores[number % 2].add(new(str(number)), 3) for number in range(8)),
            return_exceptions=True,
        )
        refused = [result for result in done if result is not None]
        assert len(refused) == 5
        assert all(isinstance(result, TooManyPushes) for result in refused)
        assert len((await stores[0].list_page("mine", None, MANY)).pushes) == 3


async def test_a_push_that_is_taken_over_while_its_server_reports_has_one_server(
    sql: Stores,
) -> None:
    with sql.replica() as second:
        slow, quick = SqlPushStore(sql.database), SqlPushStore(second.database)
        for number in range(10):
            push_id = str(number)
            await slow.add(new(push_id), MANY)
            assert await claimed(slow, NOW, "slow") == push_id
            transfers = [transfer(HERE, b"layer", sent_bytes=7)]
            told, taken = await asyncio.gather(
                slow.report(push_id, "slow", UNTIL, UNTIL + LEASE, transfers=transfers),
                quick.claim("quick", UNTIL, UNTIL + LEASE, MANY),
            )
            assert (told is None) != (taken is None)
            push = await found(quick, push_id)
            assert bool(push.transfers) == (told is not None)
            holder = "quick" if taken else "slow"
            assert await quick.end(push_id, holder, PushStatus.DONE, None, UNTIL)


async def test_a_push_that_ends_while_it_is_canceled_or_authorized_ends_once(sql: Stores) -> None:
    with sql.replica() as second:
        store, other = SqlPushStore(sql.database), SqlPushStore(second.database)
        for number in range(10):
            push_id = str(number)
            await store.add(new(push_id), MANY)
            await claimed(store)
            is_ended, canceled, is_kept = await asyncio.gather(
                store.end(push_id, "server", PushStatus.DONE, None, NOW),
                other.cancel(push_id, NOW),
                other.keep_sealed(push_id, {HERE: b"sealed"}),
            )
            assert is_ended and canceled is not None
            push = await found(store, push_id)
            assert push.status is PushStatus.DONE
            assert canceled.is_canceled == push.is_canceled
            assert await store.sealed(push_id) == {}, is_kept


async def test_a_queued_push_is_either_canceled_or_taken(sql: Stores) -> None:
    with sql.replica() as second:
        store, other = SqlPushStore(sql.database), SqlPushStore(second.database)
        for number in range(10):
            await store.add(new(str(number)), MANY)
            claim, canceled = await asyncio.gather(
                store.claim("server", NOW, UNTIL, MANY), other.cancel(str(number), NOW)
            )
            push = await found(store, str(number))
            assert push == canceled
            assert push.is_canceled
            if claim is None:
                assert push.status is PushStatus.CANCELED
            else:
                assert push.status is PushStatus.RUNNING
                assert await store.end(push.id, "server", PushStatus.CANCELED, None, NOW)


# --- as a model has it ----------------------------------------------------------------------

_IDS = st.sampled_from(["a", "b", "c", "d"])
_HOLDERS = st.sampled_from(["first", "second"])
_TRANSFERS = st.lists(
    st.builds(
        lambda place, content, state, sent: transfer(place, content, state=state, sent_bytes=sent),
        st.sampled_from([HERE, THERE]),
        st.sampled_from([b"one", b"two", b"three"]),
        st.sampled_from(TransferState),
        st.integers(0, 1 << 40),
    ),
    max_size=4,
)
_STEPS = st.one_of(
    st.tuples(st.just("add"), _IDS, st.sampled_from(["mine", "foreign"])),
    st.tuples(st.just("claim"), _HOLDERS, st.integers(1, 2)),
    st.tuples(st.just("report"), _IDS, _HOLDERS, _TRANSFERS, st.booleans()),
    st.tuples(st.just("end"), _IDS, _HOLDERS, st.sampled_from(["done", "failed", "canceled"])),
    st.tuples(st.just("cancel"), _IDS),
    st.tuples(st.just("seal"), _IDS, st.sampled_from([HERE, THERE]), st.binary(max_size=3)),
    st.tuples(st.just("forget"), st.integers(0, 20)),
    st.tuples(st.just("wait"), st.integers(1, 12)),
)


async def _outcomes(store: PushStore, steps: list[tuple[Any, ...]]) -> list[Any]:
    """What each step answers, and what there is behind it."""
    now, seen = NOW, list[Any]()
    for step in steps:
        answer: Any = None
        match step:
            case "add", push_id, project_id:
                # IDs are never given twice.
                if await store.find(push_id) is None:
                    try:
                        await store.add(new(push_id, now, project_id=project_id), 2)
                    except TooManyPushes as error:
                        answer = str(error)
            case "claim", holder, most:
                answer = await store.claim(holder, now, now + LEASE, most)
            case "report", push_id, holder, transfers, waits:
                answer = await store.report(
                    push_id,
                    holder,
                    now,
                    now + LEASE,
                    transfers=transfers,
                    digest=Digest.of(b"pushed") if transfers else None,
                    waits_for=[THERE, HERE] if waits else [],
                )
            case "end", push_id, holder, status:
                answer = await store.end(push_id, holder, PushStatus(status), status, now)
            case "cancel", push_id:
                answer = await store.cancel(push_id, now)
            case "seal", push_id, place, content:
                answer = await store.keep_sealed(push_id, {place: content})
            case "forget", seconds:
                answer = await store.forget_ended(now - seconds * SECOND, MANY)
            case "wait", seconds:
                now += seconds * SECOND
        seen.append((step, answer))
        for push_id in "abcd":
            seen.append((await store.find(push_id), await store.sealed(push_id)))
        seen += [await store.list_page(project, None, 2) for project in ("mine", "foreign")]
    return seen


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(_STEPS, max_size=25))
def test_a_database_answers_as_a_model_does(tmp_path: Path, steps: list[tuple[Any, ...]]) -> None:
    with opened(tmp_path) as stores:
        with stores.database.engine.begin() as connection:
            connection.execute(delete(pushes))
        asyncio.run(_compare(SqlPushStore(stores.database), steps))


async def _compare(store: PushStore, steps: list[tuple[Any, ...]]) -> None:
    assert await _outcomes(store, steps) == await _outcomes(MemoryPushStore(), steps)
