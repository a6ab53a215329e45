"""Asks a registry how to sign in to it, and the place that it names for a token.

distribution's "Token Authentication Specification" and "OAuth2 Token Authentication": a user and
a password go there in a GET with Basic, an identity token in a form. Where GET is not known, the
password goes in a form, too.
"""

import base64
import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from layover.client.auth_challenges import Challenge, ChallengesInvalid, parse_challenges
from layover.client.docker_logins import Credential
from layover.client.push_errors import (
    LoginMissing,
    LoginRefused,
    LoginUnusable,
    RealmRefused,
    RegistryUnreachable,
)
from layover.client.registry_dialing import (
    Dialing,
    NotReached,
    PassingFailure,
    SpeaksPlainHttp,
    asked,
)
from layover.client.registry_realms import Realm, is_loopback
from layover.oci.references import Place
from layover.outbound.documents import DocumentUnavailable, read_bounded
from layover.outbound.rules import DialForbidden, OutboundRules, host_port

# "Token Authentication Specification": what a token is good for when nobody says.
_DEFAULT_LIFETIME = timedelta(seconds=60)
_MAX_LIFETIME = timedelta(days=365)

_CLIENT_ID = "layover"
_MAX_ANSWER_BYTES = 256 << 10
# As it can stand in a header.
_TOKEN = re.compile(r"[!-~]{1,65536}")
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a registry answered a stranger."""

    origin: str
    """SCHEME://HOST that it was reached at."""
    address: str
    """The IP address that answered."""
    challenges: tuple[Challenge, ...]
    """None where it asks nothing of anybody."""

    @property
    def is_plain(self) -> bool:
        return self.origin.startswith("http://")

    def challenge(self, scheme: str) -> Challenge | None:
        return next((one for one in self.challenges if one.scheme == scheme), None)


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token and when it is over, by the clock of this machine."""

    token: str = field(repr=False)
    expires_at: datetime


async def greet(place: Place, dialing: Dialing) -> Greeting:
    """Ask the place's registry how to sign in to push, without TLS only where that is allowed.

    Raises RegistryUnreachable, RegistryNotTrusted, PassingFailure.
    """
    try:
        async with dialing.open(_rules(place, dialing)) as client:
            greeting = await _reached(client, place, may_be_plain=_may_be_plain(place, dialing))
            if greeting.challenges:
                return greeting
            return await _asks_to_push(client, place, greeting)
    except (DialForbidden, httpx.InvalidURL):
        reason = "its host stands for no address that can be dialled"
        raise RegistryUnreachable(place.registry, reason) from None


async def _reached(client: httpx.AsyncClient, place: Place, *, may_be_plain: bool) -> Greeting:
    if may_be_plain:
        # Neither a certificate that is not trusted nor whatever was answered with TLS is a
        # reason to do without.
        with contextlib.suppress(NotReached, SpeaksPlainHttp):
            return await _greet(client, place, "https")
        return await _greet(client, place, "http")
    return await _greet(client, place, "https")


async def _asks_to_push(client: httpx.AsyncClient, place: Place, greeting: Greeting) -> Greeting:
    """What a registry that greets everybody asks of who begins to push.

    Some let everybody read, and say 401 only then. An upload that was begun is ended again.
    """
    url = f"{greeting.origin}/v2/{place.repository}/blobs/uploads/"
    async with asked(client, place.registry, client.build_request("POST", url)) as answer:
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            return _greeting(place.registry, greeting.origin, answer)
        session = _session(answer)
        await _drain(answer)
    if session is not None:
        request = client.build_request("DELETE", session)
        # Left behind, it ends by itself some day.
        with contextlib.suppress(PassingFailure, RegistryUnreachable):
            async with asked(client, place.registry, request):
                pass
    return greeting


def _session(answer: httpx.Response) -> httpx.URL | None:
    """The upload that was begun, where it is the registry's own."""
    if answer.status_code != httpx.codes.ACCEPTED or "location" not in answer.headers:
        return None
    try:
        url = answer.url.join(answer.headers["location"])
    except httpx.InvalidURL:
        return None
    is_own = (url.scheme, url.netloc) == (answer.url.scheme, answer.url.netloc)
    return url if is_own and url.path != answer.url.path else None


async def check_basic(
    place: Place, greeting: Greeting, credential: Credential, dialing: Dialing
) -> None:
    """Raise LoginRefused unless the registry takes the login as it is."""
    if credential.identity_token:
        reason = f"it is an identity token, and {place.registry} takes user and password alone"
        raise LoginUnusable(place.registry, credential.source, reason)
    headers = {"authorization": _basic(place.registry, credential)}
    async with dialing.open(_rules(place, dialing)) as client:
        request = client.build_request("GET", f"{greeting.origin}/v2/", headers=headers)
        async with asked(client, place.registry, request) as answer:
            if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
                raise LoginRefused(place.registry, credential.source)


async def fetch_token(
    registry: str,
    realm: Realm,
    scopes: Sequence[str],
    credential: Credential | None,
    dialing: Dialing,
    now: datetime,
) -> IssuedToken:
    """Get a token for `scopes` at the realm, as nobody where there is no credential.

    Raises LoginMissing, LoginRefused, RealmRefused, RegistryUnreachable, RegistryNotTrusted,
    PassingFailure.
    """
    async with dialing.open(realm.rules) as client:
        try:
            if credential is not None and credential.identity_token:
                return await _ask_by_form(client, registry, realm, scopes, credential, now)
            token = await _ask_by_get(client, registry, realm, scopes, credential, now)
            if token is None and credential is not None:
                token = await _ask_by_form(client, registry, realm, scopes, credential, now)
        except DialForbidden:
            reason = "which is at no public address, nor beside the registry"
            raise RealmRefused(registry, realm.named, reason) from None
    if token is None:
        raise LoginMissing(registry)
    return token


def _rules(place: Place, dialing: Dialing) -> OutboundRules:
    """The user named the registry, so it may be anywhere."""
    url = httpx.URL(f"https://{place.host}")
    host = url.raw_host.decode("ascii")
    names = frozenset(host_port(host, url.port or port) for port in _PORTS.values())
    return OutboundRules(
        hosts=names, insecure_hosts=names if _may_be_plain(place, dialing) else frozenset()
    )


def _may_be_plain(place: Place, dialing: Dialing) -> bool:
    url = httpx.URL(f"http://{place.host}")
    host = url.raw_host.decode("ascii")
    return is_loopback(host) or host_port(host, url.port or _PORTS["http"]) in (
        dialing.insecure_hosts
    )


async def _greet(client: httpx.AsyncClient, place: Place, scheme: str) -> Greeting:
    origin = f"{scheme}://{place.host}"
    request = client.build_request("GET", f"{origin}/v2/")
    async with asked(client, place.registry, request) as answer:
        greeting = _greeting(place.registry, origin, answer)
        await _drain(answer)
        return greeting


async def _drain(answer: httpx.Response) -> None:
    """Read what nobody needs, so that the next request goes over the same connection."""
    with contextlib.suppress(DocumentUnavailable):
        await read_bounded(answer, _MAX_ANSWER_BYTES)


def _greeting(registry: str, origin: str, answer: httpx.Response) -> Greeting:
    address = str(answer.extensions["network_stream"].get_extra_info("server_addr")[0])
    if answer.status_code == httpx.codes.OK:
        return Greeting(origin, address, ())
    if answer.status_code != httpx.codes.UNAUTHORIZED:
        reason = f"GET /v2/ is answered with status {answer.status_code}, as by no registry"
        raise RegistryUnreachable(registry, reason)
    try:
        challenges = parse_challenges(answer.headers.get_list("www-authenticate"))
    except ChallengesInvalid as error:
        raise RegistryUnreachable(registry, str(error)) from error
    if not {"bearer", "basic"} & {one.scheme for one in challenges}:
        raise RegistryUnreachable(registry, "it knows neither Bearer nor Basic authentication")
    return Greeting(origin, address, challenges)


async def _ask_by_get(
    client: httpx.AsyncClient,
    registry: str,
    realm: Realm,
    scopes: Sequence[str],
    credential: Credential | None,
    now: datetime,
) -> IssuedToken | None:
    """None where the realm knows no GET."""
    asks = [("service", realm.service)] if realm.service else []
    asks += [("scope", scope) for scope in scopes]
    given = [one for one in realm.url.params.multi_items() if one[0] not in ("service", "scope")]
    url = realm.url.copy_with(query=str(httpx.QueryParams([*given, *asks])).encode())
    headers = {} if credential is None else {"authorization": _basic(registry, credential)}
    request = client.build_request("GET", url, headers={**_PLAINLY, **headers})
    async with asked(client, registry, request) as answer:
        if answer.status_code in (httpx.codes.NOT_FOUND, httpx.codes.METHOD_NOT_ALLOWED):
            return None
        return await _issued(answer, registry, realm, credential, now)


async def _ask_by_form(
    client: httpx.AsyncClient,
    registry: str,
    realm: Realm,
    scopes: Sequence[str],
    credential: Credential,
    now: datetime,
) -> IssuedToken:
    form = {"client_id": _CLIENT_ID, "service": realm.service, "scope": " ".join(scopes)}
    if credential.identity_token:
        form |= {"grant_type": "refresh_token", "refresh_token": credential.identity_token}
    else:
        form |= {"grant_type": "password", "username": credential.username}
        form["password"] = credential.password
    request = client.build_request("POST", realm.url, data=form, headers=_PLAINLY)
    async with asked(client, registry, request) as answer:
        if answer.status_code == httpx.codes.BAD_REQUEST:
            # RFC 6749, section 5.2: invalid_grant is told so.
            raise LoginRefused(registry, credential.source)
        return await _issued(answer, registry, realm, credential, now)


# Compressed, a few bytes could stand for as many as one likes.
_PLAINLY = {"accept": "application/json", "accept-encoding": "identity"}


async def _issued(
    answer: httpx.Response,
    registry: str,
    realm: Realm,
    credential: Credential | None,
    now: datetime,
) -> IssuedToken:
    status = answer.status_code
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        if credential is None:
            raise LoginMissing(registry)
        raise LoginRefused(registry, credential.source)
    if answer.has_redirect_location:
        raise RealmRefused(registry, realm.named, "which sends whoever asks elsewhere")
    if status != httpx.codes.OK:
        reason = f"{realm.named}, where it has clients sign in, answered with status {status}"
        raise RegistryUnreachable(registry, reason)
    try:
        content: Any = json.loads(await read_bounded(answer, _MAX_ANSWER_BYTES))
    except (DocumentUnavailable, ValueError, RecursionError):
        content = None
    token = _token(content)
    if token is None:
        reason = f"{realm.named}, where it has clients sign in, answered with no token"
        raise RegistryUnreachable(registry, reason)
    return IssuedToken(token, now + _lifetime(content) - _age(content, answer.headers))


def _token(content: object) -> str | None:
    if not isinstance(content, dict):
        return None
    given = (content.get(name) for name in ("token", "access_token"))
    return next(
        (one for one in given if isinstance(one, str) and _TOKEN.fullmatch(one) is not None), None
    )


def _lifetime(content: Mapping[str, Any]) -> timedelta:
    seconds = content.get("expires_in")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
        return _DEFAULT_LIFETIME
    return timedelta(seconds=min(seconds, _MAX_LIFETIME.total_seconds()))


def _age(content: Mapping[str, Any], headers: httpx.Headers) -> timedelta:
    """How long ago it was issued, both times by the realm's own clock."""
    try:
        issued_at = datetime.fromisoformat(content["issued_at"])
        said_at = parsedate_to_datetime(headers["date"])
    except (KeyError, TypeError, ValueError):
        return timedelta()
    age = said_at.astimezone(UTC) - issued_at.astimezone(UTC)
    # The header has no fractions: a token of just now may seem to be from later.
    return max(age, timedelta())


def _basic(registry: str, credential: Credential) -> str:
    if ":" in credential.username:
        # RFC 7617, section 2.
        raise LoginUnusable(registry, credential.source, "a user's name cannot have a colon")
    pair = f"{credential.username}:{credential.password}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"
