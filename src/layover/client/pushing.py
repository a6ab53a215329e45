"""Staying with a push that the server does: asking how it stands, and keeping it authorized.

The push needs nobody for its own work. What it shows its registries runs out after minutes,
though, and only whoever asked for the push can get that anew.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from protobuf import Oneof
from protobuf.wkt import Timestamp

from layover.client.errors import ServerFailed, ServerUnreachable
from layover.client.pushes import PushesClient, has_ended
from layover.client.registry_authorization import RegistryAuthorization, Scheme
from layover.errors import LayoverError
from layover.oci.references import Place
from layover.rpc.layover.v1.pushes_pb import (
    BasicCredentials,
    BearerToken,
    PlaceAuthorization,
    Push,
)

Granted = Mapping[Place, RegistryAuthorization]

# Gets what authorizes the push at each of its places. Raises a LayoverError.
Authorize = Callable[[], Awaitable[Granted]]

# The part of its life after which an authorization is renewed.
_RENEWED_AFTER = 2 / 3


@dataclass(frozen=True, slots=True)
class Pace:
    """How often what is done while a push goes on."""

    ask_every: timedelta = timedelta(seconds=1 / 3)
    """What is drawn of it moves with that."""
    ask_first_after: timedelta = timedelta(milliseconds=50)
    """Where everything is there already a push is done at once; from look to look it doubles."""
    patience: timedelta = timedelta(minutes=5)
    """How long the server may be away: one that is started again goes on with the push."""
    renew_at_most_every: timedelta = timedelta(seconds=2)
    """The server hears of a renewal, and goes on, within that time."""
    retry_renewal_after: timedelta = timedelta(seconds=10)
    """What could not be renewed can be perhaps then, its registry being back."""


def to_wire(granted: Granted) -> list[PlaceAuthorization]:
    """Authorizations as the server takes them: none for a registry that asks nobody."""
    return [
        _place_authorization(place, one)
        for place, one in sorted(granted.items(), key=lambda item: item[0])
        if one.scheme is not Scheme.NONE
    ]


class Attendance:
    """Attends a push to its end."""

    def __init__(
        self,
        client: PushesClient,
        push_id: str,
        granted: Granted,
        authorize: Authorize,
        *,
        show: Callable[[Push], None],
        notice: Callable[[str], None],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        pace: Pace | None = None,
    ) -> None:
        """`granted` is what the push was given at its start. `show` is told how it stands each
        time, `notice` what the user is to know beside that."""
        self._client, self._push_id, self._authorize = client, push_id, authorize
        self._show, self._notice = show, notice
        self._now, self._pace = now, pace or Pace()
        self._granted, self._granted_at = granted, now()
        self._not_before = self._granted_at + self._pace.renew_at_most_every
        self._renewal: asyncio.Task[None] | None = None
        self._problem = self._told_problem = ""

    async def to_its_end(self) -> Push:
        """Return the push once it has ended. Raises a ClientError when nobody can tell."""
        pause = self._pace.ask_first_after
        try:
            while True:
                push = await self._ask()
                self._show(push)
                if has_ended(push):
                    return push
                if self._problem not in ("", self._told_problem):
                    self._told_problem = self._problem
                    self._notice(f"warning: {self._problem}")
                self._keep_authorized(push)
                await asyncio.sleep(min(pause, self._pace.ask_every).total_seconds())
                pause = min(2 * pause, self._pace.ask_every)
        finally:
            if self._renewal is not None:
                self._renewal.cancel()
                await asyncio.wait({self._renewal})

    async def _ask(self) -> Push:
        away_since = None
        while True:
            try:
                push = await self._client.get_push(self._push_id)
            except (ServerUnreachable, ServerFailed) as error:
                if away_since is None:
                    away_since = self._now()
                    self._notice(f"{error}. It goes on with the push once it is back")
                elif self._now() - away_since > self._pace.patience:
                    raise
                await asyncio.sleep(self._pace.ask_every.total_seconds())
            else:
                if away_since is not None:
                    self._notice("The server is back")
                return push

    def _keep_authorized(self, push: Push) -> None:
        if self._renewal is not None:
            if not self._renewal.done():
                return
            self._renewal.result()
        now = self._now()
        if now >= self._not_before and (push.waits_for or self._is_running_out(now)):
            # Beside the asking: a registry that is slow to answer stops no progress bar.
            self._renewal = asyncio.create_task(self._renew())

    def _is_running_out(self, now: datetime) -> bool:
        return any(
            now >= self._granted_at + (one.expires_at - self._granted_at) * _RENEWED_AFTER
            for one in self._granted.values()
            if one.expires_at is not None
        )

    async def _renew(self) -> None:
        asked_at = self._now()
        pause = self._pace.renew_at_most_every
        try:
            granted = await self._authorize()
            await self._client.authorize_push(self._push_id, to_wire(granted))
        except (ServerUnreachable, ServerFailed):
            pass  # Who asks how the push stands tells this.
        except LayoverError as error:
            self._problem, pause = str(error), self._pace.retry_renewal_after
        else:
            self._problem = self._told_problem = ""
            self._granted, self._granted_at = granted, asked_at
        self._not_before = self._now() + pause


def _place_authorization(place: Place, granted: RegistryAuthorization) -> PlaceAuthorization:
    if granted.scheme is Scheme.BASIC:
        credentials = BasicCredentials(username=granted.username, password=granted.password)
        basic: Oneof[Literal["basic"], BasicCredentials] = Oneof("basic", credentials)
        return PlaceAuthorization(place=str(place), authorization=basic)
    token = BearerToken(token=granted.token)
    if granted.expires_at is not None:
        token.expires_at = Timestamp.from_datetime(granted.expires_at)
    bearer: Oneof[Literal["bearer"], BearerToken] = Oneof("bearer", token)
    return PlaceAuthorization(place=str(place), authorization=bearer)
