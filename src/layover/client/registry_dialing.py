"""How the client itself reaches registries: for a word on who may push, never for an image."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import httpx

from layover.client.api import trusted_certificates
from layover.client.errors import ClientError
from layover.client.push_errors import RegistryNotTrusted, RegistryUnreachable
from layover.client.registries import parse_registry
from layover.outbound.client import Resolve, outbound_client, system_resolve
from layover.outbound.rules import OutboundRules, host_port

INSECURE_VARIABLE = "LAYOVER_INSECURE_REGISTRIES"

# Before a registry is asked the second time, and the third.
_PAUSES_SECONDS = (0.5, 2.0)
# For all of one answer, however it comes in.
_TIMEOUT_SECONDS = 30.0
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})

_HTTP_PORT = 80

# What OpenSSL calls an answer that is no TLS at all.
_PLAIN_REASONS = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"})

Answer = TypeVar("Answer")


class PassingFailure(Exception):
    """What may go well the next time."""

    def __init__(self, failure: ClientError) -> None:
        super().__init__(str(failure))
        self.failure = failure


class NotReached(PassingFailure):
    """Nobody listens, or nobody there speaks TLS."""


class SpeaksPlainHttp(RegistryUnreachable):
    """A host without TLS where there has to be some: trying again is no help."""

    def __init__(self, registry: str, host: str) -> None:
        hint = ""
        if host == registry:
            hint = (
                f". If that is as it should be, set {INSECURE_VARIABLE}={registry} here, and have"
                " the server's administrator list it in outbound_insecure_hosts"
            )
        super().__init__(registry, f"{host} speaks HTTP without TLS{hint}")


@dataclass(frozen=True, slots=True)
class Dialing:
    """Which certificates are trusted, and which hosts are reached without TLS."""

    context: ssl.SSLContext
    insecure_hosts: frozenset[str] = frozenset()
    """What the user lists, as `host_port` writes it."""
    resolve: Resolve = system_resolve

    def open(self, rules: OutboundRules) -> httpx.AsyncClient:
        """A client that dials by these rules; the caller closes it."""
        return outbound_client(rules, context=self.context, resolve=self.resolve)


def dialing(env: Mapping[str, str], resolve: Resolve = system_resolve) -> Dialing:
    """As the environment says: SSL_CERT_FILE and LAYOVER_INSECURE_REGISTRIES.

    Raises ClientError, RegistryInvalid.
    """
    pem = trusted_certificates(env)
    try:
        if pem is not None and not pem.strip():
            # To Python that is none, for which it would take the system's.
            raise ValueError("it is empty")
        context = ssl.create_default_context(cadata=None if pem is None else pem.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise ClientError(f"cannot use SSL_CERT_FILE, which has to be PEM: {error}") from error
    hosts = set()
    for text in env.get(INSECURE_VARIABLE, "").replace(",", " ").split():
        registry = parse_registry(text)
        hosts.add(host_port(registry.name, registry.port or _HTTP_PORT))
    return Dialing(context, frozenset(hosts), resolve)


@asynccontextmanager
async def asked(
    client: httpx.AsyncClient, registry: str, request: httpx.Request
) -> AsyncIterator[httpx.Response]:
    """The answer to a request, whose content is read within the block.

    Raises RegistryNotTrusted, SpeaksPlainHttp, and PassingFailure for what may pass; what they say
    names the host, and nothing else of the request.
    """
    host = request.url.netloc.decode("ascii")
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            answer = await client.send(request, stream=True)
            try:
                if answer.status_code in _TRANSIENT:
                    reason = f"{host} answered with status {answer.status_code}"
                    raise PassingFailure(RegistryUnreachable(registry, reason))
                yield answer
            finally:
                await answer.aclose()
    except TimeoutError:
        reason = f"{host} took longer than {_TIMEOUT_SECONDS:g} s"
        raise PassingFailure(RegistryUnreachable(registry, reason)) from None
    except httpx.HTTPError as error:
        tls = _tls_error(error)
        if isinstance(tls, ssl.SSLCertVerificationError):
            raise RegistryNotTrusted(registry, tls.verify_message) from error
        if tls is not None and tls.reason in _PLAIN_REASONS:
            raise SpeaksPlainHttp(registry, host) from error
        reason = f"{host} cannot be reached: {str(error) or type(error).__name__}"
        is_reached = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
        failure = PassingFailure if is_reached else NotReached
        raise failure(RegistryUnreachable(registry, reason)) from error


async def patiently(ask: Callable[[], Awaitable[Answer]]) -> Answer:
    """Ask again, after a pause, for what may pass; raise what it was when it did not."""
    for pause in _PAUSES_SECONDS:
        try:
            return await ask()
        except PassingFailure:
            await asyncio.sleep(pause)
    try:
        return await ask()
    except PassingFailure as passing:
        raise passing.failure from passing


def _tls_error(error: BaseException) -> ssl.SSLError | None:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None
