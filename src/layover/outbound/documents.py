"""Small JSON documents of other hosts, read within bounds."""

import asyncio
import json
from collections.abc import Mapping

import httpx

from layover.errors import LayoverError


class DocumentUnavailable(LayoverError):
    """A host did not give the document that it was asked for; the message says why, for a log.

    It quotes nothing of what the host answered.
    """


async def fetch_json(
    client: httpx.AsyncClient,
    url: str,
    *,
    max_bytes: int,
    timeout_seconds: float,
    headers: Mapping[str, str] | None = None,
) -> object:
    """The JSON document at `url`, of `max_bytes` at most, all of it within `timeout_seconds`.

    Raises DocumentUnavailable, and DialForbidden where the server may not dial.
    """
    # Compressed, a few bytes could stand for as many as one likes.
    asked = {"accept": "application/json", "accept-encoding": "identity", **(headers or {})}
    try:
        async with (
            asyncio.timeout(timeout_seconds),
            client.stream("GET", url, headers=asked) as answer,
        ):
            if answer.status_code != httpx.codes.OK:
                raise DocumentUnavailable(f"{url} answered with status {answer.status_code}")
            content = await read_bounded(answer, max_bytes)
    except TimeoutError as error:
        raise DocumentUnavailable(f"{url} took longer than {timeout_seconds:g} s") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = str(error) or type(error).__name__
        raise DocumentUnavailable(f"{url} cannot be read: {reason}") from error
    return parse_json(content, url)


async def read_bounded(answer: httpx.Response, max_bytes: int) -> bytes:
    """An answer's content, as it came. Raises DocumentUnavailable when there is more of it."""
    if answer.headers.get("content-encoding", "identity").lower() != "identity":
        raise DocumentUnavailable(f"{answer.url} is compressed, which was not asked for")
    content = bytearray()
    async for part in answer.aiter_raw():
        content += part
        if len(content) > max_bytes:
            raise DocumentUnavailable(f"{answer.url} has more than {max_bytes} bytes")
    return bytes(content)


def parse_json(content: bytes, source: str) -> object:
    """Raise DocumentUnavailable unless it is JSON, with the bounds that a stranger's needs."""
    try:
        document: object = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DocumentUnavailable(f"{source} is not JSON") from error
    return document
