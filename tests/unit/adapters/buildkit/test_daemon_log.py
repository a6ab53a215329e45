import asyncio

import pytest

from layover.adapters.buildkit.daemon_log import DaemonLog

pytestmark = pytest.mark.anyio


async def last_words(*lines: bytes) -> str:
    stream = asyncio.StreamReader(limit=1024)
    for line in lines:
        stream.feed_data(line)
    stream.feed_eof()
    log = DaemonLog(stream)
    await log.read()
    return log.last_words


async def test_the_last_words_are_what_went_wrong() -> None:
    words = await last_words(
        b'{"level":"info","msg":"found 1 workers"}\n',
        b'{"level":"error","msg":"failed to lock","error":"in use"}\n',
        b'{"level":"warning","msg":"using host network"}\n',
        b"buildkitd: could not lock the root\n",
    )
    assert words == "failed to lock: in use / buildkitd: could not lock the root"


async def test_whatever_the_daemon_writes_is_read_to_its_end() -> None:
    words = await last_words(
        b"[1, 2]\n", b"\xff\xfe\n", b"\n", b"x" * 5000 + b"\n", b"{}\n", b"end"
    )
    assert words.endswith("end")


async def test_a_daemon_that_said_nothing_wrong_has_no_last_words() -> None:
    assert await last_words(b'{"level":"info","msg":"running server"}\n') == ""
