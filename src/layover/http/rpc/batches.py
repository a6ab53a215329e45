"""A stream's messages in batches: what comes close together is kept in one transaction.

BuildKit tells of a build's progress many times a second, and each durable write to an embedded
database waits for the disk, pushes included.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TypeVar

Item = TypeVar("Item")


async def batched(
    items: AsyncIterator[Item],
    size_of: Callable[[Item], int],
    *,
    linger_seconds: float,
    max_size: int,
) -> AsyncGenerator[list[Item]]:
    """Yield the items in their order, none later than `linger_seconds` after it came.

    A batch ends early when its sizes add up to `max_size`. When `items` fails, what came before
    is yielded first, and then the failure raised.
    """
    loop = asyncio.get_running_loop()
    batch: list[Item] = []
    size, due = 0, 0.0
    coming: asyncio.Task[Item | None] | None = None
    try:
        while True:
            coming = coming or asyncio.create_task(_next(items))
            await asyncio.wait({coming}, timeout=max(0.0, due - loop.time()) if batch else None)
            if coming.done():
                if coming.exception() is not None or coming.result() is None:
                    if batch:
                        yield batch
                    coming.result()
                    return
                item = coming.result()
                assert item is not None
                coming = None
                if not batch:
                    due = loop.time() + linger_seconds
                batch.append(item)
                size += size_of(item)
            if batch and (size >= max_size or loop.time() >= due):
                yield batch
                batch, size = [], 0
    finally:
        if coming is not None:
            # Awaited, because whoever made `items` closes it next, and a generator that runs
            # cannot be closed.
            coming.cancel()
            await asyncio.wait({coming})


async def _next(items: AsyncIterator[Item]) -> Item | None:
    """The next item, None at the end."""
    return await anext(items, None)
