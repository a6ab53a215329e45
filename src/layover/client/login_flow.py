"""Logging in with a browser: start, show a code, wait for the token.

async with Login(url) as login:
    started = await login.start()
    token = await login.finish(started)
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from layover.client.address import Server
from layover.client.errors import ClientError, ServerUnreachable
from layover.client.users import UsersClient

# A login is over after ten minutes; the server says so before this.
WAIT_SECONDS = 660.0

_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 10.0


class LoginAnswerInvalid(ClientError):
    """The server's answer is nothing to show to a user."""

    def __init__(self, url: str) -> None:
        super().__init__(f"the server at {url} answered with no page to open")
        self.url = url


@dataclass(frozen=True, slots=True)
class StartedLogin:
    """A login that waits for its user."""

    approve_url: str
    user_code: str
    """What the page shows too; empty where the server tells none."""
    id: str = field(repr=False)


class Login:
    """One login at a server. Close it, or use it as a context manager."""

    def __init__(
        self,
        url: str,
        *,
        env: Mapping[str, str] | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._client = UsersClient(Server(url, ""), env=os.environ if env is None else env)
        self._url, self._sleep = url, sleep

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._client.close()

    async def start(self) -> StartedLogin:
        """Ask the server for a login. Raises ClientError."""
        answer = await self._client.start_login()
        approve_url = answer.approve_url
        # It is opened by a browser and printed on a terminal.
        if not _is_page(approve_url) or not answer.id:
            raise LoginAnswerInvalid(self._url)
        code = answer.user_code if answer.user_code.isprintable() else ""
        return StartedLogin(approve_url, code, answer.id)

    async def finish(self, started: StartedLogin) -> str:
        """Wait until the user has approved, and return the token. Raises ClientError.

        A proxy that ends a silent connection, or a server that restarts, is asked again.
        """
        pause = _FIRST_PAUSE_SECONDS
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                try:
                    return await self._client.finish_login(started.id)
                except ServerUnreachable:
                    await self._sleep(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _is_page(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return (
        parts.scheme in ("http", "https")
        and bool(parts.netloc)
        and url.isascii()
        and url.isprintable()
        and not any(character in url for character in " \"'<>\\")
    )
