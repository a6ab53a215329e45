"""`layover admin verify`."""

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from layover.cli.errors import DONE, FAILED, WrongUsage, say
from layover.cli.options import OUTPUT
from layover.cli.output import Column, Row, print_rows, size

if TYPE_CHECKING:
    from layover.maintenance.verify import Finding, Progress, Verification

_COLUMNS = (
    Column("KIND", "kind"),
    Column("REPOSITORY", "repository"),
    Column("REFERENCE", "reference"),
    Column("BUILDS", "builds"),
    Column("PROBLEM", "problem"),
    Column("REPAIR", "repair"),
)
_COUNTS = (Column("", "what"), Column("", "count", is_number=True))

# A line now and then where no bar can be drawn.
_LINE_EVERY = 0.1


@click.command("verify", epilog="Example: layover admin verify --data-dir /var/lib/layover")
@click.option(
    "--repair",
    is_flag=True,
    help="Set aside what is damaged, and mend what nothing is lost by.",
)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="The server's data folder [default: what `layover serve` would take here].",
)
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The server's settings' file [default: layover.toml, if there].",
)
@click.option("--quiet", "-q", is_flag=True, help="Show no progress.")
@OUTPUT
def verify(repair: bool, data_dir: Path | None, config: Path | None, quiet: bool, form: str) -> int:
    """Read again everything that is stored, and compare it with what is said of it.

    Every blob and manifest is read and held against its digest; what refers to something, against
    what is there; and what is stored, against what something names. A server may be at work
    meanwhile. The status is 0 when all is well, and 1 when something is wrong and not repaired.

    With --repair, damaged bytes are moved to a folder `quarantine`, never deleted, and their blob
    is hidden, so that the next push brings it again. What cannot be put right with certainty is
    left as it is.
    """
    from layover import logs
    from layover.maintenance.verify import NoServerData, verify
    from layover.settings import SettingsError, load

    logs.configure(as_json=False)
    try:
        settings = load(config, {} if data_dir is None else {"data_dir": data_dir})
        with _drawn(quiet) as report:
            found = asyncio.run(verify(settings, repair=repair, report=report))
    except (NoServerData, SettingsError) as error:
        raise WrongUsage(str(error)) from error
    _print(found, form)
    if found.is_well:
        return DONE
    left = sum(not finding.is_repaired for finding in found.findings)
    say(
        f"{left} of {len(found.findings)} findings are not repaired."
        + ("" if repair else " `--repair` does what it says beside each.")
    )
    return FAILED


def _print(found: "Verification", form: str) -> None:
    rows = [_row(finding) for finding in found.findings]
    if form == "json":
        click.echo(json.dumps({"counts": dict(found.counts), "findings": rows}, indent=2))
        return
    if form == "csv":
        print_rows(rows, [], _COLUMNS, form)
        return
    if rows:
        print_rows(rows, [_shown(finding) for finding in found.findings], _COLUMNS, form)
        click.echo()
    kinds: dict[str, int] = {}
    for finding in found.findings:
        kinds[finding.kind.value] = kinds.get(finding.kind.value, 0) + 1
    counts = [
        {"what": name, "count": size(count) if name == "bytes" else str(count)}
        for name, count in {**found.counts, **kinds, "findings": len(rows)}.items()
    ]
    print_rows(counts, counts, _COUNTS, form)


def _row(finding: "Finding") -> Row:
    return {
        "id": finding.reference,
        "kind": finding.kind.value,
        "status": "repaired" if finding.is_repaired else "found",
        "project": finding.project_id,
        "repository": finding.repository,
        "builds": list(finding.builds),
        "problem": finding.problem,
        "repair": finding.repair,
    }


def _shown(finding: "Finding") -> dict[str, str]:
    return {
        "kind": finding.kind.value,
        "repository": finding.repository or finding.project_id,
        "reference": finding.reference,
        "builds": " ".join(finding.builds),
        "problem": finding.problem,
        "repair": f"{finding.repair}{' (done)' if finding.is_repaired else ''}",
    }


@contextmanager
def _drawn(quiet: bool) -> Iterator["Callable[[Progress], None]"]:
    """What the work reports to: a bar on a terminal, a line for each stage and tenth elsewhere."""
    if quiet:
        yield lambda progress: None
    elif sys.stderr.isatty():
        with _bar() as report:
            yield report
    else:
        yield _Lines().report


class _Lines:
    def __init__(self) -> None:
        self._stage = ""
        self._next = 0.0

    def report(self, progress: "Progress") -> None:
        if progress.stage != self._stage:
            self._stage, self._next = progress.stage, _LINE_EVERY
            total = f" ({size(progress.total_bytes)})" if progress.total_bytes else ""
            say(f"{progress.stage}{total}")
        elif progress.total_bytes:
            done = progress.done_bytes / progress.total_bytes
            if done >= self._next:
                self._next = done + _LINE_EVERY
                say(f"{self._stage}: {size(progress.done_bytes)} of {size(progress.total_bytes)}")


@contextmanager
def _bar() -> Iterator["Callable[[Progress], None]"]:
    # Rich costs a tenth of a second to load, which a verification by cron need not pay.
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    with Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True, highlight=False),
    ) as bars:
        task = bars.add_task("", total=None)

        def report(progress: "Progress") -> None:
            bars.update(
                task,
                description=progress.stage,
                total=progress.total_bytes or None,
                completed=progress.done_bytes,
            )

        yield report
