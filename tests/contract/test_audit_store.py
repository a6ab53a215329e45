"""What every AuditStore does, in memory and on every database."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import TypeAlias

import pytest

from layover.adapters.sql.audit import SqlAuditStore
from layover.audit.models import AuditEvent, AuditQuery, PageKey, Result
from tests.contract.conftest import DATABASES, url_of
from tests.stores import NOW, opened
from tests.unit.audit.memory import MemoryAuditStore

pytestmark = pytest.mark.anyio

Store: TypeAlias = MemoryAuditStore | SqlAuditStore

SECOND = timedelta(seconds=1)
EVENT = AuditEvent(
    at=NOW,
    organization_id="org",
    project_id="mine",
    actor_kind="user",
    actor_id="u1",
    actor_name="Zoë",
    action="manifests.push",
    subject="mine/app:v1",
    result=Result.DONE,
    address="2001:db8::1",
    request_id="0123456789abcdef",
    details={"client": "docker/29.0", "digest": "sha256:…"},
)
ALL = AuditQuery("org")


@pytest.fixture(params=["memory", *DATABASES])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    if request.param == "memory":
        yield MemoryAuditStore()
        return
    with opened(request.getfixturevalue("tmp_path"), url_of(request.param, request)) as stores:
        yield stores.audit


async def subjects(store: Store, query: AuditQuery) -> list[str]:
    return [event.subject for event in await store.list_page(query, None, 100)]


async def test_an_event_is_read_as_it_was_kept(store: Store) -> None:
    bare = replace(EVENT, project_id=None, actor_id=None, actor_name="", details={})
    await store.add([EVENT, replace(bare, at=NOW + SECOND)])
    later, first = await store.list_page(ALL, None, 100)
    assert replace(first, id=0) == EVENT
    assert replace(later, id=0) == replace(bare, at=NOW + SECOND)
    assert later.id != first.id


async def test_the_newest_is_listed_first_and_pages_meet_without_gap_or_overlap(
    store: Store,
) -> None:
    # Several of one time each, so that the time alone does not tell where a page ends.
    events = [replace(EVENT, at=NOW + (at // 3) * SECOND, subject=str(at)) for at in range(10)]
    await store.add(events[:4])
    await store.add(events[4:])
    listed: list[AuditEvent] = []
    after = None
    while page := await store.list_page(ALL, after, 4):
        listed += page
        after = PageKey(page[-1].at, page[-1].id)
        await store.add([replace(EVENT, at=NOW + timedelta(hours=1), subject="came meanwhile")])
    assert [event.subject for event in listed] == [str(at) for at in reversed(range(10))]


async def test_a_log_holds_what_is_its_own(store: Store) -> None:
    for organization_id, project_id in (
        *(("org", "mine"), ("org", "sister"), ("org", None)),
        *(("other-org", "foreign"), (None, None)),
    ):
        event = replace(EVENT, organization_id=organization_id, project_id=project_id)
        await store.add([replace(event, subject=f"{organization_id} {project_id}")])
    assert await subjects(store, ALL) == ["org None", "org sister", "org mine"]
    assert await subjects(store, AuditQuery(project_id="mine")) == ["org mine"]
    assert await subjects(store, AuditQuery()) == ["None None"]
    assert await subjects(store, AuditQuery("nobody")) == []


async def test_events_are_found_by_time_action_and_actor(store: Store) -> None:
    for at, (action, actor_id) in enumerate(
        (("tokens.create", "u1"), ("tokens.revoke", "u2"), ("tokensx.do", "u1"), ("tokens", None))
    ):
        event = replace(EVENT, at=NOW + at * SECOND, action=action, actor_id=actor_id)
        await store.add([replace(event, subject=str(at))])
    assert await subjects(store, replace(ALL, action="tokens")) == ["3", "1", "0"]
    assert await subjects(store, replace(ALL, action="tokens.create")) == ["0"]
    assert await subjects(store, replace(ALL, action="token")) == []
    for wild in ("%", "t_kens", "tokens.%"):
        assert await subjects(store, replace(ALL, action=wild)) == []
    assert await subjects(store, replace(ALL, actor_id="u1")) == ["2", "0"]
    assert await subjects(store, replace(ALL, since=NOW + SECOND)) == ["3", "2", "1"]
    assert await subjects(store, replace(ALL, until=NOW + SECOND)) == ["0"]
    between = replace(ALL, since=NOW + SECOND, until=NOW + 2 * SECOND)
    assert await subjects(store, between) == ["1"]


async def test_what_is_old_is_deleted_a_few_at_a_time_the_oldest_first(store: Store) -> None:
    await store.add([replace(EVENT, at=NOW + at * SECOND, subject=str(at)) for at in range(5)])
    assert await store.delete_before(NOW + 3 * SECOND, 2) == 2
    assert await subjects(store, ALL) == ["4", "3", "2"]
    assert await store.delete_before(NOW + 3 * SECOND, 2) == 1
    assert await store.delete_before(NOW + 3 * SECOND, 2) == 0
    assert await subjects(store, ALL) == ["4", "3"]
