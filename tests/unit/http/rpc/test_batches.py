import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layover.http.rpc.batches import batched

pytestmark = pytest.mark.anyio

LONG = 3600.0


async def stream(items: Sequence[str], failure: Exception | None = None) -> AsyncIterator[str]:
    for item in items:
        yield item
    if failure is not None:
        raise failure


@given(
    items=st.lists(st.text(max_size=5), max_size=30),
    max_size=st.integers(1, 20),
    linger=st.sampled_from([0.0, LONG]),
)
def test_every_item_comes_once_in_order_and_no_batch_is_larger_than_it_has_to_be(
    items: list[str], max_size: int, linger: float
) -> None:
    async def collect() -> list[list[str]]:
        source = batched(stream(items), len, linger_seconds=linger, max_size=max_size)
        return [batch async for batch in source]

    batches = asyncio.run(collect())
    assert [item for batch in batches for item in batch] == items
    for batch in batches:
        assert batch
        # Without its last item it was not full yet.
        assert sum(map(len, batch[:-1])) < max_size


async def test_what_came_before_a_failure_is_kept() -> None:
    kept: list[str] = []
    failing = stream(["a", "b"], ConnectionError("gone"))
    with pytest.raises(ConnectionError, match="gone"):
        async for batch in batched(failing, len, linger_seconds=LONG, max_size=100):
            kept += batch
    assert kept == ["a", "b"]


async def test_an_item_does_not_wait_for_the_next_one() -> None:
    never = asyncio.Event()

    async def silent_after_one() -> AsyncIterator[str]:
        yield "asleep"
        await never.wait()

    source = batched(silent_after_one(), len, linger_seconds=0.0, max_size=100)
    assert await anext(source) == ["asleep"]
    await source.aclose()


async def test_closing_the_batches_leaves_the_stream_free_to_be_closed() -> None:
    never = asyncio.Event()

    async def silent_after_one() -> AsyncGenerator[str]:
        yield "asleep"
        await never.wait()

    items = silent_after_one()
    source = batched(items, len, linger_seconds=0.0, max_size=100)
    await anext(source)
    # The next item is asked for by now.
    waiting = asyncio.create_task(anext(source))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await source.aclose()
    await items.aclose()
