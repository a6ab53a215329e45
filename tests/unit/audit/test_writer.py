import asyncio
from dataclasses import replace

import pytest

from layover.audit.models import AuditEvent, Result
from layover.audit.writer import MAX_EVENTS, Writer
from layover.errors import StorageUnavailable
from tests.stores import NOW
from tests.unit.audit.memory import MemoryAuditStore

pytestmark = pytest.mark.anyio

EVENT = AuditEvent(NOW, "org", None, "user", "u1", "", "x.do", "s1", Result.DONE, "192.0.2.1", "")


async def turns() -> None:
    """Let every task go on until it waits."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_an_event_is_kept_when_write_returns() -> None:
    store = MemoryAuditStore()
    await Writer(store).write([EVENT])
    assert [event.subject for event in store.events] == ["s1"]


async def test_nothing_to_write_writes_nothing() -> None:
    store = MemoryAuditStore()
    writer = Writer(store)
    await writer.write([])
    await writer.close()
    assert store.batches == []


async def test_what_comes_while_one_transaction_is_under_way_is_one_more() -> None:
    store = MemoryAuditStore()
    store.is_open.clear()
    writer = Writer(store)
    writes = []
    for at in range(20):
        writes.append(asyncio.create_task(writer.write([replace(EVENT, subject=str(at))])))
        await turns()
    assert not any(write.done() for write in writes), "nobody is answered before it is kept"
    store.is_open.set()
    await asyncio.gather(*writes)
    assert store.batches == [1, 19]
    assert [event.subject for event in store.events] == [str(at) for at in range(20)]


async def test_a_transaction_is_bounded() -> None:
    store = MemoryAuditStore()
    await Writer(store).write([EVENT] * (MAX_EVENTS + 1))
    assert store.batches == [MAX_EVENTS, 1]


async def test_who_stops_waiting_takes_nothing_back_from_others_or_itself() -> None:
    store = MemoryAuditStore()
    store.is_open.clear()
    writer = Writer(store)
    first, second = (asyncio.create_task(writer.write([EVENT])) for _ in range(2))
    await turns()
    first.cancel()
    await turns()
    store.is_open.set()
    await second
    assert len(store.events) == 2


async def test_close_waits_for_all_that_was_put() -> None:
    store = MemoryAuditStore()
    store.is_open.clear()
    writer = Writer(store)
    writer.put([EVENT])
    closing = asyncio.create_task(writer.close())
    await turns()
    writer.put([EVENT])
    assert not closing.done()
    store.is_open.set()
    await closing
    assert len(store.events) == 2


@pytest.mark.parametrize("failure", [StorageUnavailable(), RuntimeError("a bug")])
async def test_an_event_that_cannot_be_kept_is_logged_whole_and_nobody_fails(
    failure: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    store = MemoryAuditStore()
    store.failure = failure
    writer = Writer(store)
    await writer.write([EVENT])
    logged = "".join(capsys.readouterr())
    for fact in ("audit_event_lost", "x.do", "s1", "192.0.2.1", "u1", "org", "2026-01-01T12:00:00"):
        assert fact in logged
    store.failure = None
    await writer.write([replace(EVENT, subject="s2")])
    assert [event.subject for event in store.events] == ["s2"]
