"""One soak from start to end: its servers, its run, its report."""

import asyncio
from contextlib import AbstractContextManager
from pathlib import Path

from tests.soak.client import RegistryClient
from tests.soak.cluster import Cluster, embedded, scaled
from tests.soak.journal import Journal
from tests.soak.run import Plan, Run

PAIRS = ("embedded", "scaled")


def soak(plan: Plan, folder: Path, pair: str, replicas: int = 3) -> list[str]:
    """Run the plan on servers of its own in `folder`, print the report, return what was wrong."""
    settings = {
        "REAPER_INTERVAL": f"{plan.reaper_interval}s",
        "GC_GRACE": f"{plan.grace}s",
        "UPLOAD_LIFETIME": f"{plan.upload_lifetime}s",
        "LOG_FORMAT": "json",
    }
    cluster: AbstractContextManager[Cluster]
    if pair == "embedded":
        cluster = embedded(folder, settings)
    else:
        cluster = scaled(folder, settings, replicas)
    folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(folder / "soak.jsonl")
    print(f"seed {plan.seed}, log in {journal.path}", flush=True)
    try:
        with cluster as started:
            run = asyncio.run(_run(plan, started, journal))
    finally:
        journal.close()
    print(journal.report())
    print(run.samples.report())
    if plan.kill_every is not None:
        print(f"{run.cluster.kills} kills")
    elif run.samples.memory_grows():
        journal.errors.append("the servers' memory grew")
    return journal.errors


async def _run(plan: Plan, cluster: Cluster, journal: Journal) -> Run:
    places = cluster.add_places(plan.retentions)
    async with RegistryClient(
        cluster.urls, cluster.token, journal, replicas_die=plan.kill_every is not None
    ) as client:
        run = Run(plan, cluster, client, journal)
        await run.go(places)
    return run
