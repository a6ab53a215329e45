"""Printing listings: tables for people, JSON and CSV for scripts."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import click

Value = str | int | float | bool | None | Sequence[Any] | Mapping[str, Any]
Row = Mapping[str, Value]

_UNITS = ("B", "kB", "MB", "GB", "TB")


@dataclass(frozen=True, slots=True)
class Column:
    """A table's column: its heading, and the field of a row that is shown there."""

    heading: str
    field: str
    is_number: bool = False


def print_rows(
    rows: Sequence[Row], shown: Sequence[Mapping[str, str]], columns: Sequence[Column], form: str
) -> None:
    """Print rows in a form; `shown` are the same rows as a table has them."""
    if form == "json":
        click.echo(json.dumps(list(rows), indent=2))
    elif form == "csv":
        click.echo(as_csv(rows), nl=False)
    else:
        _print_table(shown, columns)


def as_csv(rows: Sequence[Row]) -> str:
    """Rows as CSV with a heading line; lists are joined by spaces. No rows, no text."""
    buffer = io.StringIO()
    if rows:
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(rows[0])
        writer.writerows([_cell(value) for value in row.values()] for row in rows)
    return buffer.getvalue()


def _cell(value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    if isinstance(value, Mapping):
        return json.dumps(value)
    return " ".join(_cell(item) for item in value)


def _print_table(shown: Sequence[Mapping[str, str]], columns: Sequence[Column]) -> None:
    # Rich costs a tenth of a second to load, which JSON and CSV need not pay.
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(
            column.heading,
            justify="right" if column.is_number else "left",
            overflow="fold",
            no_wrap=column.field == "id",
        )
    for row in shown:
        table.add_row(*(printable_lines(row.get(column.field, "")) for column in columns))
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        # A pipe has no width: a table there is not folded.
        console = Console(highlight=False, markup=False, width=10_000)
    console.print(table)


def age(since: datetime | None, now: datetime) -> str:
    """How long ago, in the largest unit that says it: `5m`, `3h`, `2d`."""
    return "" if since is None else span(now - since)


def left(until: datetime | None, now: datetime) -> str:
    """How long until then, in two units at most: `in 6 d 4 h`, `in 12 min 5 s`, `in 42 s`.

    What is left of the last unit is not counted: nothing is gone sooner than told.
    """
    if until is None:
        return ""
    seconds = int((until - now).total_seconds())
    if seconds <= 0:
        return "now"
    for unit, size, smaller, rest in (
        ("d", 86_400, "h", 3_600),
        ("h", 3_600, "min", 60),
        ("min", 60, "s", 1),
    ):
        if seconds >= size:
            more = seconds % size // rest
            return f"in {seconds // size} {unit}" + (f" {more} {smaller}" if more else "")
    return f"in {seconds} s"


def span(duration: timedelta | None) -> str:
    """A duration for a table: `0.4s`, `42s`, `3m 5s`, `3h`, `2d`."""
    if duration is None:
        return ""
    seconds = max(duration.total_seconds(), 0.0)
    if seconds < 10:
        return f"{seconds:.1f}s"
    if seconds < 60:
        return f"{seconds:.0f}s"
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if minutes < 10:
        return f"{minutes}m {int(seconds % 60)}s"
    if hours < 1:
        return f"{minutes}m"
    if days < 2:
        return f"{hours}h"
    return f"{days}d"


def size(count: int) -> str:
    """A number of bytes in decimal units, as Docker shows them."""
    amount, unit = float(count), 0
    while amount >= 1000 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1000, unit + 1
    if unit == 0:
        return f"{count}B"
    digits = 2 if amount < 10 else 1 if amount < 100 else 0
    text = f"{amount:.{digits}f}"
    return (text.rstrip("0").rstrip(".") if digits else text) + _UNITS[unit]


def rfc3339(when: datetime | None) -> str | None:
    """A time as RFC 3339 has it, in UTC and whole milliseconds."""
    if when is None:
        return None
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def printable(text: str) -> str:
    """A text of the server's for a terminal: whatever it sends, nothing of it drives that."""
    return "".join(each if each.isprintable() else "\ufffd" for each in text)


def printable_lines(text: str) -> str:
    """The same of a text of several lines, which may have tabs."""
    return "\n".join(printable(line.expandtabs()) for line in text.splitlines())
