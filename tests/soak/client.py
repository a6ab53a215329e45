"""A registry client: one request at a time, to the replicas in turn, each timed and recorded."""

import asyncio
import hashlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar
from urllib.parse import urlsplit

from pyqwest import Client, HTTPTransport, ReadError, RemoteProtocolError, WriteError

from layover.client.address import Server
from layover.client.api import Client as BuildApi
from layover.client.errors import ServerUnreachable
from tests.soak.journal import Journal, Lost, Violation

_TIMEOUT_SECONDS = 60

# A client that finds a replica gone tries the next one; all of them are never gone for long, but
# on a machine that has more to do, a server takes seconds to start, and is killed soon after.
_PATIENCE_SECONDS = 120
_PAUSE_SECONDS = 0.5

_LOST = (OSError, TimeoutError, RemoteProtocolError, ReadError, WriteError)

# Of the errors, what a proxy or a server says when the next try may well succeed.
_AGAIN = frozenset({502, 503, 504})


@dataclass(frozen=True, slots=True)
class Answer:
    """A response and when it was asked for and had, in seconds since the epoch."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    digest: str
    """Of the body, which a `download` does not keep."""
    began: float
    ended: float

    @property
    def location(self) -> str:
        """The path, with its query, that the response leads to."""
        parts = urlsplit(self.headers["location"])
        return f"{parts.path}?{parts.query}" if parts.query else parts.path


Result = TypeVar("Result")


class RegistryClient:
    """Speaks to the replicas in turn. Shared by all actors; close it, or use it as a context."""

    def __init__(
        self, urls: Sequence[str], token: str, journal: Journal, *, replicas_die: bool = False
    ) -> None:
        """`replicas_die` says that servers are killed on purpose: requests may be lost."""
        self._urls, self._replicas = itertools.cycle(urls), len(urls)
        self._journal = journal
        self._headers = {"authorization": f"Bearer {token}"}
        self.replicas_die = replicas_die
        self._transport = HTTPTransport(
            timeout=_TIMEOUT_SECONDS,
            pool_max_idle_per_host=256,
            follow_redirects=False,
            enable_gzip=False,
            enable_brotli=False,
            enable_zstd=False,
            enable_otel=False,
        )
        self._http = Client(self._transport)
        self._opened = [BuildApi(Server(url, token)) for url in urls]
        self._apis = itertools.cycle(self._opened)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._transport.aclose()
        for api in self._opened:
            await api.close()

    async def once(
        self,
        method: str,
        path: str,
        body: bytes | AsyncIterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        keep_body: bool = True,
        token: str | None = None,
    ) -> Answer:
        """Send one request. Raises Lost."""
        for left in reversed(range(self._replicas)):
            url = next(self._urls)
            try:
                return await self._once(url, method, path, body, headers, keep_body, token)
            except ConnectionError as error:
                # Nothing was sent: a load balancer takes the next one.
                if not left or not isinstance(body, bytes | None):
                    raise Lost(f"{method} {url}{path}: {error!r}") from error
        raise AssertionError("there is a replica at least")

    async def _once(
        self,
        url: str,
        method: str,
        path: str,
        body: bytes | AsyncIterator[bytes] | None,
        headers: Mapping[str, str] | None,
        keep_body: bool,
        token: str | None,
    ) -> Answer:
        began = time.time()
        sent = {**self._headers, **(headers or {})}
        if token is not None:
            sent["authorization"] = f"Bearer {token}"
        hash_, kept = hashlib.sha256(), bytearray()
        status: int | str = "lost"
        try:
            async with self._http.stream(method, url + path, sent, body) as response:
                status = response.status
                async for piece in response.content:
                    hash_.update(piece)
                    if keep_body or status >= 300:
                        kept += piece
        except ConnectionError:
            status = "lost: not reached"
            raise
        except _LOST as error:
            status = f"lost: {type(error).__name__}"
            raise Lost(f"{method} {url}{path}: {error!r}") from error
        finally:
            ended = time.time()
            self._journal.request(method, url, path, status, began, ended)
        found = {name.lower(): value for name, value in response.headers.items()}
        digest = f"sha256:{hash_.hexdigest()}"
        return Answer(response.status, found, bytes(kept), digest, began, ended)

    async def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        keep_body: bool = True,
        token: str | None = None,
    ) -> Answer:
        """Send what may be sent twice, again where a replica was killed under it.

        The answer's `began` is the first try's: what that one did is not known.
        """
        began = time.time()
        while time.time() < began + _PATIENCE_SECONDS:
            try:
                answer = await self.once(
                    method, path, body, headers, keep_body=keep_body, token=token
                )
                if not self.replicas_die or answer.status not in _AGAIN:
                    return Answer(
                        answer.status,
                        answer.headers,
                        answer.body,
                        answer.digest,
                        began,
                        answer.ended,
                    )
            except Lost:
                if not self.replicas_die:
                    raise
            await asyncio.sleep(_PAUSE_SECONDS)
        raise Lost(f"{method} {path}: lost for {_PATIENCE_SECONDS} s")

    def fine(self, answer: Answer, expected: int, what: str) -> Answer:
        """The answer, if it is the expected one. Raises Violation, or Lost where `again` helps."""
        if answer.status == expected:
            return answer
        said = f"{what}: {answer.status} instead of {expected}: {answer.body[:300]!r}"
        raise Lost(said) if self.replicas_die and answer.status in _AGAIN else Violation(said)

    async def call(self, work: Callable[[BuildApi], Awaitable[Result]]) -> Result:
        """Make a call of the API, to another replica where one was killed under it."""
        began = time.time()
        while time.time() < began + _PATIENCE_SECONDS:
            try:
                return await work(next(self._apis))
            except ServerUnreachable as error:
                if not self.replicas_die:
                    raise Lost(str(error)) from error
                await asyncio.sleep(_PAUSE_SECONDS)
        raise Lost(f"a call of the API: lost for {_PATIENCE_SECONDS} s")

    async def again(self, work: Callable[[], Awaitable[None]], what: str) -> None:
        """Do work of several requests, from its start where a killed replica broke it off."""
        began = time.time()
        while time.time() < began + _PATIENCE_SECONDS:
            try:
                return await work()
            except Lost:
                if not self.replicas_die:
                    raise
                await asyncio.sleep(_PAUSE_SECONDS)
        raise Lost(f"{what}: lost for {_PATIENCE_SECONDS} s")
