"""`python -m tests.soak`: run a workload against servers of its own; end with 1 on any error."""

import argparse
import asyncio
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.soak.client import RegistryClient
from tests.soak.cluster import Cluster, embedded, scaled
from tests.soak.journal import Journal
from tests.soak.run import WORKLOADS, Plan, Run

# No shorter than a push takes on a machine that has more to do.
_GRACE_SECONDS = 10


def main() -> int:
    arguments = _parse()
    folder = Path(tempfile.mkdtemp(prefix="layover-soak-", dir="/tmp"))
    journal = Journal(arguments.log or folder / "soak.jsonl")
    print(f"seed {arguments.seed}, log in {journal.path}", flush=True)
    plan = Plan(
        WORKLOADS[arguments.workload],
        seed=arguments.seed,
        clients=arguments.clients,
        grace=arguments.grace,
        reaper_interval=1,
        events=arguments.events or float("inf"),
        seconds=arguments.minutes * 60 if arguments.minutes else float("inf"),
        kill_every=arguments.kill_every,
    )
    settings = {
        "REAPER_INTERVAL": "1s",
        "GC_GRACE": f"{arguments.grace}s",
        "UPLOAD_LIFETIME": f"{arguments.grace}s",
        "LOG_FORMAT": "json",
    }
    # Whoever ends the run early leaves no server behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    opened = (
        embedded(folder, settings)
        if arguments.pair == "embedded"
        else scaled(folder, settings, arguments.replicas)
    )
    with opened as cluster:
        run = asyncio.run(_run(plan, cluster, journal, arguments.retentions))
    journal.close()
    print(journal.report())
    print(run.samples.report())
    failed = bool(journal.errors) or run.samples.memory_grows()
    if not failed:
        shutil.rmtree(folder)
    return 1 if failed else 0


async def _run(plan: Plan, cluster: Cluster, journal: Journal, retentions: Sequence[float]) -> Run:
    places = cluster.add_places(retentions)
    async with RegistryClient(
        cluster.urls, cluster.token, journal, replicas_die=plan.kill_every is not None
    ) as client:
        run = Run(plan, cluster, client, journal)
        await run.go(places)
    return run


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--workload", choices=WORKLOADS, default="mixed")
    parser.add_argument("--pair", choices=("embedded", "scaled"), default="embedded")
    parser.add_argument("--replicas", type=int, default=3, help="of the scaled pair")
    parser.add_argument("--events", type=int, help="end after so many")
    parser.add_argument("--minutes", type=float, help="end after so long")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--grace", type=int, default=_GRACE_SECONDS, metavar="SECONDS")
    parser.add_argument(
        "--kill-every", type=float, metavar="SECONDS", help="kill a server so often, about"
    )
    parser.add_argument(
        "--retentions",
        type=_retentions,
        default=(5.0, 20.0, 60.0),
        metavar="SECONDS,...",
        help="a project for each, beside one where what is pushed stays",
    )
    parser.add_argument("--log", type=Path, help="where the events are written to")
    return parser.parse_args()


def _retentions(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(",") if part)


if __name__ == "__main__":
    sys.exit(main())
