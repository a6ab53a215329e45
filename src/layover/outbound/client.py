"""An HTTP client that dials only what the rules allow, and exactly the address that was checked.

A name is resolved once for a connection. Each of its addresses is judged, and what is dialled is
that address and not the name again: a name whose next answer is another (DNS rebinding) gains
nothing. TLS still asks for the name. The client knows no proxy, no .netrc and no other
environment, and follows no redirect unless it is asked to; a followed one is judged as any other.
It keeps no cookie: what a host set for one user would go with another's request.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from time import monotonic
from typing import Any

import httpcore
import httpx

from layover.outbound.rules import AddressForbidden, OutboundRules, host_port

# The addresses that a name stands for, in the order in which to try them. Raises OSError, and
# ValueError for what cannot be a name.
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

# Is told which addresses of a host and a port are not dialled.
Refused = Callable[[str, int, Sequence[str]], None]

TIMEOUT = httpx.Timeout(10, connect=5)

_LIMITS = httpx.Limits(max_connections=256, max_keepalive_connections=64, keepalive_expiry=30)

# A name with thousands of addresses is nobody's honest one.
_MAX_ADDRESSES = 16


def outbound_client(
    rules: OutboundRules,
    ca_cert: Path | None = None,
    *,
    context: ssl.SSLContext | None = None,
    resolve: Resolve | None = None,
    timeout: httpx.Timeout = TIMEOUT,
    refused: Refused | None = None,
) -> httpx.AsyncClient:
    """A client that dials what `rules` allow; whoever asks for it closes it.

    Certificates are verified as `context` says, by default against the system's authorities, and
    against those of `ca_cert` (PEM). `timeout` bounds each step, not a whole answer. `refused` is
    told of what is not dialled, which is more than the error says. Requests raise DialForbidden
    beside httpx's errors. Raises OSError when `ca_cert` cannot be read or is not PEM.
    """
    context = context or ssl.create_default_context()
    if ca_cert is not None:
        context.load_verify_locations(ca_cert)
    return httpx.AsyncClient(
        transport=_Transport(rules, context, _Dialer(rules, resolve or system_resolve, refused)),
        timeout=timeout,
        follow_redirects=False,
        trust_env=False,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        headers={"user-agent": "layover"},
    )


async def system_resolve(host: str, port: int) -> list[str]:
    """What the machine's own resolver says.

    It blocks a thread for as long as a name server does not answer. The server's loop (uvloop) has
    some for this alone, so that slow names hold up each other and not the database.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class _Transport(httpx.AsyncBaseTransport):
    """httpx's requests over a pool of httpcore's, whose connections are made by `_Dialer`."""

    def __init__(self, rules: OutboundRules, context: ssl.SSLContext, dialer: "_Dialer") -> None:
        self._rules = rules
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=context,
            max_connections=_LIMITS.max_connections,
            max_keepalive_connections=_LIMITS.max_keepalive_connections,
            keepalive_expiry=_LIMITS.keepalive_expiry,
            network_backend=dialer,
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        self._rules.check_url(url.scheme, url.host, url.port)
        assert isinstance(request.stream, httpx.AsyncByteStream)
        with _told_as_httpx():
            answer = await self._pool.handle_async_request(
                httpcore.Request(
                    method=request.method,
                    url=httpcore.URL(
                        scheme=url.raw_scheme,
                        host=url.raw_host,
                        port=url.port,
                        target=url.raw_path,
                    ),
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        return httpx.Response(
            answer.status,
            headers=answer.headers,
            stream=_Body(answer),
            extensions=answer.extensions,
        )

    async def aclose(self) -> None:
        await self._pool.aclose()


class _Body(httpx.AsyncByteStream):
    """An answer's content as it arrives."""

    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _told_as_httpx():
            async for part in self._answer.aiter_stream():
                yield part

    async def aclose(self) -> None:
        await self._answer.aclose()


class _Dialer(httpcore.AsyncNetworkBackend):
    """Resolves, judges, and dials what it judged."""

    def __init__(self, rules: OutboundRules, resolve: Resolve, refused: Refused | None) -> None:
        self._rules, self._resolve, self._refused = rules, resolve, refused
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # httpcore's own signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address that answers; `timeout` is for all of them together."""
        deadline = None if timeout is None else monotonic() + timeout
        try:
            async with asyncio.timeout(timeout):
                found = await self._resolve(host, port)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(f"no address for {host!r} in time") from error
        except (OSError, ValueError) as error:  # a label that is too long is the latter
            raise httpcore.ConnectError(f"cannot find host {host!r}") from error
        named = host_port(host, port)
        addresses = [address for address in found if self._rules.may_dial(address, named)]
        if not addresses:
            if self._refused is not None:
                self._refused(host, port, found)
            raise AddressForbidden(host, tuple(found))
        failure: Exception = httpcore.ConnectError(f"no address of {host!r} answers")
        tried = addresses[:_MAX_ADDRESSES]
        for number, address in enumerate(tried):
            left = None if deadline is None else deadline - monotonic()
            if left is not None:
                # One that swallows everything must not use up the others' time.
                left = max(left / (len(tried) - number), 0.001)
            try:
                return await self._network.connect_tcp(
                    address, port, left, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109  # httpcore's own signature
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """No client can name a socket of this machine."""
        raise AddressForbidden(path, ())

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@contextlib.contextmanager
def _told_as_httpx() -> Iterator[None]:
    """httpcore's errors as httpx's, which have the same names."""
    try:
        yield
    except Exception as error:
        for kind in type(error).__mro__:
            told = getattr(httpx, kind.__name__, None)
            if kind.__module__.startswith("httpcore") and told is not None:
                raise told(str(error)) from error
        raise
