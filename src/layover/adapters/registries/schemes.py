"""With TLS or without: how a registry is reached.

Without TLS goes what the administrator listed as insecure, and nothing else, but for one thing that
Docker's users know: a registry on loopback needs no TLS. Where the rules let loopback be reached so
(the server itself listens on it, and nothing of a connection leaves the machine), TLS is tried
first, and plain HTTP where there is none. A certificate that cannot be verified is no reason.
"""

import asyncio
import ssl

import httpx

from layover.oci.references import Place
from layover.outbound.rules import DialForbidden, OutboundRules

_PROBE_TIMEOUT = httpx.Timeout(5)


class Schemes:
    """Remembers for one push how each registry is reached."""

    def __init__(self, client: httpx.AsyncClient, rules: OutboundRules) -> None:
        self._client, self._rules = client, rules
        self._known: dict[str, str] = {}
        self._probing = asyncio.Lock()

    async def base(self, place: Place) -> httpx.URL:
        """`https://HOST[:PORT]`, or without TLS. Raises DialForbidden, httpx.InvalidURL."""
        scheme = self._known.get(place.host)
        if scheme is None:
            url = httpx.URL(f"http://{place.host}")
            if self._rules.is_insecure(url.host, url.port):
                scheme = self._known[place.host] = "http"
            elif not self._rules.may_be_plain(url.host, url.port):
                scheme = self._known[place.host] = "https"
            else:
                # A push begins with many questions at once, of which one is to find out.
                async with self._probing:
                    scheme = self._known.get(place.host) or await self._probed(place)
        return httpx.URL(f"{scheme}://{place.host}")

    async def _probed(self, place: Place) -> str:
        try:
            await self._client.head(f"https://{place.host}/v2/", timeout=_PROBE_TIMEOUT)
        except DialForbidden:
            raise
        except httpx.TransportError as error:
            if has_bad_certificate(error):
                scheme = "https"
            elif isinstance(error, httpx.TimeoutException) or speaks_no_tls(error):
                scheme = "http"
            else:
                return "http"  # It is not there, as far as can be told: look again next time.
        else:
            scheme = "https"
        self._known[place.host] = scheme
        return scheme


def has_bad_certificate(error: BaseException) -> bool:
    """Whether a connection failed since the certificate could not be verified."""
    return any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error))


def speaks_no_tls(error: BaseException) -> bool:
    """Whether a connection failed since what answered is not TLS."""
    return not has_bad_certificate(error) and any(
        isinstance(cause, ssl.SSLError)
        and cause.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")
        for cause in _causes(error)
    )


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
