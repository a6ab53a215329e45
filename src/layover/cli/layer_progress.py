"""Drawing an image's layers on their way: a bar each on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from layover.cli.errors import say
from layover.client.layers import LayerProgress, Report


@contextmanager
def drawn(mode: str) -> Iterator[Report]:
    """What progress is reported to; leaving it leaves the finished picture standing.

    The mode is auto, plain, tty or quiet.
    """
    if mode == "quiet":
        yield lambda progress: None
    elif mode == "tty" or (mode == "auto" and sys.stderr.isatty()):
        with _bars() as report:
            yield report
    else:
        yield _Lines().report


class _Lines:
    """A line for each thing that happens, none for how far it is."""

    def __init__(self) -> None:
        self._last: dict[str, str] = {}

    def report(self, progress: LayerProgress) -> None:
        if self._last.get(progress.layer) == progress.status or not progress.status:
            return
        self._last[progress.layer] = progress.status
        say(f"{progress.layer}: {progress.status}" if progress.layer else progress.status)


@contextmanager
def _bars() -> Iterator[Report]:
    # Rich costs a tenth of a second to load, which a pull in CI need not pay.
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn

    console = Console(stderr=True, highlight=False)
    tasks: dict[str, TaskID] = {}
    with Progress(
        TextColumn("{task.description}", markup=False),
        TextColumn("{task.fields[status]}", markup=False),
        BarColumn(),
        DownloadColumn(),
        console=console,
    ) as bars:

        def report(progress: LayerProgress) -> None:
            if not progress.layer:
                if progress.status:
                    bars.console.print(progress.status, markup=False)
                return
            if progress.layer not in tasks:
                tasks[progress.layer] = bars.add_task(progress.layer, total=None, status="")
            task = tasks[progress.layer]
            if progress.is_done:
                known = bars.tasks[bars.task_ids.index(task)].total
                total = progress.total_bytes or known or 1
                bars.update(task, status=progress.status, total=total, completed=total)
            elif progress.total_bytes:
                bars.update(
                    task,
                    status=progress.status,
                    total=progress.total_bytes,
                    completed=progress.done_bytes,
                )
            else:
                bars.update(task, status=progress.status)

        yield report
