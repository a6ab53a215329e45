"""A push is attended to its end, through restarts of its server and the ends of its tokens."""

import asyncio
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError

from layover.client import api
from layover.client.address import Server
from layover.client.errors import ClientError, ServerFailed, ServerUnreachable
from layover.client.push_errors import LoginRefused
from layover.client.pushes import PushesClient
from layover.client.pushing import Attendance, Granted, Pace, to_wire
from layover.client.registry_authorization import RegistryAuthorization, Scheme
from layover.oci.references import Destination, Place
from layover.rpc.layover.v1 import pushes_pb as pb
from layover.rpc.layover.v1.pushes_connect import PushesServiceASGIApplication
from tests.unit.cli.exchange import listening
from tests.unit.cli.fake_pushes import PLACE, PUSH, STARTED, TO, FakePushes, push

THERE = Destination.parse(TO).place
RUNNING, DONE = push(pb.PushStatus.RUNNING), push(pb.PushStatus.DONE)
WAITING = push(pb.PushStatus.RUNNING, waits_for=[PLACE])
AWAY = ConnectError(Code.UNAVAILABLE, "away for a moment")
FAULT = ConnectError(Code.INTERNAL, "a fault")


def token(number: int, lasts: timedelta = timedelta(hours=1)) -> Granted:
    expires_at = STARTED + lasts
    return {THERE: RegistryAuthorization(Scheme.BEARER, f"token{number}", expires_at)}


class Attended:
    """A push that somebody waits for, on a server whose clock goes on with each answer."""

    def __init__(self, service: FakePushes, url: str) -> None:
        self.service, self.url = service, url
        self.granted = token(0)
        self.grants: list[Granted | ClientError] = []
        self.asked = 0
        self.shown: list[pb.PushStatus] = []
        self.notices: list[str] = []
        self.patience = timedelta(minutes=5)
        self.step = timedelta(seconds=1)

    def now(self) -> datetime:
        return STARTED + self.service.asks * self.step

    async def authorize(self) -> Granted:
        grant = self.grants[min(self.asked, len(self.grants) - 1)]
        self.asked += 1
        if isinstance(grant, ClientError):
            raise grant
        return grant

    def to_its_end(self, *answers: pb.Push | ConnectError) -> pb.Push:
        self.service.answer(*answers)

        async def attend() -> pb.Push:
            async with PushesClient(Server(self.url, "t"), env={}) as client:
                return await Attendance(
                    client,
                    PUSH,
                    self.granted,
                    self.authorize,
                    show=lambda push: self.shown.append(push.status),
                    notice=self.notices.append,
                    now=self.now,
                    pace=Pace(ask_every=timedelta(milliseconds=5), patience=self.patience),
                ).to_its_end()

        return asyncio.run(attend())

    @property
    def sent(self) -> list[str]:
        """The tokens that the server was given, in order."""
        return [
            one.authorization.value.token
            for request in self.service.heard("authorize")
            for one in request.authorizations
        ]


@pytest.fixture
def attended(monkeypatch: pytest.MonkeyPatch) -> Iterator[Attended]:
    monkeypatch.setattr(api, "_FIRST_PAUSE_SECONDS", 0.001)
    service = FakePushes()
    with listening(PushesServiceASGIApplication(service)) as url:
        yield Attended(service, url)


def test_a_push_is_shown_each_time_that_it_is_asked_for_and_returned_at_its_end(
    attended: Attended,
) -> None:
    assert attended.to_its_end(push(pb.PushStatus.QUEUED), RUNNING, DONE).status is DONE.status
    assert attended.shown == [pb.PushStatus.QUEUED, pb.PushStatus.RUNNING, pb.PushStatus.DONE]
    assert attended.notices == []
    assert attended.asked == 0


@pytest.mark.parametrize("error", [AWAY, FAULT], ids=["away", "failing"])
def test_a_server_that_comes_back_goes_on_with_the_push_and_so_does_who_waits(
    attended: Attended, error: ConnectError
) -> None:
    assert attended.to_its_end(RUNNING, *[error] * 9, RUNNING, DONE).status is DONE.status
    gone, back = attended.notices
    assert error.message in gone
    assert back == "The server is back"


def test_a_server_that_stays_away_is_told_when_patience_is_over(attended: Attended) -> None:
    attended.patience = timedelta(seconds=10)
    with pytest.raises(ServerUnreachable):
        attended.to_its_end(RUNNING, AWAY)
    assert attended.service.asks > 10


@pytest.mark.parametrize(
    "code", [Code.UNAUTHENTICATED, Code.PERMISSION_DENIED, Code.NOT_FOUND], ids=str
)
def test_what_patience_does_not_change_is_told_at_once(attended: Attended, code: Code) -> None:
    with pytest.raises(ClientError) as caught:
        attended.to_its_end(RUNNING, ConnectError(code, "no"))
    assert not isinstance(caught.value, ServerUnreachable | ServerFailed)
    assert attended.service.asks == 2


def test_a_token_is_renewed_once_two_thirds_of_its_life_are_over(attended: Attended) -> None:
    attended.granted = token(0, timedelta(seconds=60))
    attended.grants = [token(1)]
    attended.step = timedelta(seconds=5)
    attended.to_its_end(*[RUNNING] * 7, DONE)
    assert attended.sent == []
    attended.to_its_end(*[RUNNING] * 20, DONE)
    assert attended.sent == ["token1"]


def test_a_token_of_seconds_is_renewed_again_and_again(attended: Attended) -> None:
    attended.granted = token(0, timedelta(seconds=5))
    attended.grants = [token(number, timedelta(seconds=5 * number + 5)) for number in range(1, 9)]
    attended.to_its_end(*[RUNNING] * 24, DONE)
    assert attended.sent[:3] == ["token1", "token2", "token3"]
    # Not at each look, though: the fourth of these has to have reached the server first.
    assert attended.asked < 12


def test_what_the_push_waits_for_is_sent_also_where_it_has_long_to_live(
    attended: Attended,
) -> None:
    attended.grants = [token(1)]
    attended.to_its_end(RUNNING, RUNNING, WAITING, WAITING, *[RUNNING] * 9, DONE)
    assert attended.sent == ["token1"]


def test_a_login_that_is_gone_is_told_once_and_tried_again(attended: Attended) -> None:
    refused = LoginRefused("ghcr.io", "config.json")
    attended.grants = [refused, refused, token(1)]
    attended.to_its_end(*[WAITING] * 30, *[RUNNING] * 4, DONE)
    assert attended.asked >= 3
    assert attended.sent[0] == "token1"
    assert attended.notices == [f"warning: {refused}"]


def test_a_push_that_ends_while_its_token_is_renewed_has_ended_well(attended: Attended) -> None:
    ended = ConnectError(Code.FAILED_PRECONDITION, "push has ended: it is done")
    attended.service.refusals["authorize"] = ended
    attended.grants = [token(1)]
    assert attended.to_its_end(*[WAITING] * 4, DONE).status is DONE.status


def test_each_place_gets_what_its_registry_takes() -> None:
    basic, none = Place("basic.example", THERE.repository), Place("open.example", THERE.repository)
    endless = Place("endless.example", THERE.repository)
    made: list[Any] = to_wire(
        {
            none: RegistryAuthorization(),
            **token(1),
            basic: RegistryAuthorization(Scheme.BASIC, username="ann", password="a:b"),
            endless: RegistryAuthorization(Scheme.BEARER, "for ever"),
        }
    )
    first, second, third = made
    assert (first.place, first.authorization.field) == ("basic.example/acme/app", "basic")
    credentials = first.authorization.value
    assert (credentials.username, credentials.password) == ("ann", "a:b")
    assert (second.authorization.value.token, second.authorization.value.expires_at) == (
        "for ever",
        None,
    )
    assert third.place == PLACE
    expires_at = third.authorization.value.expires_at.to_datetime()
    assert expires_at == STARTED + timedelta(hours=1)
