"""What lets the server push to a registry in the user's name, and no more than that.

    authorizations = await authorize([place, other], env)

The user's own login stays here. It is shown to the registry, or to where that has clients sign in,
for a token that is over soon and is good for the repository alone: that goes to the server. Only
where a registry knows no tokens is it the login itself. Renewing is asking again.
"""

import asyncio
import base64
import json
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from typing import Any, TypeVar

from layover.client.docker_logins import Credential
from layover.client.push_errors import LoginMissing, LoginRefused, LoginUnusable
from layover.client.registry_credentials import credential_of_environment, find_credential
from layover.client.registry_dialing import Dialing, dialing, patiently
from layover.client.registry_realms import choose_realm
from layover.client.registry_tokens import (
    Greeting,
    IssuedToken,
    check_basic,
    fetch_token,
    greet,
)
from layover.oci.references import Place
from layover.outbound.client import Resolve, system_resolve

Result = TypeVar("Result")


class Scheme(StrEnum):
    """How the server shows the registry that it may push."""

    NONE = "none"
    """Not at all: the registry asks nobody."""
    BEARER = "bearer"
    BASIC = "basic"


@dataclass(frozen=True, slots=True)
class RegistryAuthorization:
    """What the server is handed for a place."""

    scheme: Scheme = Scheme.NONE
    token: str = field(default="", repr=False)
    """For Bearer alone."""
    expires_at: datetime | None = None
    """When the token is over, by this machine's clock."""
    username: str = field(default="", repr=False)
    """For Basic alone."""
    password: str = field(default="", repr=False)


def _now() -> datetime:
    return datetime.now(UTC)


async def authorize(
    places: Sequence[Place],
    env: Mapping[str, str],
    *,
    resolve: Resolve = system_resolve,
    now: Callable[[], datetime] = _now,
) -> dict[Place, RegistryAuthorization]:
    """What the server is handed for all the places of one push.

    A place's token also pulls from the others of the same registry, so that what is in one can be
    mounted in the next. Raises LoginMissing, LoginRefused, LoginUnusable, HelperFailed,
    DockerConfigInvalid, RegistryUnreachable, RegistryNotTrusted, RealmRefused, and RegistryInvalid
    for what LAYOVER_INSECURE_REGISTRIES lists.
    """
    places = list(dict.fromkeys(places))
    dial = dialing(env, resolve)
    registries = {place.registry: place for place in reversed(places)}
    greeted = await _together(
        patiently(partial(greet, place, dial)) for place in registries.values()
    )
    greetings = dict(zip(registries, greeted, strict=True))
    asked = [place for place in places if greetings[place.registry].challenges]
    credentials = await _find_credentials(asked, env)

    async def one(place: Place) -> RegistryAuthorization:
        greeting, credential = greetings[place.registry], credentials.get(place)
        if greeting.challenge("bearer") is not None:
            beside = [other for other in places if other.registry == place.registry]
            return await _bearer(place, beside, greeting, credential, dial, now)
        if greeting.challenges:
            return await _basic(place, greeting, credential, dial)
        return RegistryAuthorization()

    return dict(zip(places, await _together(one(place) for place in places), strict=True))


async def _find_credentials(
    places: Sequence[Place], env: Mapping[str, str]
) -> dict[Place, Credential]:
    # One after the other: a helper may ask its user to unlock something.
    found = {place: await find_credential(place, env) for place in places}
    left = [place for place in places if found[place] is None]
    registries = list(dict.fromkeys(place.registry for place in left))
    if left and (unnamed := credential_of_environment(registries[0], env)) is not None:
        if len(registries) > 1:
            # Nothing says whose password it is: the others would be shown it.
            reason = f"it is for one registry, and {', '.join(registries[1:])} needs a login, too"
            raise LoginUnusable(registries[0], unnamed.source, reason)
        found |= dict.fromkeys(left, unnamed)
    return {place: one for place, one in found.items() if one is not None}


async def _bearer(
    place: Place,
    beside: Sequence[Place],
    greeting: Greeting,
    credential: Credential | None,
    dial: Dialing,
    now: Callable[[], datetime],
) -> RegistryAuthorization:
    challenge = greeting.challenge("bearer")
    assert challenge is not None
    realm = choose_realm(
        place.registry,
        challenge,
        is_plain=greeting.is_plain,
        address=greeting.address,
        insecure_hosts=dial.insecure_hosts,
    )

    async def ask(scopes: Sequence[str]) -> IssuedToken:
        return await patiently(
            lambda: fetch_token(place.registry, realm, scopes, credential, dial, now())
        )

    push = f"repository:{place.repository}:pull,push"
    pulls = [f"repository:{other.repository}:pull" for other in beside if other != place]
    try:
        issued = await ask([push, *pulls])
    except (LoginMissing, LoginRefused):
        if not pulls:
            raise
        # Some refuse all for the sake of one; then nothing is mounted from that.
        issued = await ask([push])
    if credential is None and not _may_push(issued.token, place):
        raise LoginMissing(place.registry)
    return RegistryAuthorization(Scheme.BEARER, token=issued.token, expires_at=issued.expires_at)


async def _basic(
    place: Place, greeting: Greeting, credential: Credential | None, dial: Dialing
) -> RegistryAuthorization:
    if credential is None:
        raise LoginMissing(place.registry)
    await patiently(lambda: check_basic(place, greeting, credential, dial))
    return RegistryAuthorization(
        Scheme.BASIC, username=credential.username, password=credential.password
    )


def _may_push(token: str, place: Place) -> bool:
    """Whether the token of nobody in particular might push.

    Registries that let everybody read give everybody a token, and most say in it what it is good
    for, as distribution's "Token Authentication Implementation" has it. What cannot be read might.
    """
    _, _, rest = token.partition(".")
    payload = rest.partition(".")[0]
    try:
        claims: Any = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        access = claims["access"]
        return not isinstance(access, list) or any(
            one["name"] == str(place.repository) and {"push", "*"} & set(one["actions"])
            for one in access
        )
    except (ValueError, LookupError, TypeError, RecursionError):
        return True


async def _together(asks: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """All of them at a time; the first failure ends the others, and is raised."""
    tasks = [asyncio.create_task(ask) for ask in asks]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
