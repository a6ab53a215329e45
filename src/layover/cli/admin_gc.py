"""`layover admin gc`."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from layover.cli.errors import WrongUsage, say
from layover.cli.options import OUTPUT
from layover.cli.output import Column, Row, print_rows, rfc3339, size

if TYPE_CHECKING:
    from layover.maintenance.collect import Counts, Removal

_COLUMNS = (
    Column("KIND", "kind"),
    Column("REPOSITORY", "repository"),
    Column("REFERENCE", "reference"),
    Column("FREES", "frees", is_number=True),
    Column("WHY", "reason"),
    Column("SINCE", "dueAt"),
)
_DONE_COLUMNS = (Column("ENDED", "ended"), Column("BLOBS REMOVED", "blobsRemoved"))


@click.command("gc", epilog="Example: layover admin gc --dry-run --data-dir /var/lib/layover")
@click.option("--dry-run", is_flag=True, help="Say what would go and why, and change nothing.")
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
@OUTPUT
def gc(dry_run: bool, data_dir: Path | None, config: Path | None, form: str) -> None:
    """Collect now what is over, bytes included.

    A server does this by itself every `reaper_interval`, and may be at work meanwhile: they take
    turns, and pushes and pulls go on. What a client was told within `gc_grace` to be there stays.
    A dry run on a server without PostgreSQL lets pushes wait while it reckons.
    """
    from layover import logs
    from layover.maintenance.collect import NoServerData, collect, plan
    from layover.settings import SettingsError, load

    logs.configure(as_json=False)
    try:
        settings = load(config, {} if data_dir is None else {"data_dir": data_dir})
        if dry_run:
            _print_plan(asyncio.run(plan(settings)), form)
        else:
            _print_counts(asyncio.run(collect(settings)), form)
    except (NoServerData, SettingsError) as error:
        raise WrongUsage(str(error)) from error


def _print_plan(removals: "list[Removal]", form: str) -> None:
    rows: list[Row] = [
        {
            "id": removal.reference,
            "status": removal.reason,
            "kind": removal.kind.value,
            "repository": removal.repository or None,
            "sizeBytes": removal.size_bytes,
            "dueAt": rfc3339(removal.due_at),
        }
        for removal in removals
    ]
    shown = [
        {
            "kind": removal.kind.value,
            "repository": removal.repository,
            "reference": removal.reference,
            "frees": size(removal.size_bytes) if removal.size_bytes else "",
            "reason": removal.reason,
            "dueAt": rfc3339(removal.due_at) or "",
        }
        for removal in removals
    ]
    if form == "table" and not rows:
        say("Nothing is over: a collection would take nothing away.")
        return
    print_rows(rows, shown, _COLUMNS, form)
    if form == "table":
        total = sum(removal.size_bytes for removal in removals)
        say(f"{len(removals)} would go, and {size(total)} come free.")


def _print_counts(counts: "Counts", form: str) -> None:
    row = {"ended": counts.ended, "blobsRemoved": counts.objects}
    shown = {name: str(value) for name, value in row.items()}
    print_rows([row], [shown], _DONE_COLUMNS, form)
