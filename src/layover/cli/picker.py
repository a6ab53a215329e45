"""Choosing a build from a list: arrow keys, or typing to filter."""

import sys
from collections.abc import Sequence
from datetime import datetime

from layover.cli.build_rows import COLUMNS, shown_row
from layover.cli.errors import Interrupted
from layover.rpc.layover.v1.builds_pb import Build

_GAP = "  "
_WIDEST_TAGS = 60


def can_ask() -> bool:
    """Whether somebody sits at a terminal: the list is drawn on standard error."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def lines(builds: Sequence[Build], now: datetime) -> list[str]:
    """The heading and a line for each build, in columns."""
    rows = [{column.field: column.heading for column in COLUMNS}]
    rows += [shown_row(build, now) for build in builds]
    for row in rows:
        if len(row["tags"]) > _WIDEST_TAGS:
            row["tags"] = row["tags"][: _WIDEST_TAGS - 1] + "…"
    widths = {c.field: max(len(row[c.field]) for row in rows) for c in COLUMNS}
    return [
        _GAP.join(
            row[c.field].rjust(widths[c.field])
            if c.is_number
            else row[c.field].ljust(widths[c.field])
            for c in COLUMNS
        ).rstrip()
        for row in rows
    ]


def pick(builds: Sequence[Build], question: str, now: datetime) -> Build:
    """Let the user choose. Raises Interrupted when they leave without choosing."""
    # Drawing loads what no other way through a command needs.
    import questionary
    from prompt_toolkit.output import create_output

    heading, *shown = lines(builds, now)
    # Three columns of cursor come before each line of the list.
    answer = questionary.select(
        f"{question} (arrow keys, type to filter, Enter)\n   {heading}",
        choices=[
            questionary.Choice(line, value=build) for line, build in zip(shown, builds, strict=True)
        ],
        instruction=" ",
        use_search_filter=True,
        use_jk_keys=False,
        # What is piped out of a command is its result alone.
        output=create_output(stdout=sys.stderr),
    ).unsafe_ask()
    if not isinstance(answer, Build):
        raise Interrupted
    return answer
