"""Listings read well on a terminal and exactly in a script."""

import json
import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from protobuf.wkt import Timestamp

from layover.cli import picker
from layover.cli.build_rows import COLUMNS, build_row, builds_csv, is_saved, shown_row
from layover.cli.errors import explain
from layover.cli.output import (
    Column,
    age,
    as_csv,
    left,
    print_rows,
    printable_lines,
    rfc3339,
    size,
    span,
)
from layover.client.errors import RequestRefused
from layover.rpc.layover.v1.builds_pb import Build, BuildStatus

NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)


def build(build_id: str = "aaaaaaaaaa", **more: object) -> Build:
    created = Timestamp.from_datetime(NOW - timedelta(hours=3))
    return Build(id=build_id, status=BuildStatus.FINISHED, created_at=created, **more)  # type: ignore[arg-type]  # a test names what it needs


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-1, "0.0s"),
        (0.44, "0.4s"),
        (42, "42s"),
        (185, "3m 5s"),
        (3599, "59m"),
        (3600, "1h"),
        (86400 * 1.5, "36h"),
        (86400 * 7, "7d"),
    ],
)
def test_a_span_is_in_the_unit_that_says_it(seconds: float, shown: str) -> None:
    assert span(timedelta(seconds=seconds)) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-1, "now"),
        (0.4, "now"),
        (42.9, "in 42 s"),
        (60, "in 1 min"),
        (185, "in 3 min 5 s"),
        (3599, "in 59 min 59 s"),
        (3600 + 59, "in 1 h"),
        (3600 * 36, "in 1 d 12 h"),
        (86400 * 7, "in 7 d"),
        (86400 * 7 - 1, "in 6 d 23 h"),
        (86400 * 6 + 3600 * 4 + 1800, "in 6 d 4 h"),
    ],
)
def test_what_is_left_is_told_in_two_units_and_never_too_much(seconds: float, shown: str) -> None:
    assert left(NOW + timedelta(seconds=seconds), NOW) == shown


def test_a_row_has_when_the_build_expires_and_how_long_that_is() -> None:
    until = NOW + timedelta(days=6, hours=4, milliseconds=7)
    saved = build(expires_at=Timestamp.from_datetime(until))
    row = build_row(saved, NOW)
    assert (row["expiresAt"], row["expiresIn"]) == ("2026-01-08T16:00:00.007Z", "in 6 d 4 h")
    assert shown_row(saved, NOW)["expires"] == "in 6 d 4 h"
    assert builds_csv([saved], NOW).splitlines()[1].endswith("2026-01-08T16:00:00.007Z,in 6 d 4 h")


def test_a_build_that_runs_has_no_end_yet() -> None:
    row = build_row(build(), NOW)
    assert row["expiresAt"] is row["expiresIn"] is None
    assert shown_row(build(), NOW)["expires"] == ""


def test_what_has_not_happened_has_no_span() -> None:
    assert span(None) == age(None, NOW) == ""


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0B"),
        (999, "999B"),
        (1000, "1kB"),
        (1_234_567, "1.23MB"),
        (5 * 10**9, "5GB"),
        (7 * 10**15, "7000TB"),
        (999_999, "1000kB"),
        (45_600, "45.6kB"),
    ],
)
def test_a_size_is_in_decimal_units(count: int, shown: str) -> None:
    assert size(count) == shown


def test_times_are_rfc_3339_in_utc() -> None:
    east = timezone(timedelta(hours=2))
    assert rfc3339(datetime(2026, 1, 2, 3, 4, 5, 678900, east)) == "2026-01-02T01:04:05.678Z"
    assert rfc3339(None) is None


def test_a_build_s_row_begins_with_its_id_and_status() -> None:
    row = build_row(build(tags=["a:1", "b:2"], size_bytes=3682), NOW)
    assert [*row][:3] == ["id", "status", "createdAt"]
    assert row["status"] == "finished"
    assert row["saved"] is True
    assert json.loads(json.dumps(row)) == row
    assert builds_csv([build(tags=["a:1", "b:2"])], NOW).splitlines()[1].split(",")[7] == "a:1 b:2"


def test_no_builds_are_an_empty_list_in_json_and_a_heading_in_csv(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_rows([], [], COLUMNS, "json")
    assert json.loads(capsys.readouterr().out) == []
    assert builds_csv([], NOW).startswith("id,status")


def test_a_table_off_a_terminal_is_never_folded(capsys: pytest.CaptureFixture[str]) -> None:
    tags = [f"registry.example.com/a/very/long/name:{n}" for n in range(20)]
    shown = [shown_row(build(tags=tags), NOW)]
    print_rows([], shown, COLUMNS, "table")
    heading, line = capsys.readouterr().out.splitlines()
    assert heading.split() == ["ID", "STATUS", "AGE", "DURATION", "SIZE", "EXPIRES", "TAGS"]
    assert line.split()[:3] == ["aaaaaaaaaa", "finished", "3h"]
    assert tags[-1] in line


def test_markup_in_a_tag_is_only_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([], [shown_row(build(tags=["[bold]a[/bold]"]), NOW)], COLUMNS, "table")
    assert "[bold]a[/bold]" in capsys.readouterr().out


def test_a_running_build_s_duration_grows() -> None:
    started = Timestamp.from_datetime(NOW - timedelta(seconds=20))
    running = Build(id="a", status=BuildStatus.RUNNING, created_at=started, started_at=started)
    assert shown_row(running, NOW)["duration"] == "20s"
    assert build_row(running, NOW)["durationSeconds"] is None
    assert not is_saved(running)


def test_the_picker_s_columns_stand_under_their_headings() -> None:
    heading, *rows = picker.lines(
        [build("aaaaaaaaaa", tags=["x" * 100]), build("bbbbbbbbbb", size_bytes=10**9)], NOW
    )
    assert heading.split() == ["ID", "STATUS", "AGE", "DURATION", "SIZE", "EXPIRES", "TAGS"]
    assert [row[:10] for row in rows] == ["aaaaaaaaaa", "bbbbbbbbbb"]
    assert rows[0].index("xxx") == heading.index("TAGS")
    assert rows[0].endswith("…")
    assert heading.index("STATUS") == rows[1].index("finished")


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r")), min_size=1))
def test_csv_is_read_back(values: list[str]) -> None:
    import csv
    import io

    rows = [{"id": value, "b": None, "c": [value, 1], "d": True} for value in values]
    read = list(csv.DictReader(io.StringIO(as_csv(rows), newline="")))
    assert [row["id"] for row in read] == values
    assert {row["d"] for row in read} == {"true"}


def test_what_a_server_says_drives_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    escape = "\x1b]52;c;aGk=\x1b\\"
    found = build(tags=[f"app:{escape}"])
    print_rows([], [shown_row(found, NOW)], COLUMNS, "table")
    print(explain(RequestRefused(f"the build failed: {escape}\nsecond line")))
    print(printable_lines(f"a\tb{escape}\nc"))
    print_rows([], [{"claims": "ref=main\naud=layover"}], [Column("CLAIMS", "claims")], "table")
    told = capsys.readouterr().out
    assert "\x1b" not in told
    assert "\nsecond line" in told
    assert "\nc" in told
    assert "ref=main\naud=layover" in re.sub(" +\n", "\n", told)
