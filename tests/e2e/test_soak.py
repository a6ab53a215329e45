"""The soak, short: five minutes of the mixed workload in all, and servers that are killed.

`make soak` runs it for as long as one likes; what it reports of a failure is in its log.
"""

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.soak.run import WORKLOADS, Plan
from tests.soak.soak import PAIRS, soak


def seed() -> int:
    """Another one each time; a failure's output names it."""
    return random.randrange(1 << 32)


def test_of_a_mixed_workload_nothing_fails_nothing_is_lost_and_all_goes_at_its_time(
    own_folder: Path,
) -> None:
    def errors(pair: str) -> list[str]:
        plan = Plan(
            WORKLOADS["mixed"], seed=seed(), clients=6, grace=20, retentions=(8, 20), seconds=150
        )
        return soak(plan, own_folder / pair, pair)

    # Side by side: each of them waits for its disk most of the time.
    with ThreadPoolExecutor(len(PAIRS)) as pool:
        found = dict(zip(PAIRS, pool.map(errors, PAIRS), strict=True))
    assert found == {pair: [] for pair in PAIRS}


def test_a_server_that_is_killed_again_and_again_loses_nothing(own_folder: Path) -> None:
    plan = Plan(
        WORKLOADS["mixed"],
        seed=seed(),
        clients=8,
        # A push may take a few lives of the server, and counts on what the first one told it.
        grace=40,
        retentions=(30,),
        kills=8,
        kill_every=1,
    )
    assert soak(plan, own_folder, "embedded") == []
