"""One request to a registry: how it is sent, where it may lead, and what its answer means.

An `Authorization` header goes to the registry's own scheme, host and port and to nobody that a
`Location` or a redirect names: those addresses carry what they need in themselves.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from http import HTTPStatus

import httpx

from layover.adapters.registries.answers import MAX_ERROR_BYTES, Answer, read_bounded
from layover.adapters.registries.retries import Passing, Patience, Time, is_passing, told_seconds
from layover.adapters.registries.schemes import Schemes, has_bad_certificate, speaks_no_tls
from layover.oci.references import Place
from layover.outbound.rules import DialForbidden
from layover.promotion.models import (
    Authorization,
    RegistryForbidden,
    RegistryRefused,
    RegistryUnauthorized,
    RegistryUnavailable,
    SourceGone,
)
from layover.promotion.ports import AuthorizationOf

# Steps have no bounds of their own beside this: `Time` has those of a whole request.
_TIMEOUT = httpx.Timeout(None, connect=10)

_MOST_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_REDIRECTS_OF_ALL = frozenset({307, 308})

# A piece of this size gets through a line of 1 KiB a second in time.
_SLOW_PIECE_BYTES = 64 * 1024
_SLOW_SECONDS = 5.0


class Body(httpx.AsyncByteStream):
    """A part of a blob on its way, of exactly `size_bytes`.

    Whoever made `pieces` closes them. Each piece that was handed on is told to `moved`.
    """

    def __init__(
        self,
        pieces: AsyncGenerator[bytes],
        size_bytes: int,
        moved: Callable[[int], None],
        monotonic: Callable[[], float],
    ) -> None:
        self.size_bytes = size_bytes
        self._pieces, self._moved, self._monotonic = pieces, moved, monotonic
        self._done_bytes = 0
        self._handed_on = b""
        self._rest = memoryview(b"")
        self._is_slow = False
        self._handed_on_at: float | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        # Asked for the next one: the last one is on its way.
        if self._handed_on_at is not None:
            self._is_slow = self._monotonic() - self._handed_on_at > _SLOW_SECONDS
            self._done_bytes += len(self._handed_on)
            self._handed_on = b""
            self._moved(self._done_bytes)
        left = self.size_bytes - self._done_bytes
        if not left:
            raise StopAsyncIteration
        while not self._rest:
            read_next = await anext(self._pieces, None)
            if read_next is None:
                raise SourceGone("a blob of the image")
            self._rest = memoryview(read_next)
        at_most = min(left, _SLOW_PIECE_BYTES) if self._is_slow else left
        whole = self._rest.obj
        if (
            len(self._rest) <= at_most
            and isinstance(whole, bytes)
            and len(whole) == len(self._rest)
        ):
            piece = whole  # as it is, not copied
        else:
            piece = bytes(self._rest[:at_most])
        self._rest = self._rest[len(piece) :]
        self._handed_on = piece
        self._handed_on_at = self._monotonic()
        return piece


class Requests:
    """The requests of one push."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        schemes: Schemes,
        authorization: AuthorizationOf,
        time: Time,
    ) -> None:
        self._client, self._schemes = client, schemes
        self._authorization, self.time = authorization, time

    async def ask(
        self,
        place: Place,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
        max_bytes: int = MAX_ERROR_BYTES,
    ) -> Answer:
        """Ask for a path of the place's repository, again for as long as patience lasts."""
        patience = Patience(place, self.time)
        while True:
            try:
                url = await self.url(place, path)
                return await self.ask_once(
                    place, method, url, headers=headers, content=content, max_bytes=max_bytes
                )
            except Passing as failure:
                await patience.wait(failure)

    async def url(self, place: Place, path: str) -> httpx.URL:
        """The address of a path, `blobs/...` say, of the place's repository."""
        origin = await self._origin(place)
        return origin.join(f"/v2/{place.repository}/{path}")

    async def _origin(self, place: Place) -> httpx.URL:
        try:
            return await self._schemes.base(place)
        except DialForbidden as error:
            raise RegistryForbidden(place, str(error)) from error
        except httpx.InvalidURL as error:
            raise RegistryForbidden(place, "its name is no host's") from error

    async def ask_once(
        self,
        place: Place,
        method: str,
        url: httpx.URL,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
        body: Body | None = None,
        max_bytes: int = MAX_ERROR_BYTES,
        answer_seconds: float | None = None,
    ) -> Answer:
        """Ask once, and follow where that leads; a body is sent to the first address alone.

        Answers of every status come back, but: Passing is raised for what may pass, and for a
        refusal of an authorization that has meanwhile another in its place; RegistryUnauthorized,
        RegistryForbidden.
        """
        origin = await self._origin(place)
        for _ in range(_MOST_REDIRECTS + 1):
            url = _upgraded(url, origin)
            is_foreign = not _same(url, origin)
            # Asked for anew each time: it may have been renewed.
            shown = None if is_foreign else self._authorization(place)
            # Compressed, a few bytes could stand for as many as one likes.
            sent = {"accept": "*/*", "accept-encoding": "identity", **(headers or {})}
            if shown is not None:
                sent["authorization"] = shown.header
            response, read, is_cut = await self._exchange(
                place, method, url, sent, content, body, max_bytes, answer_seconds
            )
            answer = Answer(
                response.status_code, response.headers, url, is_foreign, read, is_cut, shown
            )
            self._judge(place, answer, shown)
            is_read = method in ("GET", "HEAD")
            if answer.status not in (_REDIRECTS if is_read else _REDIRECTS_OF_ALL):
                return answer
            if body is not None:
                return answer
            location = answer.location
            if location is None:
                break
            url = location
        raise RegistryRefused(place, f"a {method}", answer.status, "it only leads elsewhere")

    async def _exchange(
        self,
        place: Place,
        method: str,
        url: httpx.URL,
        headers: Mapping[str, str],
        content: bytes,
        body: Body | None,
        max_bytes: int,
        answer_seconds: float | None,
    ) -> tuple[httpx.Response, bytes, bool]:
        step = self.time.answer_seconds
        wait = step if answer_seconds is None else answer_seconds
        if body is not None:
            headers = {**headers, "content-length": str(body.size_bytes)}
        request = self._client.build_request(
            method, url, headers=headers, content=content or None, timeout=_TIMEOUT
        )
        try:
            async with asyncio.timeout(step if body is not None else wait) as bound:
                if body is not None:
                    # Set here: httpx would wrap it in generators that nobody closes.
                    request.stream = _Timed(body, bound, step, wait)
                response = await self._client.send(request, stream=True)
                try:
                    return response, *(await read_bounded(response, max_bytes))
                finally:
                    await response.aclose()
        except TimeoutError as error:
            raise Passing(f"{_host(url)} did not answer in time") from error
        except DialForbidden as error:
            raise RegistryForbidden(place, str(error)) from error
        except httpx.TransportError as error:
            raise _failure(place, url, error) from error

    def _judge(self, place: Place, answer: Answer, shown: Authorization | None) -> None:
        status = answer.status
        if is_passing(status):
            asked = told_seconds(answer.headers.get("retry-after"), self.time.now())
            told = f": {answer.told}" if answer.told else ""
            raise Passing(
                f"{_host(answer.url)} answered {status}{told}",
                told_seconds=asked,
                is_undone=status == HTTPStatus.TOO_MANY_REQUESTS,
            )
        if answer.is_foreign:
            return
        is_refused = status == HTTPStatus.UNAUTHORIZED or (
            status == HTTPStatus.FORBIDDEN and "www-authenticate" in answer.headers
        )
        if not is_refused:
            return
        if self._authorization(place) != shown:
            raise Passing(f"{place.registry} wants an authorization", is_at_once=True)
        raise RegistryUnauthorized(place, answer.told)


class _Timed(httpx.AsyncByteStream):
    """A body that puts the end of its request's time off with each piece."""

    def __init__(self, body: Body, bound: asyncio.Timeout, step: float, wait: float) -> None:
        """`step` is the time of a piece, `wait` of the answer, in seconds."""
        self._body, self._bound, self._step, self._wait = body, bound, step, wait

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        now = asyncio.get_running_loop().time
        try:
            piece = await anext(self._body)
        except StopAsyncIteration:
            self._bound.reschedule(now() + self._wait)
            raise
        self._bound.reschedule(now() + self._step)
        return piece


def _failure(place: Place, url: httpx.URL, error: httpx.TransportError) -> Exception:
    host = _host(url)
    if has_bad_certificate(error):
        return RegistryForbidden(
            place,
            f"the certificate of {host} cannot be verified. The server's administrator can"
            " name its authority in the setting outbound_ca_cert",
        )
    if url.scheme == "https" and speaks_no_tls(error):
        return RegistryForbidden(
            place,
            f"{host} does not speak TLS. The server's administrator can list it in the"
            " setting outbound_insecure_hosts",
        )
    if isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
        return RegistryUnavailable(place, f"{host} cannot be asked so")
    reasons = {
        httpx.ConnectError: "does not accept a connection",
        httpx.ConnectTimeout: "does not accept a connection in time",
    }
    return Passing(f"{host} {reasons.get(type(error), 'broke the connection')}")


_PORTS = {"http": 80, "https": 443}


def _same(url: httpx.URL, origin: httpx.URL) -> bool:
    """Whether it is the registry's own address, to the port and the scheme."""
    return (url.scheme, url.host, _port(url)) == (origin.scheme, origin.host, _port(origin))


def _port(url: httpx.URL) -> int | None:
    return url.port or _PORTS.get(url.scheme)


def _upgraded(url: httpx.URL, origin: httpx.URL) -> httpx.URL:
    """The same with TLS, where a registry that was reached with it names itself without, as one
    behind a proxy does that was not told so."""
    is_own = url.host == origin.host and (url.port or 80) in (80, origin.port)
    if (origin.scheme, url.scheme) == ("https", "http") and is_own:
        return url.copy_with(scheme="https", port=origin.port)
    return url


def _host(url: httpx.URL) -> str:
    return url.netloc.decode("ascii", "replace")
