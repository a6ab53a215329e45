"""`python -m tests.soak`: run a workload against servers of its own; end with 1 on any error."""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.soak.client import RegistryClient
from tests.soak.cluster import Cluster, embedded
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
    with embedded(folder, settings) as cluster:
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
    parser.add_argument("--events", type=int, help="end after so many")
    parser.add_argument("--minutes", type=float, help="end after so long")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--grace", type=int, default=_GRACE_SECONDS)
    parser.add_argument("--kill-every", type=float)
    parser.add_argument("--retentions", type=_retentions, default=(5.0, 20.0, 60.0))
    parser.add_argument("--log", type=Path)
    return parser.parse_args()


def _retentions(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(",") if part)


if __name__ == "__main__":
    sys.exit(main())
