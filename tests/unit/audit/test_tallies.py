from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from layover.audit.models import AuditEvent, Result
from layover.audit.tallies import Tallies
from tests.stores import NOW

EVENT = AuditEvent(NOW, "org", None, "user", "u1", "", "login", "", Result.DENIED, "192.0.2.1", "")


class Counted:
    """Tallies by a clock that stands still until a test moves it."""

    def __init__(self, max_kinds: int = 3) -> None:
        self.seconds = 0.0
        self.tallies = Tallies(max_kinds, lambda: self.seconds)

    def add(self, kind: str, subject: str = "") -> list[AuditEvent]:
        at = NOW + timedelta(seconds=self.seconds)
        return self.tallies.add(kind, replace(EVENT, at=at, subject=subject))


def test_the_first_is_told_at_once_and_the_rest_of_its_minute_as_one() -> None:
    counted = Counted()
    assert [event.subject for event in counted.add("a", "first")] == ["first"]
    for at in range(3):
        counted.seconds = 10.0 * at
        assert counted.add("a", str(at)) == []
    counted.seconds = 59.0
    assert counted.tallies.due() == []
    counted.seconds = 60.0
    (told,) = counted.tallies.due()
    assert (told.subject, told.at) == ("2", NOW + timedelta(seconds=20))
    assert told.details == {"times": "3", "since": "2026-01-01T12:00:00+00:00"}
    assert counted.tallies.due() == []
    assert len(counted.add("a")) == 1, "a minute of its own"


def test_one_that_stays_alone_is_told_once() -> None:
    counted = Counted()
    counted.add("a")
    counted.seconds = 60.0
    assert counted.tallies.due() == []


def test_kinds_are_counted_apart() -> None:
    counted = Counted()
    assert len(counted.add("a")) == 1
    assert len(counted.add("b")) == 1
    counted.add("b")
    assert [event.details["times"] for event in counted.tallies.end()] == ["1"]
    assert counted.tallies.end() == []


def test_where_there_are_too_many_kinds_the_oldest_is_told_and_makes_room() -> None:
    counted = Counted(max_kinds=2)
    for kind in ("a", "b", "a"):
        counted.add(kind, kind)
    assert counted.tallies.is_full_for("c")
    assert not counted.tallies.is_full_for("a")
    assert [event.subject for event in counted.add("c", "c")] == ["a", "c"]


@given(kinds=st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 50)), max_size=60))
def test_every_event_is_told_or_counted_once(kinds: list[tuple[str, int]]) -> None:
    counted = Counted()
    told: list[AuditEvent] = []
    for kind, seconds in kinds:
        counted.seconds += seconds
        told += counted.add(kind)
    told += counted.tallies.end()
    assert sum(int(event.details.get("times", "1")) for event in told) == len(kinds)
