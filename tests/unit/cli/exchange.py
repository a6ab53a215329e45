"""A server that trades ID tokens, as far as a command line goes; it remembers what it heard."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import uvicorn
from connectrpc.code import Code
from connectrpc.errors import ConnectError

from layover.rpc.layover.v1 import tokens_pb
from layover.rpc.layover.v1.tokens_connect import TokensService, TokensServiceASGIApplication

JOB = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl"


class Exchange(TokensService):
    def __init__(self) -> None:
        self.url = ""
        self.heard: list[tuple[str, str]] = []
        self.refusal: Code | None = None

    async def exchange_token(
        self, request: tokens_pb.ExchangeTokenRequest, ctx: Any
    ) -> tokens_pb.ExchangeTokenResponse:
        self.heard.append((ctx.request_headers["authorization"], request.project_id))
        if self.refusal is not None:
            raise ConnectError(self.refusal, "no")
        return tokens_pb.ExchangeTokenResponse(token="traded", project_id=request.project_id)


@contextlib.contextmanager
def exchanging() -> Iterator[Exchange]:
    """An Exchange on a free port."""
    exchange = Exchange()
    with listening(TokensServiceASGIApplication(exchange)) as exchange.url:
        yield exchange


@contextlib.contextmanager
def listening(app: Any) -> Iterator[str]:
    """Serve an application on a free port of the loopback until the block ends."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        running = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=lambda: asyncio.run(running.serve([listener])))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            running.should_exit = True
            thread.join()
