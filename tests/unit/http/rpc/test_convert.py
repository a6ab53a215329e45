from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from protobuf.wkt import Timestamp

from layover.builds.models import BuildOptions, BuildOutput, BuildStatus, Command
from layover.http.rpc.convert import (
    DEPOT_STATUSES,
    STATUSES,
    from_options,
    to_datetime,
    to_options,
    to_timed_steps,
    to_timestamp,
)
from layover.rpc.depot.cli.v1.build_pb import BuildStep

TEXTS = st.text(max_size=20)
OPTIONS = st.builds(
    BuildOptions,
    command=st.sampled_from(Command),
    tags=st.lists(TEXTS, max_size=3).map(tuple),
    outputs=st.lists(
        st.builds(
            BuildOutput,
            kind=TEXTS,
            attributes=st.dictionaries(TEXTS, TEXTS, max_size=3).map(
                lambda attributes: tuple(sorted(attributes.items()))
            ),
        ),
        max_size=2,
    ).map(tuple),
    push=st.booleans(),
    load=st.booleans(),
    target_name=st.none() | TEXTS,
    lint=st.booleans(),
    save=st.booleans(),
    save_tags=st.lists(TEXTS, max_size=3).map(tuple),
)


@given(st.lists(OPTIONS, max_size=3))
def test_options_survive_the_way_to_the_client_and_back(options: list[BuildOptions]) -> None:
    assert to_options(from_options(options)) == options


@given(st.datetimes(timezones=st.just(UTC)))
def test_times_survive_the_way_to_the_client_and_back(time: datetime) -> None:
    assert to_datetime(to_timestamp(time)) == time


@pytest.mark.parametrize("seconds", [2**62, -(2**62)])
def test_a_time_outside_of_history_is_none(seconds: int) -> None:
    assert to_datetime(Timestamp(seconds=seconds)) is None


def test_times_before_the_epoch_count_forward_as_the_protocol_wants() -> None:
    time = datetime(1970, 1, 1, tzinfo=UTC) - timedelta(milliseconds=1)
    assert to_timestamp(time) == Timestamp(seconds=-1, nanos=999_000_000)


def test_every_state_of_a_build_has_a_name_on_the_wire() -> None:
    assert set(STATUSES) == set(DEPOT_STATUSES) == set(BuildStatus)


@pytest.mark.parametrize(
    ("started", "duration_ms"),
    [(datetime(9999, 12, 31, tzinfo=UTC), 2**31 - 1), (datetime(1, 1, 1, tzinfo=UTC), -(2**31))],
)
def test_a_step_that_ends_outside_of_history_has_no_end(
    started: datetime, duration_ms: int
) -> None:
    told = BuildStep(name="x", start_time=to_timestamp(started), duration_ms=duration_ms)
    (step,) = to_timed_steps([told])
    assert (step.started_at, step.completed_at) == (started, None)
