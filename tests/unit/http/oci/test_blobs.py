import asyncio
from collections.abc import AsyncGenerator
from http import HTTPStatus

import pytest
from starlette.types import Message

from layover.http.oci.blobs import _BlobResponse

pytestmark = pytest.mark.anyio


class Blocks:
    """A blob without end; knows how much was read and whether it was closed."""

    def __init__(self) -> None:
        self.count, self.is_closed = 0, False

    async def read(self) -> AsyncGenerator[bytes]:
        try:
            while self.count < 100:
                self.count += 1
                yield b"block"
        finally:
            self.is_closed = True


async def test_reading_stops_when_the_client_has_gone() -> None:
    blocks, gone = Blocks(), asyncio.Event()

    async def receive() -> Message:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        # What is sent to a client that has gone is dropped without a word.
        if blocks.count == 3:
            gone.set()
        await asyncio.sleep(0)

    await _BlobResponse(HTTPStatus.OK, {}, blocks.read())({"type": "http"}, receive, send)
    assert blocks.count < 10
    assert blocks.is_closed


async def test_a_canceled_answer_closes_what_it_read() -> None:
    blocks, sending = Blocks(), asyncio.Event()

    async def never() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            sending.set()
            await asyncio.Event().wait()

    response = _BlobResponse(HTTPStatus.OK, {}, blocks.read())
    task = asyncio.create_task(response({"type": "http"}, never, send))
    await sending.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert blocks.is_closed
