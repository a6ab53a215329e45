from collections.abc import Sequence
from datetime import timedelta
from hashlib import sha256

import pytest

from layover.audit.log import AuditLog
from layover.audit.models import AuditEvent, Result
from layover.audit.ports import Named
from layover.identity.ids import new_secret, public_part
from layover.identity.models import Grant, Organization, Principal, Role, TokenKind
from layover.identity.origin import Origin
from tests.unit.audit.memory import MemoryAuditStore
from tests.unit.builds.world import FOREIGN_PROJECT, PROJECT, World

pytestmark = pytest.mark.anyio

ORIGIN = Origin("192.0.2.1", "docker/29.0", "0123456789abcdef")


class Logged:
    """A log over memory, by clocks that a test moves."""

    def __init__(self) -> None:
        self.world = World()
        self.store = MemoryAuditStore()
        self.seconds = 0.0
        self.log = AuditLog(
            self.store,
            self.world.audit_places,
            self.world.identity,
            self.world.clock,
            lambda: self.seconds,
        )

    async def places(self, by: Principal | None) -> Sequence[tuple[str | None, str | None]]:
        await self.log.record("x.do", by, ORIGIN)
        return [(event.organization_id, event.project_id) for event in self.store.events]

    def pass_by(self, seconds: float) -> None:
        self.seconds += seconds
        self.world.clock.advance(seconds=seconds)


async def test_an_event_says_who_what_where_from_where_and_how_it_ended() -> None:
    logged = Logged()
    project = await logged.world.identity_store.find_project(PROJECT)
    user = Principal("t1", TokenKind.USER, user_id="u1", name="Zoë", roles={"org1": Role.OWNER})
    await logged.log.record(
        "tokens.create", user, ORIGIN, where=project, subject="t9", details={"kind": "pull"}
    )
    assert logged.store.events == [
        AuditEvent(
            id=1,
            at=logged.world.clock(),
            organization_id="org1",
            project_id=PROJECT,
            actor_kind="user",
            actor_id="u1",
            actor_name="Zoë",
            action="tokens.create",
            subject="t9",
            result=Result.DONE,
            address="192.0.2.1",
            request_id="0123456789abcdef",
            details={"kind": "pull", "client": "docker/29.0", "token_id": "t1"},
        )
    ]


async def test_of_a_token_that_is_no_users_its_id_is_told() -> None:
    logged = Logged()
    await logged.log.record("x.do", logged.world.project_token, ORIGIN)
    (event,) = logged.store.events
    assert (event.actor_kind, event.actor_id) == ("project", "t3")
    assert "token_id" not in event.details


@pytest.mark.parametrize(
    ("by", "places"),
    [
        (None, [(None, None)]),
        (Principal("t", TokenKind.ORGANIZATION, "org1"), [("org1", None)]),
        (Principal("t", TokenKind.PULL, "org1", project_id=PROJECT), [("org1", PROJECT)]),
        (
            Principal("t", TokenKind.USER, roles={"org2": Role.VIEWER, "org1": Role.OWNER}),
            [("org1", None), ("org2", None)],
        ),
        (Principal("t", TokenKind.USER, user_id="u"), [(None, None)]),
        (
            Principal("t", TokenKind.CI, grants={FOREIGN_PROJECT: Grant.PULL}),
            [("org2", FOREIGN_PROJECT)],
        ),
        (Principal("t", TokenKind.CI), [(None, None)]),
    ],
)
async def test_what_is_nowhere_in_particular_is_in_the_log_of_who_did_it(
    by: Principal | None, places: list[tuple[str | None, str | None]]
) -> None:
    assert await Logged().places(by) == places


async def test_what_is_done_to_an_organization_is_in_its_log_alone() -> None:
    logged = Logged()
    organization = Organization("org2", "two", logged.world.clock())
    await logged.log.record("members.remove", logged.world.user, ORIGIN, where=organization)
    assert [event.organization_id for event in logged.store.events] == ["org2"]


async def test_texts_of_strangers_are_cleaned_wherever_they_stand() -> None:
    logged = Logged()
    secret = new_secret()
    bad = f"\x1b[2J{secret}{'x' * 5000}"
    by = Principal("t", TokenKind.PROJECT, "org1", project_id=PROJECT, name=bad)
    origin = Origin(bad, bad, "id")
    await logged.log.record("x.do", by, origin, subject=bad, details={"note": bad, "empty": ""})
    await logged.log.login_refused("login.token", origin, details={"note": bad})
    await logged.log.close()
    for event in logged.store.events:
        assert "empty" not in event.details
        texts = (event.actor_name, event.subject, event.address, *event.details.values())
        assert all(len(text) <= 256 and text.isprintable() for text in texts)
        assert secret not in repr(event)
    assert len(logged.store.events) == 2


async def test_every_change_is_an_event_of_its_own() -> None:
    logged = Logged()
    for _ in range(3):
        await logged.log.record("x.do", logged.world.user, ORIGIN, subject="s")
    assert len(logged.store.events) == 3


async def test_what_a_caller_is_denied_again_and_again_is_two_events_a_minute() -> None:
    logged = Logged()
    for at in range(100):
        await logged.log.record(
            "x.do", logged.world.user, ORIGIN, subject=f"s{at}", result=Result.DENIED
        )
    await logged.log.record("x.do", logged.world.foreigner, ORIGIN, result=Result.DENIED)
    assert [event.subject for event in logged.store.events] == ["s0", ""]
    logged.pass_by(60)
    await logged.log.write_counted()
    assert [event.details.get("times") for event in logged.store.events] == [None, None, "99"]
    assert logged.store.events[-1].subject == "s99"


async def test_logins_that_are_counted_are_one_event_until_their_minute_is_over() -> None:
    logged = Logged()
    for _ in range(5):
        await logged.log.record("login.registry", logged.world.puller, ORIGIN, is_counted=True)
    assert len(logged.store.events) == 1
    await logged.log.close()
    assert [event.details.get("times") for event in logged.store.events] == [None, "4"]


async def test_a_flood_of_refused_logins_is_bounded_however_many_addresses_it_has() -> None:
    logged = Logged()
    for at in range(5_000):
        origin = Origin(f"10.0.{at // 256}.{at % 256}", "curl", "")
        await logged.log.login_refused("login.token", origin, token=f"layover_{at:040}")
    await logged.log.close()
    events = logged.store.events
    assert len(events) < 1_100
    assert sum(int(event.details.get("times", "1")) for event in events) == 5_000
    assert {event.organization_id for event in events} == {None}
    assert any(event.details.get("addresses") == "many" for event in events)


async def test_addresses_of_one_ipv6_network_are_one_strangers() -> None:
    logged = Logged()
    for at in range(50):
        await logged.log.login_refused("login.token", Origin(f"2001:db8::{at:x}"))
    await logged.log.close()
    assert len(logged.store.events) == 2


async def test_a_token_that_is_over_is_told_to_whose_it_was_and_never_whole() -> None:
    logged = Logged()
    secret = new_secret()
    was = Principal("t9", TokenKind.PROJECT, "org1", project_id=PROJECT, name="of the pipeline")
    logged.world.audit_places.holders[sha256(secret.encode()).digest()] = was
    await logged.log.login_refused("login.registry", ORIGIN, token=secret)
    await logged.log.login_refused("login.registry", ORIGIN, token=new_secret())
    await logged.log.login_refused("login.registry", ORIGIN, token="eyJhbGciOiJub25lIn0.e30.")
    await logged.log.close()
    known, stranger, counted = logged.store.events
    assert (known.organization_id, known.project_id, known.actor_id) == ("org1", PROJECT, "t9")
    assert known.details["token"] == public_part(secret)
    assert (stranger.organization_id, stranger.actor_kind) == (None, "nobody")
    assert "token" not in counted.details
    assert secret not in repr(logged.store.events)


async def test_a_place_is_told_to_nobody_who_does_not_see_it() -> None:
    logged = Logged()
    user = logged.world.user
    place = await logged.log.place_of(user, Named.PROJECT, PROJECT)
    assert place is not None
    assert place.id == PROJECT
    organization = await logged.log.place_of(user, Named.ORGANIZATION, "org1")
    assert organization is not None
    assert organization.id == "org1"
    for named, key in (
        (Named.PROJECT, FOREIGN_PROJECT),
        (Named.PROJECT, "never-was"),
        (Named.PROJECT, ""),
        (Named.PROJECT, PROJECT * 100),
        (Named.ORGANIZATION, "org2"),
        (Named.BUILD, "never-was"),
        (Named.TOKEN, "never-was"),
    ):
        assert await logged.log.place_of(user, named, key) is None


async def test_a_refused_login_waits_for_no_database() -> None:
    logged = Logged()
    logged.store.is_open.clear()
    await logged.log.login_refused("login.password", ORIGIN, by=logged.world.user)
    assert logged.store.events == []
    logged.store.is_open.set()
    await logged.log.close()
    (event,) = logged.store.events
    assert (event.organization_id, event.result) == ("org1", Result.DENIED)


async def test_what_is_older_than_it_is_to_be_kept_is_forgotten_whatever_number_it_is() -> None:
    logged = Logged()
    for _ in range(1_201):
        await logged.log.record("x.do", logged.world.project_token, ORIGIN)
    logged.pass_by(60)
    await logged.log.record("x.do", logged.world.project_token, ORIGIN, subject="young")
    assert await logged.log.forget_older_than(timedelta(seconds=60)) == 0
    assert await logged.log.forget_older_than(timedelta(seconds=59)) == 1_201
    assert [event.subject for event in logged.store.events] == ["young"]
