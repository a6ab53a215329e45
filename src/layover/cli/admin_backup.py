"""`layover admin backup` and `layover admin restore`."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from layover.cli.errors import FAILED, WrongUsage, say
from layover.cli.options import OUTPUT
from layover.cli.output import Column, print_rows, rfc3339, size

if TYPE_CHECKING:
    from layover.maintenance.models import Progress, Summary

# A line now and then where no bar can be drawn.
_LINE_EVERY = 0.1

_COLUMNS = (
    Column("FOLDER", "folder"),
    Column("TAKEN", "takenAt"),
    Column("BUILDS", "builds", is_number=True),
    Column("BLOBS", "blobs", is_number=True),
    Column("SIZE", "size", is_number=True),
    Column("NEW", "new", is_number=True),
)

_DATA_DIR = click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="The server's data folder [default: what `layover serve` would take here].",
)
_CONFIG = click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The server's settings' file [default: layover.toml, if there].",
)
_QUIET = click.option("--quiet", "-q", is_flag=True, help="Show no progress.")


@click.command("backup", epilog="Example: layover admin backup /mnt/backup/layover")
@click.argument("dest", type=click.Path(path_type=Path))
@_DATA_DIR
@_CONFIG
@_QUIET
@OUTPUT
def backup(dest: Path, data_dir: Path | None, config: Path | None, quiet: bool, form: str) -> int:
    """Back up a data folder to DEST, while its server runs.

    DEST gets the database as it is at one moment, and the blobs that it names: as links where the
    file system is the same, which take no room, else as copies. The next backup to the same DEST
    copies what is new and removes what is gone. Collection waits meanwhile; pushes and pulls do
    not.

    Of a server on PostgreSQL and object storage, see docs/operations.md.
    """
    from layover.maintenance.backup import back_up
    from layover.maintenance.models import FolderRefused

    source = _data_dir(config, data_dir)
    try:
        with _drawn("backup", quiet) as report:
            summary = back_up(source, dest, report)
    except FolderRefused as error:
        raise WrongUsage(str(error)) from error
    _print(summary, form)
    damaged = summary.manifest.damaged
    if damaged:
        say(
            f"error: {len(damaged)} blobs that the server should have are missing or damaged, and"
            f" are not in the backup: {', '.join(damaged[:10])}{', ...' if damaged[10:] else ''}\n"
            "Everything else is. `layover admin verify` says what needs them."
        )
        return FAILED
    return 0


@click.command(
    "restore",
    epilog="Example: layover admin restore /mnt/backup/layover --data-dir /var/lib/layover",
)
@click.argument("source", type=click.Path(path_type=Path))
@_DATA_DIR
@_CONFIG
@_QUIET
@OUTPUT
def restore(
    source: Path, data_dir: Path | None, config: Path | None, quiet: bool, form: str
) -> None:
    """Make a data folder of the backup in SOURCE.

    The folder has to be empty; a restore that was cut off goes on when it is run again. `layover
    serve` on it then serves what was there when the backup was taken, without what has expired
    since.
    """
    from layover.maintenance.models import FolderRefused
    from layover.maintenance.restore import restore
    from layover.settings import SettingsError

    target = _data_dir(config, data_dir)
    try:
        with _drawn("restore", quiet) as report:
            summary = restore(source, target, report)
    except (FolderRefused, SettingsError) as error:
        raise WrongUsage(str(error)) from error
    _print(summary, form)


def _data_dir(config: Path | None, data_dir: Path | None) -> Path:
    from layover.settings import SettingsError, load

    try:
        settings = load(config, {} if data_dir is None else {"data_dir": data_dir})
    except SettingsError as error:
        raise WrongUsage(str(error)) from error
    if settings.database_url.get_secret_value() or settings.blob_store_url:
        raise WrongUsage(
            "the settings name a database or a bucket beside the data folder: docs/operations.md"
            " says how to back these up and restore them"
        )
    return settings.data_dir


def _print(summary: "Summary", form: str) -> None:
    manifest = summary.manifest
    row = {
        "folder": str(summary.folder),
        "takenAt": rfc3339(manifest.taken_at),
        "schema": manifest.schema,
        "builds": manifest.builds,
        "manifests": manifest.manifests,
        "blobs": manifest.blobs,
        "sizeBytes": manifest.size_bytes,
        "newBlobs": summary.new_blobs,
        "newBytes": summary.new_bytes,
        "removedBlobs": summary.removed_blobs,
        "damaged": list(manifest.damaged),
    }
    shown = {
        **{name: str(row[name]) for name in ("folder", "takenAt", "builds", "blobs")},
        "size": size(manifest.size_bytes),
        "new": size(summary.new_bytes),
    }
    print_rows([row], [shown], _COLUMNS, form)


@contextmanager
def _drawn(what: str, quiet: bool) -> Iterator["Callable[[Progress], None]"]:
    """What the work reports to: a bar on a terminal, a line for each tenth elsewhere."""
    if quiet:
        yield lambda progress: None
    elif sys.stderr.isatty():
        with _bar(what) as report:
            yield report
    else:
        yield _Lines(what).report


class _Lines:
    def __init__(self, what: str) -> None:
        self._what = what
        self._next = _LINE_EVERY

    def report(self, progress: "Progress") -> None:
        done = progress.done_blobs / (progress.total_blobs or 1)
        if done >= self._next or progress.done_blobs == progress.total_blobs:
            self._next = done + _LINE_EVERY
            say(
                f"{self._what}: {progress.done_blobs} of {progress.total_blobs} blobs,"
                f" {size(progress.done_bytes)} of {size(progress.total_bytes)}"
            )


@contextmanager
def _bar(what: str) -> Iterator["Callable[[Progress], None]"]:
    # Rich costs a tenth of a second to load, which a backup by cron need not pay.
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    with Bars(
        TextColumn(what),
        TextColumn("{task.fields[blobs]}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True, highlight=False),
    ) as bars:
        task = bars.add_task(what, total=None, blobs="")

        def report(progress: "Progress") -> None:
            bars.update(
                task,
                total=progress.total_bytes,
                completed=progress.done_bytes,
                blobs=f"{progress.done_blobs}/{progress.total_blobs} blobs",
            )

        yield report
